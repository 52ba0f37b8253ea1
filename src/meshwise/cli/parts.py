"""The parts of a study, one after another into one archive: what is timed, then what is counted. Each has a
testbed of its own, because counted sidecars run under a counter, and everything waits longer for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from meshwise.archive.store import Archive, TrialStatus
from meshwise.cli.live_metrics import both
from meshwise.cli.progress import earlier, progress
from meshwise.cli.wiring import control_plane_of, meshes_of
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.core.patience import USUAL, Patience
from meshwise.measure.attribution import Machine
from meshwise.report import edge
from meshwise.runner.loop import Observer, RunSummary, run_study, schedule_of
from meshwise.study.model import Role, Study, Trial
from meshwise.telemetry.counting.callgrind import CallgrindCounter
from meshwise.testbed.local import calibration
from meshwise.testbed.local.counting import counter_facts
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import current_world

Statuses = Mapping[str, TrialStatus]


def run_parts(
    question: Study,
    trials: tuple[Trial, ...],
    out: Path,
    resume: bool,
    stopped: Callable[[int], str],
    closing: Callable[[RunSummary, Statuses], str],
    accept: Callable[[Mapping[str, object]], None] = lambda environment: None,
    watch: Callable[[Machine], Observer] | None = None,
) -> int:
    """Inside a world; the exit status. `stopped` (number of stored trials) and `closing`: the last words.
    `accept`: is told the environment before anything runs, and raises where it does not do. `watch`: makes
    who is told of everything after the display was."""
    console = edge.console(stderr=True)
    statuses: Statuses = {}
    slowness = calibration.slowness(question)
    if said := calibration.words(slowness):
        console.print(said, markup=False, soft_wrap=True)
    patience = USUAL.slowed(slowness.factor)
    timed = [trial for trial in trials if trial.role is not Role.COUNT]
    counting = [trial for trial in trials if trial.role is Role.COUNT]
    try:
        with ExitStack() as stack:
            facts: Mapping[str, object] = {}
            parts = []
            istiod = stack.enter_context(control_plane_of(question, patience))
            if timed:
                parts.append((timed, LocalTestbed(question, meshes_of(question, istiod), patience=patience)))
            if counting and (counter := _counter(patience, console, required=not timed)):
                stack.enter_context(counter)
                facts = counter_facts(counter)
                meshes = meshes_of(question, istiod)
                testbed = LocalTestbed(question, meshes, patience=patience, counter=counter)
                parts.append((counting, testbed))
            summaries: list[RunSummary] = []
            archive: Archive | None = None
            try:
                for own, testbed in parts:
                    with testbed:
                        if archive is None:
                            environment = {**testbed.environment(), **facts}
                            accept(environment)
                            archive = Archive.start(out, question, trials, environment, resume=resume)
                            stack.enter_context(archive)
                            before, machine = earlier(question, archive), Machine.of(environment)
                            display = progress(console, question, trials, before, machine)
                            observe = both(stack.enter_context(display), watch(machine) if watch else None)
                        summaries.append(
                            run_study(question, schedule_of(question, own), testbed, archive, observe)
                        )
            finally:
                statuses = archive.statuses() if archive else {}
    except KeyboardInterrupt:
        console.print(stopped(len(statuses)), soft_wrap=True)
        return edge.INTERRUPTED
    console.print(closing(summary := _together(summaries), statuses), soft_wrap=True)
    good = TrialStatus.OK in statuses.values() and not summary.violated
    return ExitStatus.DONE if good else ExitStatus.ANSWER_IS_NO


def _counter(patience: Patience, console: Console, *, required: bool) -> CallgrindCounter | None:
    """None, with a word, where there is none and something else can be done. Raises MW230 to MW232."""
    try:
        return CallgrindCounter(current_world().secrets, patience, os.environ)
    except MeshwiseError as error:
        if required:
            raise
        told = f"nothing is counted: {error.what}; {error.remedy}, then run again with --resume"
        console.print(told, markup=False, soft_wrap=True)
        return None


def _together(summaries: Sequence[RunSummary]) -> RunSummary:
    return RunSummary(
        ok=sum(each.ok for each in summaries),
        failed=sum(each.failed for each in summaries),
        unproven=sum(each.unproven for each in summaries),
        wall_s=sum(each.wall_s for each in summaries),
        measured_s=sum(each.measured_s for each in summaries),
        violated=sum(each.violated for each in summaries),
    )
