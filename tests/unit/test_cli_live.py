"""What `meshwise run` shows of a study that is arranged together, while it runs; on the fake testbed."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.fake_study import run_fake

from meshwise.analysis.live import SHOWN, Change, measured, shown_of, steps_so_far
from meshwise.analysis.settings import Settings
from meshwise.archive.outcome import TrialStatus
from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.cli.analyze import analyze_archive
from meshwise.cli.progress import RoundsSoFar, earlier, progress
from meshwise.findings.finding import Finding
from meshwise.findings.metric import MetricKey
from meshwise.findings.subject import AgainstNone, Kind, LadderStep
from meshwise.measure.trial import TrialResult
from meshwise.report.live import change_words, line_of, table_lines
from meshwise.report.words import Form
from meshwise.runner.loop import Event, RoundFinished, run_study, schedule_of
from meshwise.study.design.blocks import design
from meshwise.study.file.read import parse_study
from meshwise.study.model import Role, Study
from meshwise.testbed.fake import FakeTestbed

LADDERS = """\
name: two-ladders
environments: [none, istio, linkerd]
arrangement: together
alone: 0
factors:
  posture: [none, plaintext, strict]
  rate: [200/s, 300/s]
trial: {warmup: 100ms, duration: 500ms}
blocks: 3
"""


def study() -> Study:
    return parse_study(LADDERS, "ladders.yaml")


def one_ladder(arrangement: str = "together") -> Study:
    text = LADDERS.replace(", linkerd", "").replace(", 300/s", "").replace("together", arrangement)
    return parse_study(text, "ladder.yaml")


def increments(directory: Path) -> dict[tuple[str, str, str, str], Finding]:
    """(mesh, lower, upper, rate and metric) -> what `meshwise analyze` says."""
    document = analyze_archive(ArchiveReader.open(directory))
    found = {}
    for finding in document.findings:
        if finding.kind is Kind.INCREMENT and finding.key in SHOWN:
            subject = finding.subject
            assert isinstance(subject, LadderStep | AgainstNone)
            at = f"{subject.at['rate_rps']:g} {finding.key}"
            found[str(subject.at["mesh"]), subject.lower, subject.upper, at] = finding
    return found


def numbers(of: Change | Finding) -> tuple[float | None, ...]:
    return of.n, of.estimate, of.low, of.high, of.ratio, of.ratio_low, of.ratio_high


@pytest.mark.parametrize("faulty", [False, True])
def test_the_last_numbers_are_those_of_the_analysis(tmp_path: Path, faulty: bool) -> None:
    """Also where an arm fails (its round is tried again) and where one is unproven (its pair is lost)."""
    asked = study()
    trials = design(asked)
    faults = {"crashes": [trials[1].trial_id], "unproven": [trials[-1].trial_id]} if faulty else {}
    rounds = RoundsSoFar(asked, trials)
    with (
        FakeTestbed(asked, **faults) as testbed,
        Archive.start(tmp_path / "out", asked, trials, testbed.environment()) as archive,
    ):
        run_study(asked, schedule_of(asked, trials), testbed, archive, rounds.note)
    said = increments(tmp_path / "out")
    assert len(rounds.steps) == 8, "two meshes, two rates, two steps"
    shown = 0
    for step in rounds.steps:
        for change in step.changes:
            at = f"{step.cells[0].rate_rps:g} {change.key}"
            assert numbers(change) == numbers(said[step.mesh, step.lower, step.upper, at])
            shown += change.low is not None
    assert shown == 16


def test_a_study_that_is_resumed_shows_what_it_has_measured_before(tmp_path: Path) -> None:
    asked = study()
    trials = design(asked)
    run_fake(tmp_path / "out", asked)
    with Archive.start(
        tmp_path / "out", asked, trials, FakeTestbed(asked).environment(), resume=True
    ) as archive:
        stored = earlier(asked, archive)
    assert len(stored) == len(trials)
    assert RoundsSoFar(asked, trials, stored).steps == steps_so_far(stored, Settings.of(asked, trials))
    assert all(change.n == 3 for step in RoundsSoFar(asked, trials, stored).steps for change in step.changes)


def test_of_a_study_apart_nothing_is_read_back(tmp_path: Path) -> None:
    apart = one_ladder("apart")
    run_fake(tmp_path / "out", apart)
    environment = FakeTestbed(apart).environment()
    with Archive.start(tmp_path / "out", apart, design(apart), environment, resume=True) as archive:
        assert earlier(apart, archive) == []


def shown(tmp_path: Path, *, terminal: bool) -> str:
    asked, stream = study(), StringIO()
    trials = design(asked)
    console = Console(file=stream, force_terminal=terminal, width=120, highlight=False, color_system=None)
    with (
        FakeTestbed(asked) as testbed,
        Archive.start(tmp_path / "out", asked, trials, testbed.environment()) as archive,
        progress(console, asked, trials) as observe,
    ):
        run_study(asked, schedule_of(asked, trials), testbed, archive, observe)
    return stream.getvalue()


def test_a_log_has_one_line_per_round(tmp_path: Path) -> None:
    lines = shown(tmp_path, terminal=False).splitlines()
    assert len(lines) == 6, "three blocks of two rounds"
    first, last = lines[0], lines[-1]
    assert first.startswith("block 1/3 · round 1/6, 7 arms · ")
    assert first.count(" · http1 at ") == 1
    assert "istio plaintext → strict: " in first
    assert first.count("...") == 8, "one execution: no interval of any metric of four steps"
    assert "..." not in last
    assert " left" not in last
    assert last.count("sidecar CPU per request +") == 4
    assert last.count("→") == 4, "the steps of the round's own setting"


def test_a_terminal_has_one_table_in_place(tmp_path: Path) -> None:
    text = shown(tmp_path, terminal=True)
    lines = [line.rpartition("\x1b[2K")[2] for line in text.splitlines() if line.strip()][-10:-1]
    assert lines[0].split() == ["step", "setting", "n", "sidecar", "CPU", "per", "request", "p50"]
    assert [line.split()[0] for line in lines[1:]] == ["istio"] * 4 + ["linkerd"] * 4
    assert all("%" in line and "[" in line for line in lines[1:])
    assert "block 3/3 · round 6/6" in text
    assert "block" not in lines[-1], "at its end only the table stands"


# --- pure: results to steps, steps to words --------------------------------------------------------


def result_of(asked: Study, block: int, place: int, cpu: float) -> TrialResult:
    trial = next(
        t for t in design(asked) if t.block == block and t.cell == asked.cells[place] and t.role is Role.CELL
    )
    return TrialResult(trial, {MetricKey("cpu_us_per_request"): cpu, MetricKey("response_p50_us"): 100.0})


def test_before_two_executions_there_is_no_interval() -> None:
    asked = one_ladder()
    settings = Settings.of(asked, design(asked))
    nothing = steps_so_far([], settings)
    assert [(step.lower, step.upper) for step in nothing] == [("none", "plaintext"), ("plaintext", "strict")]
    assert {change.n for step in nothing for change in step.changes} == {0}
    assert table_lines(nothing)[2] == "istio plaintext → strict  0  ...                      ..."

    first = [result_of(asked, 0, place, cpu) for place, cpu in enumerate((0.0, 100.0, 110.0))]
    none, strict = steps_so_far(first, settings)
    assert numbers(none.changes[0]) == (1, 100.0, None, None, None, None, None), "no ratio to nothing"
    assert strict.changes[0].ratio == pytest.approx(1.1)
    assert strict.changes[0].ratio_low is None
    assert (
        line_of([strict])
        == "http1 at 200/s · istio plaintext → strict: sidecar CPU per request +10.00 % ..., p50 0 % ..."
    )

    second = [result_of(asked, 1, place, cpu) for place, cpu in enumerate((0.0, 100.0, 112.0))]
    strict = steps_so_far([*first, *second], settings)[1]
    assert strict.changes[0].n == 2
    assert strict.changes[0].ratio_low is not None


def test_failures_are_said() -> None:
    asked = one_ladder()
    failed = {MetricKey("response_p50_us"): float("inf")}
    results = [TrialResult(t, failed) for t in design(asked)]
    step = steps_so_far(results, Settings.of(asked, design(asked)))[1]
    assert step.changes[1].failures
    assert not step.changes[0].failures
    forms = Form("%", 0.01, 1), Form("us")
    assert [change_words(change, forms) for change in step.changes] == ["...", "too many failures"]


def test_nothing_is_computed_while_a_round_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = study()
    trials = design(asked)
    rounds, measuring, computed = RoundsSoFar(asked, trials), [False], []

    def note(event: Event) -> None:
        before = rounds.steps
        rounds.note(event)
        if rounds.steps is not before:
            computed.append((measuring[0], isinstance(event, RoundFinished)))

    class Watched(FakeTestbed):
        def measure(self, *given):  # type: ignore[no-untyped-def]
            measuring[0] = True
            try:
                return super().measure(*given)
            finally:
                measuring[0] = False

    with (
        Watched(asked) as testbed,
        Archive.start(tmp_path / "out", asked, trials, testbed.environment()) as archive,
    ):
        run_study(asked, schedule_of(asked, trials), testbed, archive, note)
    assert computed == [(False, True)] * 6


def test_only_what_is_shown_is_kept(tmp_path: Path) -> None:
    asked = study()
    trials = design(asked)[:1]
    kept: list[TrialResult] = []
    with (
        FakeTestbed(asked) as testbed,
        Archive.start(tmp_path / "out", asked, trials, testbed.environment()) as archive,
    ):

        def note(event: Event) -> None:
            if isinstance(event, RoundFinished):
                assert event.outcomes[0].status is TrialStatus.OK
                kept.extend(filter(None, map(measured, event.outcomes)))

        run_study(asked, schedule_of(asked, trials), testbed, archive, note)
    assert set(kept[0].values) <= set(SHOWN)
    assert kept[0].times_us is None
    assert shown_of(kept[0]) == kept[0]
