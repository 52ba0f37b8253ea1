"""`meshwise run STUDY.yaml --out DIR`: the study, in a world of its own that dies with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from meshwise.archive.store import Archive, TrialStatus
from meshwise.cli.wiring import meshes_of, not_applicable
from meshwise.core.errors import ExitStatus
from meshwise.core.units import format_duration
from meshwise.runner import (
    Event,
    ExecutionStarted,
    Observer,
    RunSummary,
    TrialFinished,
    TrialLive,
    TrialStarted,
    run_study,
)
from meshwise.study.design import design
from meshwise.study.file import load_study
from meshwise.study.model import Study, Trial
from meshwise.testbed.local.checks import preflight
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world


def run(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY.yaml")],
    out: Annotated[
        Path, typer.Option("--out", help="Directory of the archive; made if absent.", metavar="DIR")
    ],
    resume: Annotated[bool, typer.Option("--resume", help="Continue at the first missing trial.")] = False,
) -> None:
    """Run a study on real proxies and store every trial.

    Needs root or an unprivileged user namespace (`meshwise doctor` tells). Ctrl-C ends it after clean-up
    and keeps what is complete; `--resume` continues there.

    Example: meshwise run studies/quickstart.yaml --out my-study
    """
    question = load_study(study, not_applicable)
    trials = design(question)
    preflight(question)
    raise typer.Exit(enter_world(lambda: _run(study, question, trials, out, resume), keep=(out.absolute(),)))


def _run(study: Path, question: Study, trials: tuple[Trial, ...], out: Path, resume: bool) -> int:
    console = Console(stderr=True, highlight=False)
    with (
        LocalTestbed(question, meshes_of(question)) as testbed,
        Archive.start(out, question, trials, testbed.environment(), resume=resume) as archive,
    ):
        try:
            with progress(console, question) as observe:
                summary = run_study(question, trials, testbed, archive, observe)
        except KeyboardInterrupt:
            console.print(
                f"stopped; {len(archive.statuses())} of {len(trials)} trials are kept in {out}\n"
                f"hint: go on with `meshwise run {study} --out {out} --resume`"
            )
            return 130
    console.print(closing_line(summary, out))
    return ExitStatus.DONE if summary.ok else ExitStatus.ANSWER_IS_NO


def closing_line(summary: RunSummary, out: Path) -> str:
    total = summary.ok + summary.failed + summary.unproven
    share = summary.measured_s / summary.wall_s if summary.wall_s else 0.0
    troubles = [
        f"{count} {word}"
        for count, word in ((summary.failed, "failed"), (summary.unproven, "unproven"))
        if count
    ]
    return (
        f"{total} trials in {format_duration(summary.wall_s * 1e9)}"
        f" ({share:.0%} of it in warm-up or measurement)"
        + (f"; {', '.join(troubles)}" if troubles else "")
        + f"; archive in {out}\nnext: meshwise analyze {out} && meshwise report {out}"
    )


@contextmanager
def progress(console: Console, study: Study) -> Iterator[Observer]:
    """One line on a terminal, rewritten in place; without a terminal one line per block."""
    line = ProgressLine(study.blocks)
    if not console.is_terminal:
        yield lambda event: _print_block(console, line, event)
        return
    with Live(console=console, refresh_per_second=5, transient=True) as live:

        def observe(event: Event) -> None:
            line.note(event)
            if trouble := trouble_of(event):
                live.console.print(trouble)
            live.update(Text(line.text, no_wrap=True, overflow="ellipsis"))

        yield observe


def _print_block(console: Console, line: ProgressLine, event: Event) -> None:
    block = line.block
    line.note(event)
    if trouble := trouble_of(event):
        console.print(trouble)
    if line.block != block:
        console.print(line.text, soft_wrap=True)


def trouble_of(event: Event) -> str:
    """What must be said at once, in one line; empty for a trial that went well."""
    if not isinstance(event, TrialFinished) or event.outcome.status is TrialStatus.OK:
        return ""
    again = " (tried again at the end of its block)" if event.outcome.status is TrialStatus.FAILED else ""
    again = "" if event.trial.attempt else again
    first_line = event.outcome.failure.splitlines()[0] if event.outcome.failure else "no reason recorded"
    return f"{event.trial.trial_id} {event.trial.cell.name}: {event.outcome.status}{again}: {first_line}"


class ProgressLine:
    """Block, trial, cell, live P50 and time left, from the runner's events."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._begun: float | None = None
        self._first = 0
        self._finished = 0
        self.block = -1
        self.text = "starting the testbed"

    def note(self, event: Event) -> None:
        match event:
            case ExecutionStarted(execution, duration_s):
                self.text = f"execution {execution + 1}: processes started in {duration_s:.1f} s"
            case TrialStarted(trial, number, total):
                if self._begun is None:
                    self._begun, self._first = time.monotonic(), number
                self.block = trial.block
                self.text = self._line(trial, number, total)
            case TrialLive(trial, live):
                self.text = self.text.rsplit(" · p50", 1)[0] + (
                    f" · p50 {live.p50_us:.0f} us" if live.p50_us is not None else ""
                )
            case TrialFinished(_, _, number, _):
                self._finished = number

    def _line(self, trial: Trial, number: int, total: int) -> str:
        cell = trial.cell
        done = number - self._first
        left = ""
        if self._begun is not None and done:
            left_ns = (time.monotonic() - self._begun) / done * (total - number + 1) * 1e9
            left = f" · {format_duration(left_ns)} left"
        return (
            f"block {trial.block + 1}/{self._blocks} · trial {number}/{total}{left}"
            f" · {cell.mesh} {cell.posture.name} {cell.protocol}"
        )
