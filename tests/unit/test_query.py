"""`meshwise query`: right answers, nothing else read or changed, and every mistake with its place."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.support.fake_study import run_fake
from typer.testing import CliRunner

from meshwise.archive.findings import signed, write_findings
from meshwise.archive.query import QueryLimits, answering, place_in, sources_of
from meshwise.archive.read import ArchiveReader
from meshwise.archive.views import VIEWS
from meshwise.cli import main
from meshwise.cli.analyze import analyze_archive
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.findings.document import to_json
from meshwise.study.file.read import parse_study

ROOT = Path(__file__).parents[2]
USUAL = QueryLimits()
STUDY = """\
name: asked
seed: 5
environments: [none, istio]
factors:
  posture: [none, plaintext, strict]
  rate: 200/s
arrangement: apart
trial: {warmup: 100ms, duration: 500ms}
blocks: 3
"""
EXAMPLES = re.findall(r"^```sql\n(.*?)^```", (ROOT / "docs/query.md").read_text(), re.MULTILINE | re.DOTALL)
MAY_BE_EMPTY = ("FROM events", "FROM counts", "FROM spans", "FROM protection")
"""What the study of these tests has not."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("query") / "asked"
    run_fake(directory, parse_study(STUDY, "asked.yaml"))
    reader = ArchiveReader.open(directory)
    write_findings(directory, signed(to_json(analyze_archive(reader)), reader.digests), reader.digests)
    return directory


def asked(directory: Path, sql: str, limits: QueryLimits = USUAL) -> list[tuple[Any, ...]]:
    with answering(sources_of(ArchiveReader.open(directory)), sql, limits) as answer:
        return [row for batch in answer.rows for row in batch]


def refusal(act: Callable[[], object]) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        act()
    return caught.value


def test_there_are_a_dozen_documented_queries() -> None:
    assert len(EXAMPLES) >= 12


@pytest.mark.parametrize("sql", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_documented_query_works(archive: Path, sql: str) -> None:
    rows = asked(archive, sql)
    assert rows or any(words in sql for words in MAY_BE_EMPTY)


def test_the_page_shows_the_tables_as_they_are() -> None:
    spec = importlib.util.spec_from_file_location("query_page", ROOT / "scripts/query_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs/query.md").read_text()
    assert module.page(text) == text, "run scripts/query_page.py"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_every_table_has_the_columns_that_are_documented(archive: Path, view: Any) -> None:
    described = asked(archive, f"SELECT column_name FROM (DESCRIBE {view.name})")
    assert [name for (name,) in described] == [column.name for column in view.columns]


def test_no_other_table_is_shown(archive: Path) -> None:
    assert {name for (name,) in asked(archive, "SHOW TABLES")} == {view.name for view in VIEWS}


def test_numbers_are_those_of_the_archive(archive: Path) -> None:
    reader = ArchiveReader.open(archive)
    frame = reader.scan_requests().collect()
    assert asked(archive, "SELECT count(*), sum(done_ns) FROM requests") == [
        (frame.height, frame["done_ns"].sum())
    ]
    measured = frame.filter(frame["intended_ns"] >= 0)
    slowest = (measured["done_ns"] - measured["intended_ns"]).max()
    (found,) = asked(archive, "SELECT count(*), max(response_us) FROM responses")
    assert found == (measured.height, pytest.approx(slowest / 1e3))
    assert asked(archive, "SELECT count(*) FROM trials") == [(reader.trials().height,)]
    assert asked(archive, "SELECT count(*) FROM design") == [(len(reader.design),)]
    assert asked(archive, "SELECT count(*) > 0 FROM findings WHERE kind = 'level'") == [(True,)]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside.csv"
    path.write_text("secret\n1\n")
    return path


@pytest.mark.parametrize(
    "sql",
    [
        "COPY trials TO '{out}'", "CREATE TABLE x AS SELECT 1", "DROP VIEW requests", "SET threads = 1",
        "PRAGMA database_list", "ATTACH '{out}'", "INSTALL httpfs", "EXPLAIN ANALYZE COPY trials TO '{out}'",
        "SELECT 1; SELECT 2", "", "-- nothing", "INSERT INTO trials SELECT * FROM trials", "CHECKPOINT",
    ],
)  # fmt: skip
def test_only_one_select_is_answered(archive: Path, tmp_path: Path, sql: str) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in archive.iterdir())
    error = refusal(lambda: asked(archive, sql.format(out=tmp_path / "out.parquet")))
    assert error.code == "MW002", error
    assert error.exit_status is ExitStatus.BAD_INPUT
    assert not (tmp_path / "out.parquet").exists()
    assert sorted((path.name, path.stat().st_mtime_ns) for path in archive.iterdir()) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{path}'", "SELECT * FROM read_csv('{path}')", "SELECT * FROM read_text('{path}')",
        "SELECT * FROM glob('{folder}/*')", "SELECT * FROM read_blob('/proc/self/environ')",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')", "SELECT * FROM local_of_the_caller",
    ],
)  # fmt: skip
def test_no_other_file_is_read(archive: Path, outside: Path, sql: str) -> None:
    local_of_the_caller = [{"secret": 1}]  # noqa: F841  DuckDB would find it by its name
    error = refusal(lambda: asked(archive, sql.format(path=outside, folder=outside.parent)))
    assert error.code == "MW001"
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("sql", "place", "says", "hint"),
    [
        ("SELECT *\nFROM trials WHER x", "line 2, column", "syntax error", ""),
        ("SELECT * FROM trails", "line 1, column 15", "trails", "did you mean `trials`?"),
        ("SELECT cell,\n  postur\nFROM trials", "line 2, column 3", "postur", "--tables"),
        ("SELECT 'ü', nosuch(cell) FROM trials", "line 1, column 13", "nosuch", "--tables"),
    ],
)
def test_a_mistake_is_named_with_its_place(archive: Path, sql: str, place: str, says: str, hint: str) -> None:
    error = refusal(lambda: asked(archive, sql))
    assert error.code == "MW001"
    assert place in error.where
    assert says in error.what
    assert "LINE" not in error.what
    assert hint in error.remedy


def test_places_are_of_characters() -> None:
    assert place_in("SELECT 'ü',\n x", len("SELECT 'ü',\n ".encode())) == (2, 2)
    assert place_in("x", 0) == (1, 1)


def test_a_value_that_does_not_fit_ends_the_query_in_the_middle(archive: Path) -> None:
    error = refusal(lambda: asked(archive, "SELECT CAST(trial_id AS INTEGER) FROM requests"))
    assert error.code == "MW001"
    assert "TRY_CAST" in error.remedy


def test_memory_is_bounded(archive: Path) -> None:
    sql = "SELECT list(a.i || b.i) FROM range(3000) a(i), range(3000) b(i)"
    error = refusal(lambda: asked(archive, sql, QueryLimits(memory_bytes=64 << 20)))
    assert error.code == "MW003"
    assert "64MiB" in error.what


def test_time_is_bounded(archive: Path) -> None:
    sql = "SELECT sum(a.i * b.i * c.i) FROM range(1000000) a(i), range(1000000) b(i), range(1000000) c(i)"
    error = refusal(lambda: asked(archive, sql, QueryLimits(timeout_ns=200 * 10**6)))
    assert error.code == "MW004"


def test_ctrl_c_ends_a_question_as_everything_else(archive: Path) -> None:
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    sql = "SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(10000000) b(i)"
    with pytest.raises(KeyboardInterrupt):
        asked(archive, sql)


def test_settings_are_locked_and_rows_come_as_they_are_found(archive: Path) -> None:
    with answering(sources_of(ArchiveReader.open(archive)), "FROM range(5_000_000)") as answer:
        batches: Iterator[Any] = answer.rows
        first = next(batches)
        assert len(first) <= 2048
        assert first[0] == (0,)
    assert asked(archive, "SELECT value FROM duckdb_settings() WHERE name = 'lock_configuration'") == [
        ("true",)
    ]


def test_an_altered_archive_is_not_asked(archive: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(archive, copy)
    victim = next((copy / "requests").iterdir())
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    assert refusal(lambda: asked(copy, "SELECT 1")).code == "MW609"


# --- the command -----------------------------------------------------------------------------------


def command(*words: str) -> Any:
    return CliRunner().invoke(main.app, ["query", *words])


def test_json_csv_and_table_say_the_same(archive: Path, tmp_path: Path) -> None:
    sql = "SELECT trial_id, rate_rps, flags, NULL AS nothing, 'a,\"b' AS t FROM trials ORDER BY ALL LIMIT 3"
    rows = asked(archive, sql)
    told = json.loads(command(str(archive), sql, "--json").stdout)
    assert [entry["trial_id"] for entry in told] == [row[0] for row in rows]
    assert told[0]["nothing"] is None
    assert told[0]["rate_rps"] == 200.0
    read = list(csv.DictReader(io.StringIO(command(str(archive), sql, "--csv").stdout)))
    assert [entry["trial_id"] for entry in read] == [row[0] for row in rows]
    assert read[0]["t"] == 'a,"b'
    assert all(row[0] in command(str(archive), sql).stdout for row in rows)
    out = tmp_path / "rows.json"
    assert command(str(archive), sql, "--json", "--out", str(out)).stdout == ""
    assert json.loads(out.read_text()) == told


def test_no_rows_are_said(archive: Path) -> None:
    sql = "SELECT trial_id FROM trials WHERE false"
    assert json.loads(command(str(archive), sql, "--json").stdout) == []
    assert "(no rows)" in command(str(archive), sql).stdout


def test_tables_are_shown_without_a_question(archive: Path) -> None:
    told = json.loads(command(str(archive), "--tables", "--json").stdout)
    assert {view["name"] for view in told} >= {
        "trials",
        "requests",
        "telemetry",
        "counts",
        "events",
        "findings",
    }
    assert all(column["meaning"] for view in told for column in view["columns"])
    assert "response_us" in command(str(archive), "--tables").stdout


def test_options_that_make_no_sense(archive: Path, tmp_path: Path) -> None:
    for words, code in (
        ([str(archive), "SELECT 1", "--json", "--csv"], "MW010"),
        ([str(archive)], "MW010"),
        ([str(archive), "SELECT 1", "--memory", "much"], "MW101"),
        ([str(tmp_path), "SELECT 1"], "MW604"),
    ):
        found = command(*words).exception
        assert isinstance(found, MeshwiseError)
        assert found.code == code


def test_ten_million_rows_pass_in_bounded_memory(archive: Path) -> None:
    """Of a process of its own, whose peak is its own."""
    script = (
        "import resource\n"
        "from pathlib import Path\n"
        "from meshwise.archive.query import QueryLimits, answering, sources_of\n"
        "from meshwise.archive.read import ArchiveReader\n"
        "small = QueryLimits(256 << 20)\n"
        f"sources = sources_of(ArchiveReader.open(Path({str(archive)!r})))\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "with answering(sources, 'SELECT i, i AS j FROM range(10_000_000) r(i)', small) as a:\n"
        "    before = peak()\n"
        "    print(sum(len(batch) for batch in a.rows), peak() - before)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ}
    ).stdout.split()
    assert int(told[0]) == 10_000_000
    assert int(told[1]) < 400, "MiB above what the process had before"


def test_duckdb_itself_is_as_new_as_the_locks_need() -> None:
    assert tuple(map(int, duckdb.__version__.split(".")[:2])) >= (1, 2)
