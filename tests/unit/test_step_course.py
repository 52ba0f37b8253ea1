"""Steps by second: what is read of a trial, how often equal arms are said to drift, and a planted warm-up."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tests.support.fake_study import run_fake
from tests.support.simulate import Rate
from tests.support.synthetic import ladder_cells

from meshwise.analysis.contrast import Naming
from meshwise.analysis.findings import arranged, controls_of
from meshwise.analysis.grid import Grid
from meshwise.analysis.increment import ladder
from meshwise.analysis.settings import Settings
from meshwise.analysis.step_course import step_courses
from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.findings.document import to_json
from meshwise.findings.finding import Findings
from meshwise.findings.pictures import Pictures, StepCourse
from meshwise.measure.seconds import CPU, KEYS, MEAN, MEDIAN, BySecond, by_second
from meshwise.measure.trial import TrialResult
from meshwise.report import terminal
from meshwise.report.content import content
from meshwise.report.record import read_record
from meshwise.report.sections import report_of
from meshwise.report.step_course import step_course_chart
from meshwise.study.file.read import parse_study
from meshwise.study.model import Arrangement, MeshName, Role, Study, Trial
from meshwise.testbed.fake import FakeTestbed, SimulatedNoise

CELLS = ladder_cells(MeshName.ISTIO)
SECONDS, STUDIES = 5, 200


def test_a_trial_by_second_is_what_was_asked_and_answered_in_each() -> None:
    intended = np.arange(0, 3 * 10**9, 40_000_000)  # 25 in each second
    response = np.repeat([100.0, 200.0, 400.0], 25)
    response[0] = np.inf
    answered = np.sort((intended + response * 1e3)[np.isfinite(response)].astype(np.int64))
    read_ns = np.array([0, 1, 2, 3], dtype=np.int64) * 10**9 + 50_000_000
    read_ns[0] = 0
    clock = (read_ns, np.array([0.0, 26e6, 51e6, 76e6]))
    found = by_second(3, intended, response, answered, [clock, clock])
    assert found is not None
    assert found.completed.tolist() == [24, 25, 25]
    assert found.values[MEDIAN] == pytest.approx([100, 200, 400])
    assert found.values[MEAN] == pytest.approx([100, 200, 400]), "the mean is of what was answered"
    between = np.diff(np.searchsorted(answered, read_ns, side="right"))
    assert found.values[CPU] == pytest.approx(2 * np.array([26e3, 25e3, 25e3]) / between)


def test_what_cannot_be_told_by_second_has_no_value() -> None:
    intended = np.arange(0, 3 * 10**9, 100_000_000)  # 10 in each second: no median
    answered = intended + 1000
    ends_only = (np.array([0, 3 * 10**9]), np.array([0.0, 3e6]))
    found = by_second(3, intended, np.ones(30), answered, [ends_only])
    assert found is not None
    assert np.isnan(found.values[MEDIAN]).all()
    assert np.isnan(found.values[CPU]).all(), "read at both ends of the trial alone"
    assert (found.values[MEAN] == 1).all()
    assert by_second(2, intended, np.ones(30), answered, []) is None


def simulated(
    seed: int, *, twin: bool = True, warming: float = 0.0, executions: int = 8, layout: float = 0.005
) -> tuple[StepCourse, ...]:
    """A study arranged together whose moments wander by 5 % from second to second for all arms alike, and
    whose processes differ in level and, by chance, in how they change."""
    random = np.random.default_rng(seed)
    arms = [(cell, Role.CELL) for cell in CELLS] + ([(CELLS[1], Role.TWIN)] if twin else [])
    results = []
    for block in range(executions):
        common = np.cumsum(random.normal(0, 0.05, (len(KEYS), SECONDS)), axis=1)
        for place, (cell, role) in enumerate(arms):
            own = random.normal(0, layout, (len(KEYS), 1)) + random.normal(0, 0.012, (len(KEYS), SECONDS))
            own += random.normal(0, 0.002, (len(KEYS), 1)) * np.arange(SECONDS)
            cold = warming * np.exp(-np.arange(SECONDS) / 2) if cell == CELLS[3] else np.zeros(SECONDS)
            rows = dict(zip(KEYS, 200 * np.exp(common + own + cold), strict=True))
            trial = Trial(f"b{block}-p{place}", block, block, place, cell, role, round=block)
            values = {key: float(row.mean()) for key, row in rows.items()}
            told = BySecond(np.full(SECONDS, 800), rows)
            results.append(TrialResult(trial, values, by_second=told))
    settings = Settings(
        "simulated", seed, ("response_p50_us",), cells=CELLS, arrangement=Arrangement.TOGETHER
    )
    grid, naming = Grid.of(results, CELLS), Naming.of(CELLS)
    return step_courses(grid, arranged(ladder(CELLS, naming), settings), controls_of(grid, 0.95), settings)


@pytest.mark.parametrize("twin", [True, False])
def test_arms_that_do_not_drift_are_flagged_in_at_most_five_percent_of_studies(twin: bool) -> None:
    """Without a twin no floor is known, and the interval alone must hold."""
    courses = [simulated(seed, twin=twin) for seed in range(STUDIES)]
    assert {len(each) for each in courses} == {15}, "five steps, three metrics"
    rate = Rate("any step drifts", sum(any(c.drifts for c in each) for each in courses), STUDIES, 0.05)
    assert rate.at_most, rate


def test_a_simulated_warm_up_of_one_posture_is_flagged_up_and_down() -> None:
    courses = [simulated(seed, warming=0.1) for seed in range(20)]
    for cell, sign in ((CELLS[3], -1), (CELLS[4], 1)):
        own = [c for each in courses for c in each if c.upper == cell.posture.name]
        flagged = [c for c in own if c.drifts]
        assert len(flagged) >= 0.9 * len(own)
        assert all(c.slope * sign > 0 for c in flagged)


def test_slopes_are_of_executions_and_a_change_below_the_floor_is_no_drift() -> None:
    course = next(c for c in simulated(1, executions=1))
    assert (course.slope_low, course.drifts, course.executions) == (None, False, 1)
    quiet, noisy = (simulated(1, warming=0.06, layout=layout) for layout in (0.005, 0.5))
    assert any(c.drifts for c in quiet)
    assert not any(c.drifts for c in noisy)
    assert [c.slope for c in noisy] == pytest.approx([c.slope for c in quiet]), "levels do not enter slopes"


TEXT = """\
name: warming
seed: 3
environments: [none, istio]
factors:
  posture: [none, plaintext, strict, strict+fine]
  rate: 200/s
trial: {warmup: 100ms, duration: 4s}
alone: 0
blocks: 6
"""


@cache
def study() -> Study:
    return parse_study(TEXT, "warming.yaml")


def analysed(directory: Path, warming: dict[str, float]) -> Findings:
    noise = SimulatedNoise(block=0.03, execution=0.003, run=0.1, arm=0.001)
    run_fake(directory, study(), FakeTestbed(study(), noise=noise, warming=warming))
    return analyze_archive(ArchiveReader.open(directory))


def in_terminal(found: Findings, directory: Path) -> str:
    reader = ArchiveReader.open(directory)
    text = io.StringIO()
    shown = content(to_json(found), "findings.json", {})
    terminal.show(report_of(shown, read_record(reader)), Console(file=text, width=100))
    return text.getvalue()


def drifting(found: Findings) -> set[tuple[str, str, str]]:
    return {
        (f.scope["from"], f.scope["to"], f.metric)  # type: ignore[misc]
        for f in found.findings
        if any(flag.code == "drifts_within_round" for flag in f.flags)
    }


def test_a_planted_warm_up_is_found_in_an_archive_and_shown(tmp_path: Path) -> None:
    still = analysed(tmp_path / "still", {})
    assert drifting(still) == set()
    assert "first second" not in in_terminal(still, tmp_path / "still")
    found = analysed(tmp_path / "warming", {"strict": 0.3})
    wanted = {
        (*step, str(key)) for step in (("plaintext", "strict"), ("strict", "strict+fine")) for key in KEYS
    }
    assert drifting(found) == wanted
    assert in_terminal(found, tmp_path / "warming").count("changes from the first second") == 1
    courses = found.pictures.step_courses
    assert {str(c.metric) for c in courses if c.lower == "none"} == {str(MEDIAN), str(MEAN)}, (
        "no ratio of CPU"
    )
    cpu = next(c for c in courses if c.upper == "strict" and c.metric == str(CPU))
    warm = 1 + 0.3 * 2 * (np.exp(-np.arange(4) / 2) - np.exp(-np.arange(1, 5) / 2))  # mean over each second
    assert cpu.ratio / cpu.ratio[-1] == pytest.approx(warm / warm[-1], rel=0.01)
    read = Pictures.read(found.pictures.as_json()).step_courses
    assert [(c.finding, c.slope_low is None, c.drifts) for c in read] == [
        (c.finding, c.slope_low is None, c.drifts) for c in courses
    ]
    drawing = step_course_chart("steps", "Steps", [c for c in read if c.metric == str(CPU)])
    assert "plaintext → strict, drifts" in drawing
    assert step_course_chart("steps", "Steps", []) == ""
