"""Trials alone: which cells of a study that is arranged together also run without company, and how they end
up in design, plan and archive."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from tests.support.fake_study import run_fake

from meshwise.archive.read import ArchiveReader, stored_alone
from meshwise.archive.resolved import of_values, to_values
from meshwise.core.errors import MeshwiseError
from meshwise.study.design.alone import LEAST, alone_in, cells_alone
from meshwise.study.design.blocks import design, design_block
from meshwise.study.design.estimate import estimate
from meshwise.study.design.rounds import block_rounds
from meshwise.study.file.read import parse_study
from meshwise.study.model import Arrangement, Role, Study
from meshwise.testbed.fake import FakeTestbed

TEXT = """\
name: alone
seed: 5
environments: [none, istio, linkerd]
factors: {posture: [none, plaintext, strict], protocol: [http1, grpc], rate: 100/s}
trial: {warmup: 100ms, duration: 500ms}
blocks: 8
"""


@cache
def study(more: str = "") -> Study:
    return parse_study(TEXT + more, "alone.yaml")


def names(asked: Study) -> list[str]:
    return [f"{task.cell.mesh} {task.cell.posture.name} {task.cell.protocol}" for task in cells_alone(asked)]


def test_unasked_one_cell_of_every_traffic_runs_alone() -> None:
    assert study().arrangement is Arrangement.TOGETHER
    assert study().alone == 1
    assert names(study()) == ["istio plaintext http1", "istio plaintext grpc"]
    for block in range(8):
        trials = [trial for trial in design_block(study(), block) if trial.role is Role.ALONE]
        assert len(trials) == 1
        beside = [trial for trial in design_block(study(), block) if trial.round == trials[0].round]
        assert beside == trials, "a round of one"


def test_more_turns_are_for_the_other_mesh_no_mesh_and_heavier_postures() -> None:
    assert names(study("alone: 2\n")) == [
        "istio plaintext http1", "istio plaintext grpc", "linkerd plaintext http1", "linkerd plaintext grpc",
        "none none http1",
    ]  # fmt: skip
    assert set(names(study("alone: 10\n"))) == {
        f"{cell.mesh} {cell.posture.name} {cell.protocol}" for cell in study().cells
    }


def test_cells_take_turns_and_have_as_many_as_an_interval_needs() -> None:
    asked = study("alone: 2\n")
    blocks: Counter[object] = Counter()
    for block in range(asked.blocks):
        tasks = alone_in(asked, block)
        assert len({task.cell for task in tasks}) == len(tasks) == 2
        blocks.update(task.cell for task in tasks)
    assert len(blocks) == 5
    assert min(blocks.values()) >= LEAST
    assert max(blocks.values()) - min(blocks.values()) <= 1


def test_alone_a_cell_has_the_processes_of_its_arm() -> None:
    asked = study("alone: 4\n")
    for block in range(asked.blocks):
        trials = design_block(asked, block)
        arms = {trial.cell: trial.process_set for trial in trials if trial.role is Role.CELL}
        assert all(arms[each.cell] == each.process_set for each in trials if each.role is Role.ALONE)


def test_rounds_are_the_same_with_and_without_trials_alone() -> None:
    assert block_rounds(study("alone: 0\n")) == block_rounds(study("alone: 4\n"))


def test_none_where_nothing_has_company() -> None:
    assert study("arrangement: apart\n").alone == 0
    single = parse_study(
        "name: x\nenvironments: istio\nfactors: {posture: strict}\ncontrol: {twin: none}\n", "s"
    )
    assert single.alone == 0
    assert not cells_alone(study("alone: 0\n"))
    assert not alone_in(study("alone: 0\n"), 0)


def test_apart_there_is_nothing_to_ask_for() -> None:
    with pytest.raises(MeshwiseError, match="alone already") as refused:
        study("arrangement: apart\nalone: 1\n")
    assert "alone.yaml:8" in str(refused.value)


def test_the_estimate_has_their_time() -> None:
    with_them, without = estimate(study("alone: 3\n")), estimate(study("alone: 0\n"))
    assert with_them.trials - without.trials == 3 * 8
    assert with_them.measured_s - without.measured_s == pytest.approx(3 * 8 * 0.6)
    assert with_them.trials == len(design(study("alone: 3\n")))


def test_the_archive_says_which_trials_were_alone_and_a_study_goes_on_with_them(tmp_path: Path) -> None:
    asked = study()
    stop = next(each.trial_id for each in design(asked) if each.block == 2 and each.role is Role.ALONE)
    with pytest.raises(KeyboardInterrupt):
        run_fake(tmp_path / "a", asked, FakeTestbed(asked, interrupts={stop}))
    run_fake(tmp_path / "a", asked, resume=True)
    reader = ArchiveReader.open(tmp_path / "a")
    rows = reader.trials().to_dicts()
    assert [row["trial_id"] for row in rows] == [trial.trial_id for trial in design(asked)]
    sizes = Counter(row["round"] for row in rows)
    alone = [row for row in rows if row["role"] == "alone"]
    assert len(alone) == 8
    assert all(sizes[row["round"]] == 1 for row in alone)
    assert reader.study().alone == 1
    assert stored_alone(tmp_path / "a") == 1


def test_a_study_from_before_has_none(tmp_path: Path) -> None:
    """Neither when it is read nor when it goes on."""
    values = to_values(study())
    del values["alone"]
    assert of_values(values, TEXT, tmp_path).alone == 0
    before = replace(study(), alone=0)
    run_fake(tmp_path / "a", before)
    assert stored_alone(tmp_path / "a") == 0
    assert stored_alone(tmp_path / "b") is None


def test_a_trial_alone_that_fails_is_tried_again_by_itself(tmp_path: Path) -> None:
    asked = study()
    victim = next(each.trial_id for each in design(asked) if each.block == 1 and each.role is Role.ALONE)
    run_fake(tmp_path / "a", asked, FakeTestbed(asked, crashes={victim}))
    again = [row for row in ArchiveReader.open(tmp_path / "a").trials().to_dicts() if row["attempt"]]
    assert [(row["trial_id"], row["role"]) for row in again] == [(f"{victim}-r1", "alone")]


def test_counting_trials_have_other_rounds_than_trials_alone() -> None:
    trials = design(study("count: {}\n"))
    counting = {trial.round for trial in trials if trial.role is Role.COUNT}
    assert counting
    assert not counting & {trial.round for trial in trials if trial.role is not Role.COUNT}
