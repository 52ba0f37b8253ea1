"""What `meshwise run` shows while a study runs, from the runner's events.

Of trials apart the place in the study, in one line. Of rounds the steps of the ladder with their intervals so
far: a table that is written anew when a round begins and when it ends, so that nothing is computed or drawn
while a round is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from meshwise.analysis.live import measured, shown_of, steps_so_far
from meshwise.analysis.settings import Settings
from meshwise.archive.outcome import TrialStatus
from meshwise.archive.store import Archive
from meshwise.cli.counting import CountingLine, is_of_counting
from meshwise.core.units import format_duration, plural
from meshwise.measure.attribution import Machine
from meshwise.measure.trial import UNKNOWN_MACHINE, TrialResult
from meshwise.report.live import busy_words, line_of, table_lines
from meshwise.runner.loop import (
    Event,
    ExecutionStarted,
    Observer,
    RoundFinished,
    TrialFinished,
    TrialLive,
    TrialStarted,
    violates,
)
from meshwise.runner.values import stored_result
from meshwise.study.model import Arrangement, Role, Study, Trial


@contextmanager
def progress(
    console: Console,
    study: Study,
    trials: Sequence[Trial],
    earlier: Sequence[TrialResult] = (),
    machine: Machine = UNKNOWN_MACHINE,
) -> Iterator[Observer]:
    """`trials`: the design. `earlier`: what a study that is resumed has measured before. `machine`: which
    CPUs are the pods'."""
    if not study.timed:
        with _line(console, CountingLine(trials)) as observe:
            yield observe
        return
    if study.arrangement is Arrangement.TOGETHER:
        with _rounds(console, RoundsSoFar(study, trials, earlier, machine)) as observe:
            yield observe
        return
    with _line(console, _BothLines(study, trials)) as observe:
        yield observe


def earlier(study: Study, archive: Archive) -> list[TrialResult]:
    """Of a study that is arranged together and resumed: the numbers of the trials that are stored."""
    if study.arrangement is not Arrangement.TOGETHER:
        return []
    return [
        shown_of(stored_result(archive.directory, trial))
        for trial, status, _ in archive.history()
        if status is TrialStatus.OK and trial.role.timed
    ]


@contextmanager
def _rounds(console: Console, rounds: RoundsSoFar) -> Iterator[Observer]:
    """On a terminal the table with a line below it; without one a line per round."""

    def told(event: Event, say: Callable[[str], None]) -> None:
        rounds.note(event)
        if trouble := trouble_of(event):
            say(trouble)

    def line(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    if not console.is_terminal:

        def log(event: Event) -> None:
            told(event, line)
            if isinstance(event, RoundFinished):
                line(rounds.line)

        yield log
        return
    with Live(_fitting(rounds.text), console=console, auto_refresh=False) as live:

        def draw(event: Event) -> None:
            told(event, line)
            if not isinstance(event, TrialLive):
                live.update(_fitting(rounds.text), refresh=True)

        yield draw
        live.update(_fitting("\n".join(rounds.table)), refresh=True)


class RoundsSoFar:
    """The rounds of a study from the runner's events: place, time left, steps so far. It computes when a
    round has ended."""

    def __init__(
        self,
        study: Study,
        trials: Sequence[Trial],
        earlier: Sequence[TrialResult] = (),
        machine: Machine = UNKNOWN_MACHINE,
    ) -> None:
        self._machine = machine
        self._study, self._counting = study, CountingLine(trials)
        timed = [trial for trial in trials if trial.role.timed]
        self._settings = Settings.of(study, timed)
        self._blocks = study.blocks
        self._of = len({trial.round for trial in timed})
        self._results = list(earlier)
        self._done: set[int] = set()
        self._begun: float | None = None
        self._here = 0
        """Rounds that ended in this run."""
        self._arms: list[Trial] = []
        self.place = "starting the testbed"
        self.steps = steps_so_far(self._results, self._settings)
        self.table = table_lines(self.steps)
        self.line = ""
        """Of the round that has ended."""

    @property
    def text(self) -> str:
        return "\n".join([*self.table, self.place])

    def note(self, event: Event) -> None:
        if is_of_counting(event, self._study):
            self._counting.note(event)
            self.place, self.line = self._counting.text, self._counting.finished
            return
        match event:
            case ExecutionStarted(execution, duration_s):
                self.place = f"execution {execution + 1}: processes started in {duration_s:.1f} s"
            case TrialStarted(trial):
                if self._begun is None:
                    self._begun = time.monotonic()
                    self._done = set(range(trial.round))
                self._arms.append(trial)
                self.place = self._place()
            case RoundFinished(outcomes):
                self._here += 1
                self._done.add(outcomes[0].trial.round)
                ended = [
                    found
                    for each in outcomes
                    if each.trial.role.timed and (found := measured(each, self._machine))
                ]
                self._results += ended
                self.steps = steps_so_far(self._results, self._settings)
                self.table = table_lines(self.steps)
                cells = {outcome.trial.cell for outcome in outcomes}
                alone = outcomes[0].trial.role is Role.ALONE  # of no step
                told = [step for step in self.steps if cells.intersection(step.cells) and not alone]
                busy = next((each.pods_busy for each in ended if each.pods_busy is not None), None)
                self.line = " · ".join(filter(None, [self._place(), busy_words(busy), line_of(told)]))
                self._arms = []

    def _place(self) -> str:
        first, count = self._arms[0], len(self._arms)
        again = " again" if first.attempt else ""
        arms = plural(count, "arm")
        if first.role is Role.ALONE:
            arms = f"{first.cell.mesh} {first.cell.posture.name} {first.cell.protocol} alone"
        if first.role is Role.PROFILE:
            return f"profiled{again}: {first.cell.mesh} {first.cell.posture.name} {first.cell.protocol}"
        place = f"block {first.block + 1}/{self._blocks} · round {first.round + 1}/{self._of}{again}, {arms}"
        missing = self._of - len(self._done)
        if self._begun is None or not self._here or not missing:
            return place
        left_s = (time.monotonic() - self._begun) / self._here * missing
        return f"{place} · {format_duration(max(1, round(left_s)) * 1e9)} left"


@contextmanager
def _line(console: Console, line: CountingLine | _BothLines) -> Iterator[Observer]:
    """Rewritten in place on a terminal; without one printed when `finished` says something new."""
    if not console.is_terminal:
        yield lambda event: _print_finished(console, line, event)
        return
    with Live(_fitting(line.text), console=console, refresh_per_second=5, transient=True) as live:

        def observe(event: Event) -> None:
            line.note(event)
            if trouble := trouble_of(event):
                live.console.print(trouble, markup=False, soft_wrap=True)
            live.update(_fitting(line.text))

        yield observe


def _fitting(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _print_finished(console: Console, line: CountingLine | _BothLines, event: Event) -> None:
    before = line.finished
    line.note(event)
    if trouble := trouble_of(event):
        console.print(trouble, markup=False, soft_wrap=True)
    if line.finished != before:
        console.print(line.finished, markup=False, soft_wrap=True)


def trouble_of(event: Event) -> str:
    """What must be said at once, in one line; empty for a trial that went well."""
    if not isinstance(event, TrialFinished):
        return ""
    if violates(event.outcome) and event.outcome.measurement is not None:
        broken = next(each for each in event.outcome.measurement.checks if not each.passed)
        return f"{event.trial.trial_id} {event.trial.cell.name}: violated: {broken.name}: {broken.observed}"
    if event.outcome.status is TrialStatus.OK:
        return ""
    again = " (tried again at the end of its block)" if event.outcome.status is TrialStatus.FAILED else ""
    again = "" if event.trial.attempt else again
    first_line = event.outcome.failure.splitlines()[0] if event.outcome.failure else "no reason recorded"
    return f"{event.trial.trial_id} {event.trial.cell.name}: {event.outcome.status}{again}: {first_line}"


class _BothLines:
    """Of the trials apart, then of those that count."""

    def __init__(self, study: Study, trials: Sequence[Trial]) -> None:
        self._study, self._timed, self._counting = study, ProgressLine(study.blocks), CountingLine(trials)
        self.text, self.finished = self._timed.text, ""

    def note(self, event: Event) -> None:
        line = self._counting if is_of_counting(event, self._study) else self._timed
        line.note(event)
        self.text, self.finished = line.text, line.finished


class ProgressLine:
    """Block, trial, time left, live P50 and cell, from the runner's events; the cell may fall off the end."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._begun: float | None = None
        self._first = 0
        self._cell = ""
        self.block = -1
        self.place = "starting the testbed"
        """Block, trial, time left."""
        self.text = self.place
        self.finished = ""
        """The place at which the last block began."""

    def note(self, event: Event) -> None:
        match event:
            case ExecutionStarted(execution, duration_s):
                self.text = f"execution {execution + 1}: processes started in {duration_s:.1f} s"
            case TrialStarted(trial, number, total):
                if self._begun is None:
                    self._begun, self._first = time.monotonic(), number
                self.place = self._place(trial, number, total)
                if trial.block != self.block:
                    self.finished = self.place
                self.block = trial.block
                self._cell = f"{trial.cell.mesh} {trial.cell.posture.name} {trial.cell.protocol}"
                self.text = f"{self.place} · {self._cell}"
            case TrialLive(_, live) if live.p50_us is not None:
                self.text = f"{self.place} · P50 {live.p50_us:,.0f} us · {self._cell}"
            case TrialLive() | TrialFinished() | RoundFinished():
                pass

    def _place(self, trial: Trial, number: int, total: int) -> str:
        done = number - self._first
        left = ""
        if self._begun is not None and done:
            left_s = (time.monotonic() - self._begun) / done * (total - number + 1)
            left = f" · {format_duration(max(1, round(left_s)) * 1e9)} left"
        place = "profiling" if trial.role is Role.PROFILE else f"block {trial.block + 1}/{self._blocks}"
        return f"{place} · trial {number}/{total}{left}"
