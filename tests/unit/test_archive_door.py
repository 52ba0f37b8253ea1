"""What is read from an archive was checked: digests, sizes, types, ranges, and the trials with the design."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.fake_study import run_fake, small_study
from tests.support.signed import replace_about, replace_column, replace_trial_table, sign

from meshwise.archive import decode, read
from meshwise.archive.outcome import Check, Proof
from meshwise.archive.read import ArchiveReader
from meshwise.archive.schema import EVENTS
from meshwise.archive.store import Archive, TrialOutcome, TrialStatus
from meshwise.core import files
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.core.files import Folder
from meshwise.study.design.blocks import design
from meshwise.testbed.fake import FakeTestbed

STUDY = small_study()
TRIALS = design(STUDY)
FIRST, SECOND = TRIALS[0].trial_id, TRIALS[1].trial_id


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("door") / "a"
    run_fake(directory, STUDY, FakeTestbed(STUDY, crashes=(SECOND,)))
    return directory


@pytest.fixture
def archive(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "a"))


def refused(archive: Path) -> MeshwiseError:
    """Opening it, or reading its first trial."""

    def use() -> None:
        reader = ArchiveReader.open(archive)
        reader.study()
        reader.scan_requests([FIRST]).collect()
        reader.scan_telemetry([FIRST]).collect()

    with pytest.raises(MeshwiseError) as caught:
        use()
    assert caught.value.code in ("MW604", "MW608", "MW609")
    assert caught.value.exit_status is (
        ExitStatus.BAD_INPUT if caught.value.code == "MW604" else ExitStatus.ENVIRONMENT
    )
    return caught.value


def test_no_bit_of_any_file_can_change_unseen(archive: Path) -> None:
    files = [path for path in sorted(archive.rglob("*")) if path.is_file() and path.name != ".lock"]
    one_each = {path.parent if path.parent != archive else path: path for path in files}.values()
    names = {path.name for path in one_each}
    assert {"trials.parquet", "design.parquet", "environment.json", "study.json", "manifest.json"} <= names
    for path in one_each:
        content = path.read_bytes()
        for share in (0.01, 0.3, 0.6, 0.99):
            at = int(share * len(content))
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            error = refused(archive)
            assert str(path) == error.where
            assert "damaged: " in str(error)
        path.write_bytes(content)
    ArchiveReader.open(archive)


def test_a_manifest_cannot_be_left_out(archive: Path) -> None:
    (archive / "manifest.json").unlink()
    assert "manifest.json: damaged: it is not there" in str(refused(archive))


@pytest.mark.parametrize(
    "name", ["trials.parquet", "environment.json", f"requests/{FIRST}.parquet", "postures"]
)
@pytest.mark.parametrize("kind", ["symbolic link", "FIFO"])
def test_what_is_no_plain_file_is_refused(archive: Path, name: str, kind: str, tmp_path: Path) -> None:
    path = archive / name
    shutil.move(path, tmp_path / "elsewhere")
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "elsewhere")
    assert "it is a" in refused(archive).what


def test_a_terabyte_of_nothing_is_refused_unread(archive: Path) -> None:
    for name in ("trials.parquet", "environment.json", f"requests/{FIRST}.parquet"):
        before = (archive / name).read_bytes()
        os.truncate(archive / name, 1 << 40)
        assert "1,099,511,627,776 bytes" in refused(archive).what
        (archive / name).write_bytes(before)


# --- with every digest made to fit again ------------------------------------------------


def with_rows(archive: Path, name: str, change: Callable[[list[int]], list[int]]) -> str:
    table = pq.read_table(archive / name)
    rows = pa.array(change(list(range(table.num_rows))), pa.int64())
    pq.write_table(table.take(rows), archive / name)
    sign(archive)
    return str(refused(archive))


def test_rows_that_are_doubled_or_absent_are_named(archive: Path) -> None:
    rows = (archive / "trials.parquet").read_bytes()
    assert f"{FIRST} has 2 rows" in with_rows(archive, "trials.parquet", lambda rows: [*rows, 0])
    (archive / "trials.parquet").write_bytes(rows)
    told = with_rows(archive, "trials.parquet", lambda rows: rows[1:])
    assert f"the row of {FIRST} is absent, though later ones are there" in told
    (archive / "trials.parquet").write_bytes(rows)
    assert f"{FIRST} has 2 rows" in with_rows(archive, "design.parquet", lambda rows: [*rows, 0])


def test_a_trial_that_is_not_of_the_design_is_named(archive: Path) -> None:
    told = with_rows(archive, "design.parquet", lambda rows: rows[1:])
    assert f"{FIRST} is no trial of design.parquet" in told


@pytest.mark.parametrize(
    ("column", "values", "what"),
    [
        ("rate_rps", lambda n: pa.array([float("nan")] * n), "`rate_rps` holds what is no number"),
        ("rate_rps", lambda n: pa.array([201.0] * n), "`rate_rps` of .* is another than in design"),
        ("mesh", lambda n: pa.array(["none"] * n), "`mesh` of .* is another than in design"),
        ("block", lambda n: pa.array([-1] * n), "`block` goes from -1"),
        ("status", lambda n: pa.array(["fine"] * n), "`status` of .* is `fine`"),
        ("status", lambda n: pa.nulls(n, pa.string()), "`status` is null"),
        ("proof", lambda n: pa.array(["{"] * n), "`proof` of .* is not JSON"),
        ("proof", lambda n: pa.array(['{"checks": 3}'] * n), "`proof` of .* has no list of checks"),
        ("proof", lambda n: pa.array(["[" * 100_000] * n), "`proof` of .* is not JSON"),
        ("instrument", lambda n: pa.array(["[]"] * n), "`instrument` of .* is not a JSON object"),
        ("flags", lambda n: pa.array([1] * n), "column `flags`"),
        ("trial_id", lambda n: pa.array(["../../etc"] + [f"x{i}" for i in range(n - 1)]), "is no trial_id"),
        ("attempt", lambda n: pa.array([2] * n), "says of itself that it is"),
        ("requests_rows", lambda n: pa.array([1] * n), "it has 120 rows, where 1 are recorded"),
    ],
)  # fmt: skip
def test_a_table_of_trials_is_held_against_the_schema(
    archive: Path, column: str, values: Callable[[int], pa.Array], what: str
) -> None:
    count = pq.read_metadata(archive / "trials.parquet").num_rows
    replace_column(archive, "trials.parquet", column, values(count))
    error = refused(archive)
    assert error.where.endswith(".parquet")
    with pytest.raises(MeshwiseError, match=what):
        raise error


@pytest.mark.parametrize(
    ("column", "values", "what"),
    [
        ("intended_ns", lambda n: pa.array(["soon"] * n), "column `intended_ns`"),
        ("intended_ns", lambda n: pa.nulls(n, pa.int64()), "`intended_ns` is null in 120 rows"),
        ("done_ns", lambda n: pa.array([-(2**40)] * n), "were answered before they were sent"),
        ("done_ns", lambda n: pa.array([2**63 - 1] * n), "which cannot be"),
        ("bytes", lambda n: pa.array([[1]] * n), "column `bytes`"),
        ("status", lambda n: pa.array([-1] * n), "`status` goes from -1"),
        ("error", lambda n: pa.array([b"\xff\xfe"] * n), "`error`"),
        ("trial_id", lambda n: pa.array([SECOND] * n), f"it holds rows of {SECOND}"),
    ],
)
def test_requests_are_held_against_the_schema(
    archive: Path, column: str, values: Callable[[int], pa.Array], what: str
) -> None:
    table = pq.read_table(archive / f"requests/{FIRST}.parquet")
    at = table.column_names.index(column)
    changed = table.set_column(at, column, values(table.num_rows))
    replace_trial_table(archive, "requests", FIRST, changed)
    error = refused(archive)
    assert error.where == str(archive / f"requests/{FIRST}.parquet")
    with pytest.raises(MeshwiseError, match=what):
        raise error


def test_more_rows_than_the_trial_says_are_refused_before_they_are_decoded(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pq.read_table(archive / f"requests/{FIRST}.parquet")
    many = table.take(pa.array([0] * 1_000_000, pa.int64()))
    replace_trial_table(archive, "requests", FIRST, many, compression="zstd")
    assert (archive / f"requests/{FIRST}.parquet").stat().st_size < 50_000
    reader = ArchiveReader.open(archive)
    monkeypatch.setattr(decode, "_read_texts_once", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(MeshwiseError, match="1,000,000 rows, where 120 are recorded"):
        reader.scan_requests([FIRST])
    with pytest.raises(MeshwiseError, match="1,000,000 rows, where 120 are recorded"):
        reader.scan_requests()


def test_a_long_text_that_stands_once_and_counts_often_is_refused(archive: Path) -> None:
    """2 GiB if it were written out."""
    table = pq.read_table(archive / f"requests/{FIRST}.parquet")
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 120, pa.int32()), ["x" * (2 << 20)])
    changed = table.set_column(table.column_names.index("error"), "error", long)
    replace_trial_table(archive, "requests", FIRST, changed, compression="zstd")
    assert "are expected" in refused(archive).what


@pytest.mark.parametrize(
    "facts", [{"traits": [1]}, {"cpus": {"others": "01"}}, {"machine": 3}, {"workers": "two"}]
)
def test_an_environment_of_another_shape_is_refused(archive: Path, facts: dict[str, object]) -> None:
    path = archive / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    sign(archive)
    assert f"`{next(iter(facts))}` is not what a run writes there" in refused(archive).what


@pytest.mark.parametrize("facts", [{"level": "l5"}, {"trace": {"name": 3}}, {"not_applicable": ["x"]}])
def test_metadata_of_another_shape_is_refused(archive: Path, facts: dict[str, object]) -> None:
    replace_about(archive, **facts)
    assert "in its metadata is not what a run writes there" in refused(archive).what


@pytest.mark.parametrize(
    "facts",
    [
        {"seed": "x"},
        {"confidence": 7},
        {"outlier_rule": []},
        {"cells": [{}]},
        {"trial": None},
        {"trial": {"timeline": 7}},
    ],
)
def test_a_study_of_another_shape_is_refused(archive: Path, facts: dict[str, object]) -> None:
    path = archive / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    sign(archive)
    error = refused(archive)
    assert (error.code, error.where) == ("MW608", str(path))


# --- the study as it was understood --------------------------------------------------------------


def test_a_later_grammar_has_no_say_in_an_archive(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "parse_study", lambda *_: pytest.fail("the YAML was read again"))
    assert ArchiveReader.open(archive).study() == STUDY


# --- whatever moment a run is killed at ----------------------------------------------------------


class Killed(BaseException):
    pass


OLD_COLUMNS = {column.name for column in EVENTS.columns if not column.added}


def outcome(number: int) -> TrialOutcome:
    trial = TRIALS[number]
    with FakeTestbed(STUDY) as testbed:
        measured = testbed.measure([trial], lambda progress: None)[trial.trial_id]
        events = EVENTS.arrow.empty_table().from_pydict(
            {"trial_id": [trial.trial_id], "t_ns": [number], "kind": ["restart"], "target": ["x"],
             "duration_ns": [1], "detail": ["{}"]},
            schema=pa.schema([each for each in EVENTS.arrow if each.name in OLD_COLUMNS]),
        )  # fmt: skip
        return TrialOutcome(
            trial, TrialStatus.OK, Proof((Check("a", "b", "b", True),)), resources=testbed.resources(trial),
            measurement=measured.__class__(**{**vars(measured), "events": events}),
        )  # fmt: skip


def test_after_a_kill_between_any_two_writes_the_archive_is_read_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, done = Folder.write, 0
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: None)  # the order of writes is what is tried
    outcomes = [outcome(0), outcome(1)]

    def whole_run(directory: Path, *, resume: bool) -> None:
        with Archive.start(directory, STUDY, TRIALS, {"testbed": "fake"}, resume=resume) as store:
            for each in outcomes:
                if each.trial.trial_id not in store.statuses():
                    store.add(each)

    for moment in range(100):
        done = 0

        def counted(folder: Folder, name: str, content: bytes, moment: int = moment) -> None:
            nonlocal done
            if done == moment:
                raise Killed
            done += 1
            write(folder, name, content)

        directory = tmp_path / str(moment)
        monkeypatch.setattr(Folder, "write", counted)
        try:
            whole_run(directory, resume=False)
        except Killed:
            pass
        else:
            break
        finally:
            monkeypatch.setattr(Folder, "write", write)
        if (directory / "design.parquet").exists():
            found = ArchiveReader.open(directory)
            assert found.trials().height in (0, 1, 2)
            assert found.events().height >= found.trials().height
        whole_run(directory, resume=True)
        reader = ArchiveReader.open(directory)
        assert reader.trials()["trial_id"].to_list() == [FIRST, SECOND]
        assert sorted(reader.events()["t_ns"]) == [0, 1]
    assert moment > 15
