"""The design: complete blocks, uniform order, same seed, same order; and what `plan` says of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from meshwise.study.design.blocks import design, design_block
from meshwise.study.design.estimate import doubts, estimate, ladder_steps, resolution
from meshwise.study.design.rounds import block_tasks
from meshwise.study.file.read import parse_study
from meshwise.study.model import Role, Study

GOLDEN_ORDER = [
    "strict/twin",
    "none/cell",
    "strict+fine/aa",
    "plaintext/cell",
    "strict/cell",
    "none/aa",
    "permissive/cell",
    "strict+namespace/cell",
    "strict+fine/cell",
]


@cache
def ladder(extra: str = "") -> Study:
    return parse_study(
        "name: x\nseed: 7\nenvironments: [none, istio]\nfactors: {posture: ladder}\narrangement: apart\n"
        + extra,
        "s.yaml",
    )


def test_every_task_stands_once_in_each_block() -> None:
    study = ladder()
    wanted = Counter(block_tasks(study))
    assert len(wanted) == 6 + 2 + 1
    for block in range(study.blocks):
        trials = design_block(study, block)
        assert Counter((trial.cell, trial.role) for trial in trials) == wanted
        assert [trial.position for trial in trials] == list(range(len(trials)))


def test_names_are_unique_and_say_block_and_position() -> None:
    trials = design(ladder())
    assert len({trial.trial_id for trial in trials}) == len(trials) == 72
    assert trials[0].trial_id == "b000-p00"
    assert trials[-1].trial_id == "b007-p08"


def test_same_seed_same_order_and_another_seed_another() -> None:
    study = ladder()
    assert design(study) == design(replace(study))
    assert design(study) != design(replace(study, seed=8))


def test_the_order_is_the_one_it_has_always_been() -> None:
    """A resumed study needs the order that it began with, whatever version resumes it."""
    order = [trial.cell.posture.name + "/" + trial.role for trial in design_block(ladder(), 0)]
    assert order == GOLDEN_ORDER


def test_a_further_block_changes_no_earlier_one() -> None:
    study = ladder()
    more = replace(study, blocks=study.blocks + 3)
    assert design(more)[: len(design(study))] == design(study)


def test_blocks_differ_in_order() -> None:
    study = ladder()
    orders = {
        tuple(trial.cell.name + trial.role for trial in design_block(study, block)) for block in range(8)
    }
    assert len(orders) == 8


def test_positions_are_uniform_over_seeds() -> None:
    study = ladder()
    tasks = block_tasks(study)
    counts = np.zeros((len(tasks), len(tasks)))
    for seed in range(1000):
        for trial in design_block(replace(study, seed=seed), seed % 5):
            counts[tasks.index((trial.cell, trial.role)), trial.position] += 1
    # rows and columns are both fixed sums: (k-1)^2 degrees of freedom, like a contingency table
    chi2 = ((counts - 1000 / len(tasks)) ** 2 / (1000 / len(tasks))).sum()
    assert 0.001 < stats.chi2.sf(chi2, (len(tasks) - 1) ** 2) < 0.999


def test_an_execution_holds_whole_blocks() -> None:
    study = ladder("blocks: 6\nexecutions: 3\n")
    lives = {trial.block: trial.execution for trial in design(study)}
    assert lives == {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2}
    assert study.executions == 3
    assert {trial.execution for trial in design(ladder())} == set(range(8))


def test_twins_run_on_the_other_set_of_processes() -> None:
    sets = {trial.role: trial.process_set for trial in design(ladder())}
    assert sets == {Role.CELL: "a", Role.AA: "a", Role.TWIN: "b"}


def test_estimate_counts_trials_time_and_disk() -> None:
    study = ladder("trial: {warmup: 1s, duration: 3s}\n")
    expected = estimate(study)
    assert expected.trials == 72
    assert expected.measured_s == 72 * 4
    assert expected.measured_s < expected.wall_s < 2 * expected.measured_s
    assert expected.disk_bytes > 72 * 4 * 500 * 8


@pytest.mark.parametrize(
    ("n", "half_width", "together", "detectable"),
    [(4, 1.59, 2.92, 2.13), (8, 0.84, 1.24, 1.16), (10, 0.72, 1.03, 1.00), (20, 0.47, 0.64, 0.66)],
)
def test_resolution_agrees_with_the_published_table(
    n: int, half_width: float, together: float, detectable: float
) -> None:
    found = resolution(n, family=5, confidence=0.95)
    assert found.half_width == pytest.approx(half_width, abs=0.006)
    assert found.simultaneous_half_width == pytest.approx(together, abs=0.006)
    assert found.detectable == pytest.approx(detectable, abs=0.006)


def test_the_family_is_the_longest_ladder() -> None:
    assert ladder_steps(ladder()) == 5


def test_doubts_name_what_limits_a_study() -> None:
    assert doubts(ladder()) == ()
    told = "\n".join(
        doubts(ladder("blocks: 4\ncontrol: {same: none, twin: none}\nprimary: response_p999_us\n"))
    )
    for part in (
        "4 executions",
        "no A/A control",
        "no twin",
        "`response_p999_us` is primary",
        "needs at least 20000",
    ):
        assert part in told
