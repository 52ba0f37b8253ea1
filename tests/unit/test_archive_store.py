"""The archive's writer: what is stored, in which order, and what a killed run leaves behind."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.fake_study import run_fake, small_study

from meshwise.archive import begin
from meshwise.archive.outcome import Check, Measurement, Proof
from meshwise.archive.read import ArchiveReader
from meshwise.archive.schema import REQUESTS, TELEMETRY, TRIALS
from meshwise.archive.store import Archive, TrialOutcome, TrialStatus
from meshwise.core import files
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.study.design.blocks import design
from meshwise.study.design.estimate import REQUEST_ROW_BYTES, TRIAL_FILE_BYTES
from meshwise.study.model import Study, Trial
from meshwise.testbed.fake import FakeTestbed

STUDY = small_study()
TRIALS_OF_STUDY = design(STUDY)
ENVIRONMENT: dict[str, object] = {
    "testbed": "fake",
    "machine": {"kernel": "1.2.3", "load_average": [0.1]},
}


def start(directory: Path, study: Study = STUDY, **more: Any) -> Archive:
    return Archive.start(directory, study, design(study), ENVIRONMENT, **more)


def outcome(trial: Trial, study: Study = STUDY) -> TrialOutcome:
    with FakeTestbed(study) as testbed:
        return TrialOutcome(
            trial,
            TrialStatus.OK,
            Proof((Check("transport", "TLSv1.3", "TLSv1.3", True),), {"tls_version": "TLSv1.3"}),
            measurement=testbed.measure([trial], lambda progress: None)[trial.trial_id],
            resources=testbed.resources(trial),
            apply_ns=5,
            prove_ns=6,
            measure_ns=7,
        )


def refusal(act: Callable[[], object]) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        act()
    return caught.value


def test_a_trial_is_stored_as_the_contract_says(tmp_path: Path) -> None:
    trial = TRIALS_OF_STUDY[0]
    with start(tmp_path / "a") as archive:
        archive.add(outcome(trial))
        assert archive.statuses() == {trial.trial_id: TrialStatus.OK}
    assert pq.read_schema(tmp_path / "a/trials.parquet").names == TRIALS.arrow.names
    requests = pq.read_table(tmp_path / f"a/requests/{trial.trial_id}.parquet")
    assert requests.column_names[: len(REQUESTS.columns)] == REQUESTS.arrow.names
    assert requests.num_rows == 120
    assert requests["trial_id"].unique().to_pylist() == [trial.trial_id]
    telemetry = pq.read_table(tmp_path / f"a/telemetry/{trial.trial_id}.parquet")
    assert telemetry.column_names == TELEMETRY.arrow.names
    row = ArchiveReader.open(tmp_path / "a").trials().row(0, named=True)
    assert (row["status"], row["requests_rows"], row["telemetry_rows"]) == ("ok", 120, telemetry.num_rows)
    assert (row["apply_ns"], row["prove_ns"], row["measure_ns"]) == (5, 6, 7)
    assert json.loads(row["proof"])["checks"][0]["observed"] == "TLSv1.3"
    assert json.loads(row["instrument"])["limited_by"] == "none"
    assert (tmp_path / "a/study.yaml").read_text() == STUDY.source
    assert (tmp_path / "a/postures" / row["posture_file"]).read_text().startswith("# fake resources")


def test_the_environment_is_kept_with_the_version_of_the_format(tmp_path: Path) -> None:
    start(tmp_path / "a").close()
    kept = json.loads((tmp_path / "a/environment.json").read_text())
    assert kept["schema_version"] == 2
    assert kept["machine"]["kernel"] == "1.2.3"


def test_further_columns_of_requests_are_kept(tmp_path: Path) -> None:
    trial = TRIALS_OF_STUDY[0]
    made = outcome(trial)
    assert made.measurement is not None
    wide = made.measurement.requests.append_column(
        "connection", pa.array(range(made.measurement.requests.num_rows), pa.int32())
    )
    with start(tmp_path / "a") as archive:
        archive.add(replace(made, measurement=replace(made.measurement, requests=wide)))
    assert "connection" in pq.read_schema(tmp_path / f"a/requests/{trial.trial_id}.parquet").names


def test_a_failed_and_an_unproven_trial_are_rows_too(tmp_path: Path) -> None:
    first, second = TRIALS_OF_STUDY[:2]
    bad = Proof((Check("transport", "TLSv1.3", "plaintext", False),))
    made = outcome(first).measurement
    assert made is not None
    broken = replace(made, failure="proxy ended", log_tail="segfault", flags=("late_sends: x",))
    with start(tmp_path / "a") as archive:
        archive.add(TrialOutcome(first, TrialStatus.FAILED, Proof(()), "proxy ended", broken))
        archive.add(TrialOutcome(second, TrialStatus.UNPROVEN, bad, "transport: ..."))
    rows = ArchiveReader.open(tmp_path / "a").trials().to_dicts()
    assert [row["status"] for row in rows] == ["failed", "unproven"]
    assert (rows[0]["log_tail"], rows[0]["flags"]) == ("segfault", ["late_sends: x"])
    assert rows[0]["requests_rows"] == 120
    assert rows[1]["requests_rows"] is None
    assert json.loads(rows[1]["proof"])["passed"] is False


def test_a_trial_is_stored_once(tmp_path: Path) -> None:
    with start(tmp_path / "a") as archive:
        archive.add(outcome(TRIALS_OF_STUDY[0]))
        assert refusal(lambda: archive.add(outcome(TRIALS_OF_STUDY[0]))).code == "MW613"


def test_a_table_that_does_not_fit_is_a_defect_that_names_the_column(tmp_path: Path) -> None:
    made = outcome(TRIALS_OF_STUDY[0])
    assert made.measurement is not None
    short = made.measurement.requests.drop_columns(["done_ns"])
    with start(tmp_path / "a") as archive:
        error = refusal(
            lambda: archive.add(replace(made, measurement=replace(made.measurement, requests=short)))  # type: ignore[type-var]
        )
        assert archive.statuses() == {}
    assert (error.code, "done_ns" in error.what) == ("MW612", True)


# --- refused before anything starts -------------------------------------------------------------


def test_a_second_study_in_a_directory_is_refused(tmp_path: Path) -> None:
    start(tmp_path / "a").close()
    error = refusal(lambda: start(tmp_path / "a"))
    assert (error.code, error.exit_status) == ("MW601", ExitStatus.BAD_INPUT)
    assert "--resume" in error.remedy


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    error = refusal(lambda: start(tmp_path))
    assert error.code == "MW603"
    assert "thesis.txt" in error.what
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt"]


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    start(tmp_path).close()
    assert ArchiveReader.open(tmp_path).design == TRIALS_OF_STUDY


def test_a_path_that_is_a_file_or_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file/inside", Path("/proc/meshwise-study")):
        error = refusal(lambda path=path: start(path))  # type: ignore[misc]
        assert (error.code, error.exit_status) == ("MW606", ExitStatus.ENVIRONMENT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; run as an ordinary user")
def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert refusal(lambda: start(tmp_path / "a")).code == "MW606"


def test_too_little_space_is_refused_before_the_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begin, "free_bytes", lambda directory: 1000)
    error = refusal(lambda: start(tmp_path / "a"))
    assert (error.code, error.exit_status) == ("MW607", ExitStatus.ENVIRONMENT)
    assert "1000B free" in error.what
    monkeypatch.undo()
    start(tmp_path / "a").close()  # with space, the same command works


def test_a_disk_that_fills_up_is_told_and_keeps_what_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = TRIALS_OF_STUDY[:2]
    with start(tmp_path / "a") as archive:
        archive.add(outcome(first))

        def full(fd: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", full)
        assert refusal(lambda: archive.add(outcome(second))).code == "MW607"
        monkeypatch.undo()
    with start(tmp_path / "a", resume=True) as archive:
        assert set(archive.statuses()) == {first.trial_id}
        archive.add(outcome(second))


# --- one writer ---------------------------------------------------------------------------------


def test_a_live_run_in_this_process_has_the_archive_to_itself(tmp_path: Path) -> None:
    with start(tmp_path / "a"):
        error = refusal(lambda: start(tmp_path / "a", resume=True))
        assert (error.code, str(os.getpid()) in error.what) == ("MW602", True)
    start(tmp_path / "a", resume=True).close()


def _hold(directory: Path, opened: Any, done: Any) -> None:
    with start(directory):
        opened.set()
        done.wait(30)


def test_a_live_run_in_another_process_has_it_and_a_killed_one_has_not(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    opened, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "a", opened, done))
    holder.start()
    try:
        assert opened.wait(30)
        error = refusal(lambda: start(tmp_path / "a", resume=True))
        assert (error.code, str(holder.pid) in error.what) == ("MW602", True)
    finally:
        holder.kill()
        holder.join()
    start(tmp_path / "a", resume=True).close()


def test_the_pid_of_a_killed_run_in_use_again_does_not_keep_the_archive_shut(tmp_path: Path) -> None:
    start(tmp_path / "a").close()
    owner = {"pid": os.getpid(), "start_ticks": 1, "boot_id": "other", "pid_namespace": "other"}
    (tmp_path / "a/.lock").write_text(json.dumps(owner))
    start(tmp_path / "a", resume=True).close()


# --- resume -------------------------------------------------------------------------------------


def test_resume_continues_with_what_is_missing(tmp_path: Path) -> None:
    with start(tmp_path / "a") as archive:
        for trial in TRIALS_OF_STUDY[:3]:
            archive.add(outcome(trial))
    testbed = FakeTestbed(STUDY)
    run_fake(tmp_path / "a", STUDY, testbed, resume=True)
    measured = [word.split()[1] for word in testbed.log if word.startswith("measure")]
    assert measured == [trial.trial_id for trial in TRIALS_OF_STUDY[3:]]
    rows = ArchiveReader.open(tmp_path / "a").trials()["trial_id"].to_list()
    assert rows == [trial.trial_id for trial in TRIALS_OF_STUDY]


def test_resume_cleans_what_a_killed_run_left(tmp_path: Path) -> None:
    with start(tmp_path / "a") as archive:
        archive.add(outcome(TRIALS_OF_STUDY[0]))
    orphan = tmp_path / f"a/requests/{TRIALS_OF_STUDY[1].trial_id}.parquet"
    orphan.write_bytes(b"complete, but without a row")
    half = tmp_path / f"a/telemetry/{TRIALS_OF_STUDY[1].trial_id}.parquet{files.ASIDE}"
    half.write_bytes(b"ha")
    with start(tmp_path / "a", resume=True) as archive:
        assert not orphan.exists()
        assert not half.exists()
        assert len(archive.statuses()) == 1
        archive.add(outcome(TRIALS_OF_STUDY[1]))


@pytest.mark.parametrize("last", ["study.yaml", "environment.json", "trials.parquet", "design.parquet.aside"])
def test_a_creation_that_was_cut_short_begins_again(tmp_path: Path, last: str) -> None:
    (tmp_path / "requests").mkdir()
    for name in ("study.yaml", "environment.json", "trials.parquet", "design.parquet.aside"):
        (tmp_path / name).write_text("ha")
        if name == last:
            break
    with start(tmp_path, resume=True) as archive:
        assert archive.statuses() == {}
    assert ArchiveReader.open(tmp_path).study() == STUDY


def test_resume_of_nothing_begins(tmp_path: Path) -> None:
    start(tmp_path / "new", resume=True).close()
    assert ArchiveReader.open(tmp_path / "new").trials().height == 0


def test_resume_with_another_study_is_refused(tmp_path: Path) -> None:
    start(tmp_path / "a").close()
    error = refusal(lambda: start(tmp_path / "a", small_study("pin: true\n"), resume=True))
    assert (error.code, error.exit_status) == ("MW605", ExitStatus.BAD_INPUT)


def test_resume_in_another_environment_is_refused_with_the_differences(tmp_path: Path) -> None:
    start(tmp_path / "a").close()
    other = {"testbed": "local", "machine": {"kernel": "9.9.9", "load_average": [7.5]}}
    error = refusal(lambda: Archive.start(tmp_path / "a", STUDY, TRIALS_OF_STUDY, other, resume=True))
    assert error.code == "MW611"
    assert 'testbed was "fake", is "local"; machine.kernel was "1.2.3", is "9.9.9"' in error.what
    assert "load_average" not in error.what


def test_resume_minds_which_proxy_it_is_and_not_where_it_lies(tmp_path: Path) -> None:
    def facts(path: str, digest: str) -> dict[str, object]:
        return {**ENVIRONMENT, "proxies": {"istio": {"path": path, "digest": digest}}}

    Archive.start(tmp_path / "a", STUDY, TRIALS_OF_STUDY, facts("/one/envoy", "1"), resume=False).close()
    Archive.start(tmp_path / "a", STUDY, TRIALS_OF_STUDY, facts("/other/envoy", "1"), resume=True).close()
    other = facts("/one/envoy", "2")
    error = refusal(lambda: Archive.start(tmp_path / "a", STUDY, TRIALS_OF_STUDY, other, resume=True))
    assert error.code == "MW611"


def test_resume_does_not_mind_what_always_changes(tmp_path: Path) -> None:
    start(tmp_path / "a").close()
    later = ENVIRONMENT | {"machine": {"kernel": "1.2.3", "load_average": [9.0]}}
    Archive.start(tmp_path / "a", STUDY, TRIALS_OF_STUDY, later, resume=True).close()


def test_a_run_killed_at_any_moment_is_continued_without_loss(tmp_path: Path) -> None:
    """SIGKILL at ten moments spread over the run; each resume keeps what was complete before."""
    context = multiprocessing.get_context("forkserver")  # a fresh process each, without importing each time
    context.set_forkserver_preload(["tests.support.fake_study"])
    kept: list[str] = []
    for rows in range(10):
        run = context.Process(target=run_fake, args=(tmp_path / "a", STUDY), kwargs={"resume": True})
        run.start()
        wait_for_rows(tmp_path / "a", rows, run)
        run.kill()
        run.join()
        if (tmp_path / "a/design.parquet").exists():
            stored = ArchiveReader.open(tmp_path / "a").trials()["trial_id"].to_list()
            assert stored[: len(kept)] == kept
            kept = stored
    run_fake(tmp_path / "a", STUDY, resume=True)
    stored = ArchiveReader.open(tmp_path / "a").trials()["trial_id"].to_list()
    assert stored == [trial.trial_id for trial in TRIALS_OF_STUDY]
    assert not list((tmp_path / "a").rglob(f"*{files.ASIDE}"))


def wait_for_rows(directory: Path, rows: int, run: BaseProcess) -> None:
    """Until the run has stored so many trials, or ended."""
    deadline = time.monotonic() + 30
    while run.is_alive() and time.monotonic() < deadline:
        path = directory / "trials.parquet"
        if path.exists() and pq.read_metadata(path).num_rows >= rows:
            return
        time.sleep(0.002)


def test_a_trial_takes_the_space_that_is_reckoned_with(tmp_path: Path) -> None:
    run_fake(tmp_path / "a", STUDY)
    reader = ArchiveReader.open(tmp_path / "a")
    rows = reader.scan_requests().collect().height
    held = sum(path.stat().st_size for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert held < rows * REQUEST_ROW_BYTES + reader.trials().height * TRIAL_FILE_BYTES


def test_measurement_without_rows_is_stored(tmp_path: Path) -> None:
    trial = TRIALS_OF_STUDY[0]
    empty = Measurement(
        REQUESTS.arrow.empty_table(), TELEMETRY.arrow.empty_table(), 1, {}, "instrument ended"
    )
    with start(tmp_path / "a") as archive:
        archive.add(TrialOutcome(trial, TrialStatus.FAILED, Proof(()), "instrument ended", empty))
    assert ArchiveReader.open(tmp_path / "a").scan_requests().collect().height == 0
