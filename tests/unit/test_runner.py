"""The loop of a study, on the fake testbed: what is stored, in which order, and what a failure changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.fake_study import run_fake, small_study

from meshwise.archive.read import ArchiveReader
from meshwise.findings.flag import RENEWED
from meshwise.study.design.blocks import design
from meshwise.testbed.fake import FakeTestbed


def test_a_study_without_trouble_stores_its_design_in_order(tmp_path: Path) -> None:
    study = small_study()
    summary = run_fake(tmp_path / "out", study)
    trials = ArchiveReader.open(tmp_path / "out").trials()
    assert trials["trial_id"].to_list() == [trial.trial_id for trial in design(study)]
    assert set(trials["status"]) == {"ok"}
    assert summary.ok == len(trials)
    assert not any(str(RENEWED()) in flags for flags in trials["flags"])


def test_a_crash_is_tried_again_and_what_follows_in_its_execution_is_flagged(tmp_path: Path) -> None:
    study = small_study()
    planned = design(study)
    victim = planned[1].trial_id
    summary = run_fake(tmp_path / "out", study, FakeTestbed(study, crashes={victim}))
    trials = ArchiveReader.open(tmp_path / "out").trials()
    rows = {row["trial_id"]: row for row in trials.iter_rows(named=True)}
    assert summary.failed == 1
    assert rows[victim]["status"] == "failed"
    assert rows[f"{victim}-r1"]["status"] == "ok"
    first_block = [trial.trial_id for trial in planned if trial.block == 0]
    assert trials["trial_id"].to_list()[: len(first_block) + 1] == [*first_block, f"{victim}-r1"]
    renewed = {trial_id for trial_id, row in rows.items() if str(RENEWED()) in row["flags"]}
    assert renewed == {*first_block[2:], f"{victim}-r1"}


def test_a_trial_that_is_not_proven_is_not_measured(tmp_path: Path) -> None:
    study = small_study()
    victim = design(study)[0].trial_id
    summary = run_fake(tmp_path / "out", study, FakeTestbed(study, unproven={victim}))
    row = ArchiveReader.open(tmp_path / "out").trials().row(0, named=True)
    assert (row["trial_id"], row["status"], row["requests_rows"]) == (victim, "unproven", None)
    assert summary.unproven == 1
    kept = {path.parent.name: path.read_text() for path in (tmp_path / "out/failures").glob("*/*")}
    assert kept == {victim: f"{victim} did not end well\n"}, "its state, and no other's"


def test_a_resumed_block_says_that_its_processes_are_new(tmp_path: Path) -> None:
    study = small_study()
    planned = design(study)
    with pytest.raises(KeyboardInterrupt):
        run_fake(tmp_path / "out", study, FakeTestbed(study, interrupts={planned[3].trial_id}))
    run_fake(tmp_path / "out", study, resume=True)
    rows = list(ArchiveReader.open(tmp_path / "out").trials().iter_rows(named=True))
    assert [row["trial_id"] for row in rows] == [trial.trial_id for trial in planned]
    renewed = {row["trial_id"] for row in rows if str(RENEWED()) in row["flags"]}
    assert renewed == {trial.trial_id for trial in planned[3:] if trial.block == 0}
