"""Carries a study's events out on this machine, while a round is measured: intended, begun, done.

Each arm to which something happens has two threads beside the one who watches: one for failures that go on
for a while, one for all else. So what takes long delays neither the watcher nor another arm nor the end of a
failure, for which it may be waiting. Otherwise one thing is done after the other within an arm: what begins
late because of that says so (`begun_ns`).

Workers are threads of a pool that lives as long as the testbed, because what a thread starts ends with it
(`core.process`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

import pyarrow as pa

from meshwise.archive.event_rows import EventRow, events_table
from meshwise.core.errors import MeshwiseError
from meshwise.core.units import format_duration
from meshwise.findings.flag import EVENT_FAILED, EVENT_LATE
from meshwise.mesh.changes import NOT_DONE, Change, Taken
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import LocalMesh, Placement
from meshwise.study.model import Cell, Timeline
from meshwise.study.timeline import (
    Act,
    ChangePosture,
    Fail,
    Failing,
    Occurrence,
    PushPolicies,
    RenewalFault,
    Restart,
    Restarted,
    Rotate,
    Skew,
    event_name,
    lasts_on,
)

log = logging.getLogger(__name__)

LATE_NS = 100_000_000
"""An event that begins later than this after it was intended is flagged."""
OVER = "the trial had ended"
"""Before it could begin."""
Detail = Mapping[str, object]


@dataclass(frozen=True)
class DisturbedArm:
    """An arm of a round to which events happen."""

    environment: str
    """Its name: `istio/a`."""
    mesh: LocalMesh
    placement: Placement
    cell: Cell
    reach: Reach
    """Of its own: a connection to a proxy's administration is not shared between threads."""
    targets: Mapping[Restarted, Sequence[str]]
    """Names of its processes, in the order of being restarted."""
    restart: Callable[[str, bool], Detail]
    """A process by its name, drained or not; returns when its successor is ready. Raises MW211, MW212."""
    without_controller: Callable[[RenewalFault], AbstractContextManager[None]]
    """The control plane's process has ended within, or stands still; afterwards it answers again."""


@dataclass(frozen=True)
class _Step:
    """An occurrence begins, or what it began is over."""

    at_ns: int
    occurrence: Occurrence
    ends: bool = False

    @property
    def place(self) -> tuple[int, bool, int]:
        """What is over at a moment is over before something begins."""
        return self.at_ns, not self.ends, self.occurrence.number


def changes_of(cell: Cell, occurrences: Sequence[Occurrence]) -> list[Change]:
    """What the mesh will be asked to change, in the order of time."""
    return [change for each in occurrences if (change := _change(cell, each)) is not None]


def _change(cell: Cell, occurrence: Occurrence) -> Change | None:
    match occurrence.act:
        case ChangePosture() if occurrence.back:
            return ChangePosture(cell.posture)
        case Rotate() | PushPolicies() | ChangePosture() as act:
            return act
    return None


class _Worker:
    """Goes through the events of one arm, in the order of time; in two threads, each with its own."""

    def __init__(self, arm: DisturbedArm, occurrences: Sequence[Occurrence], window_ns: int) -> None:
        self.arm = arm
        self._window_ns = window_ns
        self.rows: list[EventRow] = []
        self.failure = ""
        self._steps = {
            goes_on: sorted(
                (step for each in occurrences if lasts_on(each.act) is goes_on for step in _steps(each)),
                key=lambda step: step.place,
            )
            for goes_on in (True, False)
        }
        self._turns = dict.fromkeys(Restarted, 0)
        self._going_on: dict[int, tuple[ExitStack, int]] = {}
        """Failures that are not over, by number, with when each began."""

    def run(self, goes_on: bool, zero_ns: int, stop: threading.Event) -> None:
        """Until all is done, something fails, or `stop` is set. What goes on is over when it returns.
        `goes_on`: the failures that do; else all other events."""
        try:
            for step in self._steps[goes_on]:
                if _slept(zero_ns + step.at_ns, stop) and not self.failure:
                    self._take(step, zero_ns)
                elif not step.ends:
                    self._not_begun(step.occurrence, OVER)
        finally:
            if goes_on:
                self._end_all(zero_ns)

    def _take(self, step: _Step, zero_ns: int) -> None:
        occurrence = step.occurrence
        if step.ends:
            self._end(occurrence, zero_ns)
            return
        if reason := self.arm.mesh.cannot(self.arm.cell, occurrence.act) or self._nobody(occurrence.act):
            self._not_begun(occurrence, reason)
            return
        begun_ns = time.monotonic_ns() - zero_ns
        if begun_ns >= self._window_ns:
            self._not_begun(occurrence, OVER)
            return
        try:
            self._begin(occurrence, begun_ns, zero_ns)
        except MeshwiseError as error:
            self._failed(occurrence, begun_ns, error)

    def _begin(self, occurrence: Occurrence, begun_ns: int, zero_ns: int) -> None:
        arm, act = self.arm, occurrence.act
        if (change := _change(arm.cell, occurrence)) is not None:
            for taken in arm.mesh.carry_out(arm.placement, arm.cell, change, arm.reach, self._restart_proxy):
                self._taken(occurrence, begun_ns, taken, zero_ns)
        match act:
            case Restart():
                name = self._next_target(act)
                detail = arm.restart(name, act.drain)
                self._row(occurrence, name, begun_ns, time.monotonic_ns() - zero_ns, detail)
            case Fail() | Skew():
                stack = ExitStack()
                stack.enter_context(self._failing(act))
                self._going_on[occurrence.number] = (stack, begun_ns)

    def _restart_proxy(self, workload: str) -> None:
        (name,) = [name for name in self.arm.targets[Restarted.PROXY] if name.split("/")[-2] == workload]
        self.arm.restart(name, True)

    def _failing(self, act: Fail | Skew) -> AbstractContextManager[None]:
        if isinstance(act, Fail) and act.what is Failing.CONTROLLER:
            return self.arm.without_controller(act.how)
        return self.arm.mesh.failing(self.arm.placement, act)

    def _end(self, occurrence: Occurrence, zero_ns: int) -> None:
        if occurrence.number not in self._going_on:
            return
        stack, begun_ns = self._going_on.pop(occurrence.number)
        try:
            stack.close()
        except MeshwiseError as error:
            self._failed(occurrence, begun_ns, error)
            return
        self._row(occurrence, self.arm.environment, begun_ns, time.monotonic_ns() - zero_ns, {})

    def _end_all(self, zero_ns: int) -> None:
        """Whatever the trial's end found going on."""
        for step in self._steps[True]:
            if step.ends:
                self._end(step.occurrence, zero_ns)

    def _nobody(self, act: Act) -> str:
        """Why there is no process that could be restarted, or fail; empty if there is one."""
        wanted = None
        if isinstance(act, Restart):
            wanted = act.what
        elif isinstance(act, Fail) and act.what is Failing.CONTROLLER:
            wanted = Restarted.CONTROLLER
        if wanted is None or self._candidates(wanted, act.workload if isinstance(act, Restart) else ""):
            return ""
        return f"no process here is a {wanted}"

    def _candidates(self, what: Restarted, workload: str) -> Sequence[str]:
        ending = f"/{workload}/{what}" if workload else ""
        return [name for name in self.arm.targets[what] if name.endswith(ending)]

    def _next_target(self, act: Restart) -> str:
        names = self._candidates(act.what, act.workload)
        if act.workload:
            return names[0]
        self._turns[act.what] += 1
        return names[(self._turns[act.what] - 1) % len(names)]

    # --- what is told ------------------------------------------------------------------------------

    def _taken(self, occurrence: Occurrence, begun_ns: int, taken: Taken, zero_ns: int) -> None:
        done_ns = None if taken.done_ns is None else taken.done_ns - zero_ns
        target = f"{self.arm.environment}/{taken.workload}/proxy"
        self._row(occurrence, target, begun_ns, done_ns, taken.detail)

    def _failed(self, occurrence: Occurrence, begun_ns: int, error: MeshwiseError) -> None:
        """The trial ends: what comes after would not be what the study says."""
        at = format_duration(occurrence.intended_ns)
        self.failure = f"event `{event_name(occurrence.act)}` at {at} failed: {error.what}"
        log.warning("%s: %s", self.arm.environment, self.failure)
        self._row(occurrence, self.arm.environment, begun_ns, None, {NOT_DONE: error.what})

    def _not_begun(self, occurrence: Occurrence, reason: str) -> None:
        self._row(occurrence, self.arm.environment, None, None, {NOT_DONE: reason})

    def _row(
        self,
        occurrence: Occurrence,
        target: str,
        begun_ns: int | None,
        done_ns: int | None,
        detail: Detail,
    ) -> None:
        self.rows.append(
            EventRow(
                event=event_name(occurrence.act),
                target=target,
                entry=occurrence.entry,
                occurrence=occurrence.number,
                intended_ns=occurrence.intended_ns,
                begun_ns=begun_ns,
                done_ns=done_ns,
                detail={**_said_of(occurrence), **detail},
            )
        )


@dataclass
class Happenings:
    """All that happens to the arms of one round. `begin`, once, then `end`."""

    arms: Sequence[DisturbedArm]
    timeline: Timeline
    window_ns: int
    hands: Executor
    """At least two threads for each arm; they live as long as what they start."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _workers: dict[str, _Worker] = field(default_factory=dict)
    _running: list[Future[None]] = field(default_factory=list)

    def foresee(self) -> None:
        """Before anything is measured: what can be made ready is."""
        occurrences = self.timeline.occurrences(self.window_ns)
        for arm in self.arms:
            possible = [each for each in occurrences if not arm.mesh.cannot(arm.cell, each.act)]
            arm.mesh.foresee(arm.placement, arm.cell, changes_of(arm.cell, possible))

    def begin(self, zero_ns: int, environments: Collection[str]) -> None:
        """To the arms of these environments: others are not measured."""
        occurrences = self.timeline.occurrences(self.window_ns)
        self._workers = {
            arm.environment: _Worker(arm, occurrences, self.window_ns)
            for arm in self.arms
            if arm.environment in environments
        }
        self._running = [
            self.hands.submit(worker.run, goes_on, zero_ns, self._stop)
            for worker in self._workers.values()
            for goes_on in (True, False)
        ]

    def failure_of(self, environment: str) -> str:
        """Why the arm's trial cannot go on; empty if it can. Raises what a worker raised that is no mesh's
        fault."""
        for future in self._running:
            if future.done():
                future.result()
        worker = self._workers.get(environment)
        return worker.failure if worker else ""

    def end(self) -> None:
        """Returns when nothing goes on any more. Raises what a worker raised that is no mesh's fault."""
        self._stop.set()
        for future in self._running:
            future.result()

    def events_of(self, environment: str) -> pa.Table | None:
        """After the end. None: nothing was meant to happen to this arm."""
        worker = self._workers.get(environment)
        return worker and events_table(sorted(worker.rows, key=lambda row: (row.occurrence, row.target)))

    def flags_of(self, environment: str) -> tuple[str, ...]:
        worker = self._workers.get(environment)
        if worker is None:
            return ()
        late = {
            row.occurrence
            for row in worker.rows
            if row.begun_ns is not None and row.begun_ns > row.intended_ns + LATE_NS
        }
        found = [EVENT_LATE(count=len(late), most_ms=LATE_NS // 10**6)] if late else []
        found += [EVENT_FAILED(words=worker.failure)] if worker.failure else []
        return tuple(map(str, found))


def _steps(occurrence: Occurrence) -> tuple[_Step, ...]:
    begins = _Step(occurrence.intended_ns, occurrence)
    if isinstance(occurrence.act, Fail | Skew):
        over_ns = occurrence.intended_ns + occurrence.act.lasts_ns
        return begins, _Step(over_ns, occurrence, ends=True)
    return (begins,)


def _slept(moment_ns: int, stop: threading.Event) -> bool:
    """False when it was told to stop before."""
    while (left_ns := moment_ns - time.monotonic_ns()) > 0:
        if stop.wait(left_ns / 1e9):
            return False
    return not stop.is_set()


def _said_of(occurrence: Occurrence) -> Detail:
    """What the study says of it, beside its name."""
    match occurrence.act:
        case Rotate(spread_ns=spread_ns, overlap=overlap):
            return {"spread_ns": spread_ns} | ({} if overlap else {"fault": "without overlap"})
        case PushPolicies(count=count, relevant=relevant):
            return {"count": count, "relevant": relevant}
        case ChangePosture(posture=posture):
            return {"named": posture.name, "back": occurrence.back}
        case Fail(how=how, lasts_ns=lasts_ns):
            return {"how": str(how), "lasts_ns": lasts_ns}
        case Skew(by_ns=by_ns, lasts_ns=lasts_ns):
            return {"by_ns": by_ns, "lasts_ns": lasts_ns}
        case Restart(drain=drain):
            return {"drain": drain}
