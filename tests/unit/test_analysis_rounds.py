"""Findings of a study arranged together: pairs within rounds, on the fake testbed whose truth is known."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from tests.support.fake_study import LADDER, run_fake

from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.findings.finding import Finding, Findings
from meshwise.findings.metric import MetricKey
from meshwise.study.design.blocks import design
from meshwise.study.design.rounds import block_rounds
from meshwise.study.file.read import parse_study
from meshwise.study.model import Role, Study
from meshwise.testbed.fake import FakeTestbed, SimulatedNoise, truth

TEXT = f"name: rounds\nseed: 3\n{LADDER}alone: 0\n"
WANDERING = SimulatedNoise(block=0.03, execution=0.003, run=0.10, arm=0.001)
"""A machine whose speed differs by a tenth from moment to moment, and equal processes by 0.3 %."""
CPU = MetricKey("cpu_us_per_request")


@cache
def study(more: str = "") -> Study:
    return parse_study(TEXT + more, "rounds.yaml")


def analysed(directory: Path, more: str = "", **faults: object) -> Findings:
    run_fake(directory, study(more), FakeTestbed(study(more), noise=WANDERING, **faults))  # type: ignore[arg-type]
    return analyze_archive(ArchiveReader.open(directory))


def step(found: Findings, one: str, other: str) -> Finding:
    return next(
        each
        for each in found.findings
        if each.key == CPU and each.id.startswith(f"increment/istio/{one}..{other}/")
    )


def test_a_step_is_seen_together_that_is_lost_apart(tmp_path: Path) -> None:
    together = step(analysed(tmp_path / "together"), "plaintext", "strict")
    apart = step(analysed(tmp_path / "apart", "arrangement: apart\n"), "plaintext", "strict")
    plaintext, strict = (truth(cell).proxy_cpu_us for cell in study().cells[1:3])
    assert together.ratio == pytest.approx(strict / plaintext, rel=0.01)
    assert together.ratio_low is not None
    assert together.ratio_high is not None
    assert apart.ratio_low is not None
    assert apart.ratio_high is not None
    assert together.ratio_high - together.ratio_low < (apart.ratio_high - apart.ratio_low) / 10
    assert str(together.verdict) == "distinguishable"


def test_the_cost_is_the_ratio_at_the_level_below(tmp_path: Path) -> None:
    found = analysed(tmp_path / "a")
    rung = step(found, "plaintext", "strict")
    below = next(f for f in found.findings if f.key == CPU and f.id.startswith("level/istio/plaintext/"))
    assert rung.estimate is not None
    assert rung.ratio is not None
    assert below.estimate is not None
    assert rung.estimate == pytest.approx((rung.ratio - 1) * below.estimate, rel=1e-3)
    assert "ratio at the level" in rung.method


def test_the_noise_floor_is_that_of_a_twin_arm_and_levels_say_their_company(tmp_path: Path) -> None:
    found = analysed(tmp_path / "a")
    floors = {each.id for each in found.findings if each.key == CPU and each.id.startswith("noise_floor/")}
    assert floors == {f"noise_floor/twin/{CPU}"}
    assert not any(flag.code == "no_floor" for each in found.findings for flag in each.flags)
    levels = [each for each in found.findings if each.id.startswith("level/") and each.key == CPU]
    assert all(any(flag.code == "in_company" for flag in each.flags) for each in levels)
    assert found.study["arrangement"] == "together"


def test_an_arm_that_fails_is_tried_again_with_its_whole_round(tmp_path: Path) -> None:
    victim = "b001-p02"
    analysed(tmp_path / "a", crashes={victim})
    rows = ArchiveReader.open(tmp_path / "a").trials().to_dicts()
    again = [row for row in rows if row["attempt"]]
    arms = len(block_rounds(study())[0])
    assert len(again) == arms
    assert {row["round"] for row in again} == {1}
    beside = [row for row in rows if row["round"] == 1 and not row["attempt"] and row["trial_id"] != victim]
    assert all(any(flag.startswith("company") for flag in row["flags"]) for row in beside)


def test_an_arm_that_is_not_proven_leaves_the_round_which_goes_on(tmp_path: Path) -> None:
    analysed(tmp_path / "a", unproven={"b000-p01"})
    rows = [row for row in ArchiveReader.open(tmp_path / "a").trials().to_dicts() if row["round"] == 0]
    assert {row["trial_id"]: row["status"] for row in rows}["b000-p01"] == "unproven"
    assert [row["status"] for row in rows].count("ok") == len(rows) - 1
    assert not any(row["attempt"] for row in rows), "what is not proven is not tried again"


def test_what_only_another_attempt_of_its_round_has_is_missing(tmp_path: Path) -> None:
    """Of a round that was tried again one attempt is used, so an arm that failed in it is not made good."""
    found = analysed(tmp_path / "a", crashes={"b001-p02", "b001-p03-r1"})
    checks = {each.id: each for each in found.findings if each.id.startswith("check/")}
    arms = len(block_rounds(study())[0])
    trials = ArchiveReader.open(tmp_path / "a").trials()
    assert (trials["status"] == "failed").sum() == 2
    assert len(trials.filter(trials["block"] == 1)) == 2 * arms
    assert checks["check/completeness"].estimate == 1
    assert "1 were made good by a re-try" in checks["check/failed_trials"].sentence


def test_a_study_that_is_interrupted_goes_on_at_the_first_missing_round(tmp_path: Path) -> None:
    directory, stop = tmp_path / "a", "b002-p03"
    with pytest.raises(KeyboardInterrupt):
        run_fake(directory, study(), FakeTestbed(study(), interrupts={stop}))
    stored = ArchiveReader.open(directory).trials()
    assert set(stored["round"]) == {0, 1}, "no row of a round that is not complete"
    run_fake(directory, study(), resume=True)
    after = ArchiveReader.open(directory).trials()
    assert after["trial_id"].to_list() == [trial.trial_id for trial in ArchiveReader.open(directory).design]


def divided() -> Study:
    """A round of 18 arms, in two parts."""
    policies = "strict, strict+namespace, strict+fine]\n  policies: [0, 1, 2, 3, 5, 8, 13]"
    large = parse_study(TEXT.replace("strict, strict+fine]", policies), "rounds.yaml")
    assert len(block_rounds(large)) == 2
    return large


def steps_of(directory: Path, large: Study, testbed: FakeTestbed) -> list[Finding]:
    run_fake(directory, large, testbed)
    found = analyze_archive(ArchiveReader.open(directory))
    return [
        each for each in found.findings if each.key == CPU and each.id.startswith("increment/istio/strict")
    ]


def test_parts_of_a_divided_round_are_joined_by_the_arm_that_both_have(tmp_path: Path) -> None:
    large = divided()
    steps = steps_of(tmp_path / "a", large, FakeTestbed(large, noise=WANDERING))
    widths = [each.ratio_high - each.ratio_low for each in steps if each.ratio_low and each.ratio_high]
    assert widths
    assert max(widths) < 0.05, "moments that differ by a tenth do not widen a step between the parts"


def test_a_part_without_its_reference_is_not_compared_in_that_block(tmp_path: Path) -> None:
    large = divided()
    lost = next(trial for trial in design(large) if trial.block == 2 and trial.role is Role.REFERENCE)
    testbed = FakeTestbed(large, noise=WANDERING, unproven={lost.trial_id})
    steps = steps_of(tmp_path / "a", large, testbed)
    part = {
        (trial.cell.posture.name, trial.cell.policy_count): trial.round
        for trial in design(large)
        if trial.block == 2 and trial.role is Role.CELL
    }
    seen = set()
    for each in steps:
        one, other = each.id.split("/")[2].split("..")
        count = each.levels["policy_count"]
        parts = {part[posture, count if posture != "strict" else 0] for posture in (one, other)}
        assert each.n == (8 if len(parts) == 1 else 7), "only steps across parts need the arm that is lost"
        seen.add((len(parts), lost.round in parts))
    assert seen == {(1, False), (1, True), (2, True)}
    assert all(
        each.ratio_high - each.ratio_low < 0.05 for each in steps if each.ratio_low and each.ratio_high
    )
