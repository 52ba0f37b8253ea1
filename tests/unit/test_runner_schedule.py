"""The seam `Schedule`: blocks, searches, and two more kinds that need nothing further of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.support.fake_study import small_study
from tests.support.saturation import saturation_study
from tests.support.schedule_conformance import ok, walk

from meshwise.archive.outcome import TrialStatus
from meshwise.archive.store import Archive
from meshwise.findings.metric import MetricKey
from meshwise.runner.blocks import BlockSchedule
from meshwise.runner.loop import run_study
from meshwise.runner.schedule import Done, History, Past, Round
from meshwise.runner.search import SearchSchedule
from meshwise.study.design.blocks import design, design_block
from meshwise.study.design.search import Result
from meshwise.study.model import Cell, Role, Study, Trial
from meshwise.testbed.fake import FakeTestbed


def test_blocks_in_order_and_each_failure_once_more_at_the_end_of_its_block() -> None:
    trials = design(small_study())
    first_block = [trial for trial in trials if trial.block == 0]
    victim = first_block[1].trial_id

    def answer(trial: Trial) -> Past:
        return Past(trial, TrialStatus.FAILED if trial.trial_id.startswith(victim) else TrialStatus.OK)

    found = [trial.trial_id for trial in walk(BlockSchedule(trials), answer)]
    planned = [trial.trial_id for trial in trials]
    assert found == [*planned[: len(first_block)], f"{victim}-r1", *planned[len(first_block) :]]


def test_a_search_keeps_to_the_seam_and_tries_what_is_invalid_again() -> None:
    study = saturation_study()
    trials = design(study)[:1]
    spoiled: list[str] = []

    def answer(trial: Trial) -> Past:
        if trial.step == 2 and not spoiled:
            spoiled.append(trial.trial_id)
            return Past(trial, TrialStatus.FAILED, str(Result.INVALID))
        held = Result.HELD if trial.cell.rate_rps <= 700 else Result.BROKEN
        return Past(trial, TrialStatus.OK, str(held))

    found = walk(SearchSchedule(study, trials), answer)
    assert [trial.step for trial in found] == list(range(len(found)))
    assert found[3].cell.rate_rps == found[2].cell.rate_rps, "the spoiled rate is tried again"
    held = [trial.cell.rate_rps for trial in found if trial.cell.rate_rps <= 700]
    assert max(held) == pytest.approx(700, rel=0.03)


class UntilSure:
    """Stops when the 95 % interval of one difference is narrow enough: what a sequential rule needs."""

    def __init__(self, study: Study, half_width: float, most: int) -> None:
        self._study, self._half_width, self._most = study, half_width, most
        self.looked: list[float] = []

    def next(self, history: History) -> Round | Done:
        for block in range(self._most):
            due = [t for t in design_block(self._study, block) if t.trial_id not in history.trials]
            if due:
                return Round((due[0],), total=len(history.trials) + len(due))
            if block >= 2 and self._half(history, block) < self._half_width:
                return Done()
        return Done()

    def _half(self, history: History, last_block: int) -> float:
        none, *_, strict = self._study.cells
        logs = [
            np.log(self._p50(history, block, strict) / self._p50(history, block, none))
            for block in range(last_block + 1)
        ]
        half = float(2.0 * np.std(logs, ddof=1) / len(logs) ** 0.5)
        self.looked.append(half)
        return half

    @staticmethod
    def _p50(history: History, block: int, cell: Cell) -> float:
        wanted = (block, cell, Role.CELL)
        name = next(
            name
            for name, past in history.trials.items()
            if (past.trial.block, past.trial.cell, past.trial.role) == wanted
        )
        return history.values(name)[MetricKey("response_p50_us")]


def test_a_sequential_rule_is_a_schedule_of_the_same_loop(tmp_path: Path) -> None:
    study = dataclasses.replace(small_study(), blocks=12)
    rule = UntilSure(study, half_width=0.05, most=12)
    testbed = FakeTestbed(study)
    with testbed, Archive.start(tmp_path / "out", study, design(study), testbed.environment()) as archive:
        summary = run_study(study, rule, testbed, archive, lambda event: None)
    blocks = summary.ok / len(design_block(study, 0))
    assert blocks == int(blocks)
    assert 3 <= blocks < 12
    assert rule.looked[-1] < 0.05 < min(rule.looked[:-1], default=1.0)


class Tuner:
    """Tries candidates two at a time and keeps the better one: what an optimiser needs."""

    def __init__(self, candidates: Sequence[Trial]) -> None:
        self._candidates = candidates

    def best(self, history: History) -> Trial | None:
        tried = [past.trial for past in history.trials.values()]
        return min(tried, key=lambda trial: history.values(trial.trial_id)["cost"], default=None)

    def next(self, history: History) -> Round | Done:
        best, tried = self.best(history), len(history.trials)
        left = self._candidates[tried : tried + 2]
        far = best is not None and history.values(best.trial_id)["cost"] <= 1
        return Done() if far or not left else Round(tuple(left), total=len(self._candidates))


def test_a_tuner_is_a_schedule_that_asks_for_rounds_by_what_the_former_ones_gave() -> None:
    trials = [dataclasses.replace(trial, execution=0) for trial in design(small_study())]
    costs = {trial.trial_id: cost for trial, cost in zip(trials, [9, 7, 5, 1, 3, 2], strict=False)}
    found = walk(Tuner(trials), ok, lambda name: {"cost": costs[name]})
    assert [trial.trial_id for trial in found] == [trial.trial_id for trial in trials[:4]]
