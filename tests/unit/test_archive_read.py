"""The archive's reader: tables as they were stored, and every damage named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.fake_study import run_fake, small_study
from tests.support.signed import replace_about, replace_column, sign

from meshwise.archive.findings import outdated, read_findings, write_findings
from meshwise.archive.read import ArchiveReader
from meshwise.archive.rows import cell_of, cell_row, trial_of, trial_row
from meshwise.archive.schema import EVENTS, REQUESTS, REQUESTS_EXTRA, TABLES, conform
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.study.design.blocks import design
from meshwise.study.file.read import load_study
from meshwise.testbed.fake import FakeTestbed

STUDY = small_study()
CRASHED, UNPROVEN = design(STUDY)[1].trial_id, design(STUDY)[2].trial_id


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("archive") / "a"
    run_fake(directory, STUDY, FakeTestbed(STUDY, crashes={CRASHED}, unproven={UNPROVEN}))
    return directory


@pytest.fixture
def archive(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "a"))


def refusal(act: Callable[[], object]) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        act()
    return caught.value


def test_a_whole_study_comes_back(pristine: Path) -> None:
    reader = ArchiveReader.open(pristine)
    assert reader.design == design(STUDY)
    assert reader.study() == STUDY
    assert reader.cells() == STUDY.cells
    assert reader.environment["testbed"] == "fake"
    assert reader.about["seed"] == STUDY.seed
    statuses = dict(reader.trials().select("trial_id", "status").iter_rows())
    assert statuses.pop(CRASHED) == "failed"
    assert statuses.pop(UNPROVEN) == "unproven"
    assert f"{CRASHED}-r1" in statuses
    assert set(statuses.values()) == {"ok"}
    assert [trial_of(row) for row in reader.trials().to_dicts()][:3] == list(design(STUDY)[:3])


def test_requests_are_scanned_lazily_and_by_trial(pristine: Path) -> None:
    reader = ArchiveReader.open(pristine)
    everything = reader.scan_requests().collect()
    recorded = reader.trials()["requests_rows"].sum()
    assert everything.height == recorded
    one = reader.scan_requests([design(STUDY)[0].trial_id]).select("intended_ns", "done_ns").collect()
    assert one.height == 120
    assert one["intended_ns"].min() == -100_000_000
    assert reader.scan_requests([UNPROVEN]).collect().height == 0
    assert set(everything.columns) == set(REQUESTS.arrow.names)


def test_telemetry_is_a_long_table(pristine: Path) -> None:
    reader = ArchiveReader.open(pristine)
    trial = next(trial for trial in design(STUDY) if trial.cell.posture.name == "strict")
    frame = reader.scan_telemetry([trial.trial_id]).collect()
    sources = set(frame["source"].cast(pl.String))
    assert f"istio/{trial.process_set}/node-1/proxy" in sources
    assert set(frame["metric"].cast(pl.String)) == {"cpu_ns", "rss_bytes", "pss_bytes"}


def test_duckdb_views_join(pristine: Path) -> None:
    connection = ArchiveReader.open(pristine).connect()
    try:
        rows = connection.sql(
            "select posture, count(*) from requests join trials using (trial_id) group by all order by all"
        ).fetchall()
        ((planned,),) = connection.sql("select count(*) from design").fetchall()
        ((readings,),) = connection.sql("select count(*) from telemetry").fetchall()
    finally:
        connection.close()
    assert [posture for posture, _ in rows] == ["none", "plaintext", "strict"]
    assert planned == len(design(STUDY))
    assert readings > 0


def test_files_with_and_without_further_columns_are_read_together(archive: Path) -> None:
    path = archive / f"requests/{design(STUDY)[0].trial_id}.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("connection", pa.array([1] * table.num_rows, pa.int32())), path)
    reader = ArchiveReader.open(archive, verify=False)
    assert reader.scan_requests().select("intended_ns").collect().height > table.num_rows


def test_events_are_an_empty_table_when_nothing_was_done(pristine: Path) -> None:
    assert ArchiveReader.open(pristine).events().columns == EVENTS.arrow.names


def test_a_posture_is_kept_readable(pristine: Path) -> None:
    reader = ArchiveReader.open(pristine)
    name = reader.trials().filter(pl.col("posture") == "strict")["posture_file"][0]
    assert "posture: strict" in reader.posture(name)
    with pytest.raises(MeshwiseError, match="MW608"):
        reader.posture("../study.yaml")


def test_rows_and_values_are_inverse() -> None:
    for path in (Path(__file__).parents[2] / "studies").glob("*.yaml"):
        for trial in design(load_study(path)):
            assert trial_of(trial_row(trial)) == trial
            assert cell_of(cell_row(trial.cell)) == trial.cell


# --- damage -------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def garbage(path: Path) -> None:
    path.write_bytes(b"\0" * 100)


def remove(path: Path) -> None:
    path.unlink()


FIRST = design(STUDY)[0].trial_id


@pytest.mark.parametrize("damage", [truncate, flip, garbage, remove])
@pytest.mark.parametrize("name", [f"requests/{FIRST}.parquet", f"telemetry/{FIRST}.parquet"])
def test_a_damaged_file_of_a_trial_is_named(archive: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(archive / name)
    error = refusal(lambda: ArchiveReader.open(archive))
    assert error.code == "MW609"
    assert error.where == str(archive / name)
    assert error.exit_status is ExitStatus.ENVIRONMENT


def test_all_damaged_files_are_named_at_once(archive: Path) -> None:
    truncate(archive / f"requests/{FIRST}.parquet")
    remove(archive / f"telemetry/{FIRST}.parquet")
    error = refusal(lambda: ArchiveReader.open(archive))
    assert f"telemetry/{FIRST}.parquet: it is not there" in error.what


@pytest.mark.parametrize("damage", [truncate, garbage, remove])
@pytest.mark.parametrize("name", ["trials.parquet", "design.parquet", "environment.json", "study.yaml"])
def test_a_damaged_table_or_document_is_named(
    archive: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(archive / name)
    error = refusal(lambda: ArchiveReader.open(archive))
    assert error.code in ("MW604", "MW608", "MW609")
    assert name in error.where + error.what


def test_a_study_file_that_was_edited_afterwards_is_named(archive: Path) -> None:
    path = archive / "study.yaml"
    path.write_text(path.read_text().replace("seed: 3", "seed: 4"))
    assert refusal(lambda: ArchiveReader.open(archive)).code == "MW609"


def test_a_table_without_a_column_is_named_with_it(archive: Path) -> None:
    path = archive / "trials.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["status"]), path)
    assert refusal(lambda: ArchiveReader.open(archive)).code == "MW609"
    sign(archive)
    error = refusal(lambda: ArchiveReader.open(archive))
    assert (error.code, "`status`" in error.what) == ("MW608", True)


def test_a_table_with_a_level_that_does_not_exist_is_named(archive: Path) -> None:
    for name in ("design.parquet", "trials.parquet"):
        rows = pq.read_metadata(archive / name).num_rows
        replace_column(archive, name, "mesh", pa.array(["ambient"] * rows))
    error = refusal(lambda: ArchiveReader.open(archive))
    assert (error.code, "ambient" in error.what) == ("MW608", True)


def test_a_newer_archive_is_refused(archive: Path) -> None:
    replace_about(archive, schema_version=99)
    assert refusal(lambda: ArchiveReader.open(archive)).code == "MW610"


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    error = refusal(lambda: ArchiveReader.open(tmp_path / name))
    assert (error.code, error.exit_status) == ("MW604", ExitStatus.BAD_INPUT)


# --- findings and schema ------------------------------------------------------------------------


def test_findings_come_back(tmp_path: Path) -> None:
    document = {"schema_version": 1, "findings": [{"id": "x", "estimate": 1.5, "low": None}]}
    write_findings(tmp_path, document, {"trials.parquet": "ab"})
    kept = read_findings(tmp_path)
    assert {name: kept[name] for name in document} == document
    assert kept["made_from"] == {"trials.parquet": "ab"}
    assert outdated(kept, {"trials.parquet": "ab", "manifest.json": "of no concern"}) == ""
    assert outdated(kept, {"trials.parquet": "cd"}) == "it was made from another trials.parquet"
    assert "changed" in outdated(kept | {"findings": [{"id": "x", "estimate": -12345.0}]}, {})
    assert "does not say" in outdated(document, {"trials.parquet": "ab"})
    (tmp_path / "findings.json").write_text(json.dumps(kept, sort_keys=True))  # another layout only
    assert outdated(read_findings(tmp_path), {"trials.parquet": "ab"}) == ""
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_findings(tmp_path, {"findings": [float("inf")]}, {})
    assert read_findings(tmp_path) == kept


def test_absent_and_damaged_findings_are_named(tmp_path: Path) -> None:
    error = refusal(lambda: read_findings(tmp_path))
    assert (error.code, "meshwise analyze" in error.what) == ("MW604", True)
    (tmp_path / "findings.json").write_text('{"findings": [')
    assert refusal(lambda: read_findings(tmp_path)).code == "MW608"


def test_conform_casts_fills_and_keeps() -> None:
    loose = pa.table(
        {
            "error": pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int8()), [""]),
            "extra": [1, 2],
            **{name: [1, 2] for name in ("intended_ns", "sent_ns", "first_byte_ns", "done_ns", "bytes")},
            "status": pa.array([200, 200], pa.int64()),
        }
    )
    made = conform(loose, REQUESTS, "b000-p00")
    assert made.schema.names == [*REQUESTS.arrow.names, "extra"]
    assert made.select(REQUESTS.arrow.names).schema.equals(REQUESTS.arrow)
    with pytest.raises(ValueError, match="`status`"):
        conform(loose.set_column(7, "status", pa.array(["ok", "ok"])), REQUESTS, "b000-p00")


def test_every_column_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/archive.md").read_text()
    assert [table.name for table in TABLES] == [
        *("design", "trials", "requests", "telemetry", "spans", "events", "counts", "functions", "profiles"),
        "protection",
    ]
    for column in (*(column for table in TABLES for column in table.columns), *REQUESTS_EXTRA):
        line = f"| `{column.name}` | {type_word(column.type)} | {column.meaning} |"
        assert line in page, f"docs/archive.md lacks: {line}"


def type_word(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        return "text"
    return "list of text" if pa.types.is_list(kind) else str(kind).replace("double", "float64")
