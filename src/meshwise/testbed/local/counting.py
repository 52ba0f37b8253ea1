"""Counting on this machine: sidecars under a counter, and rounds of counting trials.

Each arm of a round has a thread of its own, which asks and waits; the work is that of the sidecars. No thread
starts a process. A window begins and ends with no request open, and with a rest before and after it, so that
what a proxy does when its answer is sent is in the window of that answer.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from meshwise.archive.schema import TELEMETRY
from meshwise.core import linux
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.core.modes import PRIVATE_DIRECTORY, make_directory
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.findings.flag import UNCOUNTED
from meshwise.load.bounded import Answered, BoundedClient, answered_table
from meshwise.load.spec import LoadSpec
from meshwise.load.wire.seam import WireError
from meshwise.mesh.exchange import SessionTicket, ask_once
from meshwise.mesh.expectations import CallOutcome
from meshwise.mesh.probe import Entrance
from meshwise.study.counting import PlannedWindow, WindowKind
from meshwise.study.design.counting import planned_windows
from meshwise.study.design.needs import OWN_FILES
from meshwise.study.model import Study, Trial
from meshwise.study.topology import CLIENT
from meshwise.telemetry.counting.seam import ARITHMETIC, CALIBRATION, Count, CountedProcess, Counter
from meshwise.testbed.counting import (
    CYCLES,
    INSTRUCTIONS,
    SYSTEM_CALLS,
    CountedValue,
    CountedWindow,
    counts_table,
    functions_table,
)
from meshwise.testbed.layout import Environment
from meshwise.testbed.local.pod import Pod
from meshwise.testbed.local.processes import Start, check_alive
from meshwise.testbed.seam import LiveProgress, Measurement, Observe

COUNTED_WORKERS = 1
"""Threads of a counted proxy take turns, so more than one would only add what it costs to hand over."""
COUNTED_ROLE = "proxy"
REST_S = 0.1
"""Before and after a window, in which proxies come to rest: twelve requests' time under callgrind."""
BETWEEN_S = 0.01
"""After an answer, where requests come one at a time: what sidecars still have to do after it is done then,
and each request meets sidecars that are idle."""
_LOOK_S = 0.2


@dataclass(frozen=True)
class EntranceWay:
    """The sidecar of the entry, as a client without a sidecar calls it."""

    entrance: Entrance
    dial: Callable[[], socket.socket]


@dataclass(frozen=True)
class Surroundings:
    """Where a counting trial takes place, as its testbed knows it."""

    environment: Environment
    entrance: Entrance
    pods: Mapping[str, Pod]
    spec: LoadSpec
    """Of the client inside the mesh; with the time-out of an ordinary run."""
    processes: Sequence[OwnedProcess]
    """That must live."""


@dataclass(frozen=True)
class CountingArm:
    """One trial of a round."""

    trial: Trial
    windows: Sequence[PlannedWindow]
    spec: LoadSpec
    dial: Callable[[], socket.socket]
    door: EntranceWay
    processes: Sequence[OwnedProcess]
    """That must live."""
    counted: Mapping[str, CountedProcess]
    """By source."""


def counter_facts(counter: Counter) -> Mapping[str, object]:
    """For `environment.json`: what must not change within a study, and what was measured."""
    facts = dict(counter.describe())
    measured = {ARITHMETIC: float(facts.pop(ARITHMETIC))} if ARITHMETIC in facts else {}
    return {"counter": {"name": counter.name, **facts}, **({CALIBRATION: measured} if measured else {})}


class CountedSidecars:
    """The counted processes of an execution. `name` stands in every row."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._directories: dict[str, Path] = {}
        self._attached: dict[str, CountedProcess] = {}

    @property
    def name(self) -> str:
        return self._counter.name

    def describe(self) -> Mapping[str, object]:
        return counter_facts(self._counter)

    def start(self, due: Start, home: Path) -> Callable[[LaunchPlan], LaunchPlan] | None:
        """How this process is to be started so that it is counted; None for one that is not."""
        if due.plan.role != COUNTED_ROLE:
            return None
        name = f"{due.environment.pod_name(due.plan.pod)}/{due.plan.role}"
        directory = home / name
        make_directory(directory, PRIVATE_DIRECTORY)
        self._directories[name] = directory
        return lambda plan: self._counter.start(plan, directory, due.environment.name)

    def attach(self, started: Iterable[OwnedProcess]) -> None:
        """To those of this start that are counted."""
        for process in started:
            if process.name in self._directories:
                if former := self._attached.pop(process.name, None):
                    former.close()
                self._attached[process.name] = self._counter.attach(process, self._directories[process.name])

    def let_go(self) -> None:
        while self._attached:
            self._attached.popitem()[1].close()

    def count(
        self, study: Study, trials: Sequence[Trial], around: Sequence[Surroundings], observe: Observe
    ) -> Mapping[str, Measurement]:
        """The trials of one round, at the same time. Their connections are this process's own."""
        linux.allow_open_files(OWN_FILES + sum(trial.cell.connections for trial in trials))
        arms = [self._arm(study, *pair) for pair in zip(trials, around, strict=True)]
        return count_round(arms, self.name, observe)

    def _arm(self, study: Study, trial: Trial, around: Surroundings) -> CountingArm:
        assert study.counting is not None, "a counting trial is of a study that counts"
        environment, entrance, spec = around.environment, around.entrance, around.spec
        used = environment.part(trial.cell.topology).pod_names()
        client = around.pods[environment.pod_name(CLIENT)]
        outside = around.pods[environment.pod_name(entrance.pod)]
        return CountingArm(
            trial,
            planned_windows(study.counting, trial.cell),
            replace(spec, timeout_ns=round(spec.timeout_ns * environment.patience.slowness)),
            partial(client.dial, spec.address, spec.port),
            EntranceWay(entrance, partial(outside.dial, entrance.address, entrance.port)),
            around.processes,
            {name: process for name, process in self._attached.items() if name.rpartition("/")[0] in used},
        )


@dataclass
class _Progress:
    """What the threads of a round tell the one that waits for them."""

    stop: threading.Event = field(default_factory=threading.Event)
    answered: int = 0
    ended: queue.SimpleQueue[tuple[str, Measurement | BaseException]] = field(
        default_factory=queue.SimpleQueue
    )


class _Stopped(Exception):
    """The round was given up."""


def count_round(arms: Sequence[CountingArm], counter: str, observe: Observe) -> Mapping[str, Measurement]:
    """All windows of all arms; by trial_id. An arm whose process ends fails, with why; raises what is no
    fault of a proxy."""
    progress, begun = _Progress(), time.monotonic()
    for arm in arms:
        # Left alone when this is interrupted: it ends with the processes that it talks to.
        threading.Thread(target=_run, args=(arm, counter, progress), daemon=True).start()
    found: dict[str, Measurement] = {}
    try:
        while len(found) < len(arms):
            try:
                trial_id, result = progress.ended.get(timeout=_LOOK_S)
            except queue.Empty:
                observe(LiveProgress(time.monotonic() - begun, progress.answered, None))
                continue
            if isinstance(result, BaseException):
                raise result
            found[trial_id] = result
    finally:
        progress.stop.set()
    return found


def _run(arm: CountingArm, counter: str, progress: _Progress) -> None:
    try:
        result: Measurement | BaseException = _ArmCount(arm, counter, progress).run()
    except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
        result = error
    progress.ended.put((arm.trial.trial_id, result))


class _ArmCount:
    """One arm, window by window."""

    def __init__(self, arm: CountingArm, counter: str, progress: _Progress) -> None:
        self._arm, self._counter, self._progress = arm, counter, progress
        self._windows: list[CountedWindow] = []
        self._answered: list[Answered] = []
        self._uncounted: list[str] = []
        self._zero_ns = time.monotonic_ns()
        self._zero_unix_ns = time.time_ns()
        self._ticket: SessionTicket | None = None

    def run(self) -> Measurement:
        failure = ""
        try:
            spec = self._arm.spec
            alone_s = BETWEEN_S if spec.connections * spec.streams == 1 else 0.0
            with BoundedClient(spec, self._arm.dial, self._look, alone_s) as client:
                for number, planned in enumerate(self._arm.windows):
                    self._window(client, number, planned)
            for process in self._arm.counted.values():
                process.pause()
            if not any(window.kind is WindowKind.REQUESTS for window in self._windows):
                failure = f"no window of requests could be counted: {'; '.join(self._uncounted)}"
        except MeshwiseError as error:
            if error.fault is not Fault.PROXY:
                raise
            failure = error.what
        except (OSError, WireError) as error:
            failure = f"the client cannot keep its connections: {error}"
        flags = (str(UNCOUNTED(windows="; ".join(self._uncounted))),) if self._uncounted else ()
        return Measurement(
            requests=answered_table(self._answered, self._zero_ns),
            telemetry=pa.schema([each for each in TELEMETRY.arrow if each.name != "trial_id"]).empty_table(),
            started_unix_ns=self._zero_unix_ns,
            instrument={},
            failure=failure,
            flags=flags,
            counts=counts_table(self._windows, self._counter),
            functions=functions_table(self._windows),
        )

    def _look(self) -> None:
        if self._progress.stop.is_set():
            raise _Stopped
        check_alive(self._arm.processes)

    def _rest(self, seconds: float) -> None:
        """A proxy that ends meanwhile is known at once."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))
            self._look()

    def _window(self, client: BoundedClient, number: int, planned: PlannedWindow) -> None:
        client.open()
        act = self._act(client, planned)
        if act is None:
            return
        self._rest(REST_S)
        for process in self._arm.counted.values():
            process.begin()
        begun_ns = time.monotonic_ns()
        trouble = act()
        self._rest(REST_S)
        duration_ns = time.monotonic_ns() - begun_ns
        counts = {source: process.end() for source, process in self._arm.counted.items()}
        if planned.kind is WindowKind.WARMUP:
            self._zero_ns, self._zero_unix_ns = time.monotonic_ns(), time.time_ns()
        if trouble:
            self._uncounted.append(f"{number} ({planned.kind}: {trouble})")
            return
        counted = {source: list(_values(count)) for source, count in counts.items()}
        self._windows.append(
            CountedWindow(
                number,
                planned.kind,
                planned.requests,
                planned.connections,
                duration_ns,
                counted,
                {source: count.functions for source, count in counts.items() if count.functions},
            )
        )

    def _act(self, client: BoundedClient, planned: PlannedWindow) -> Callable[[], str] | None:
        """What is done in the window, which says in words what went wrong; None where it cannot be."""
        match planned.kind:
            case WindowKind.IDLE:
                asked = [each.duration_ns for each in self._windows if each.kind is WindowKind.REQUESTS]
                seconds = sum(asked) / len(asked) / 1e9 - REST_S if asked else REST_S
                return partial(self._idle, seconds)
            case WindowKind.FRESH | WindowKind.RESUMED:
                resumed = planned.kind is WindowKind.RESUMED
                if self._call(resumed=False) or (resumed and self._call(resumed=True)):
                    return None  # as the mesh has it: there is no such call, or no session is resumed
                return partial(self._handshakes, planned.connections, resumed=resumed)
            case _:
                return partial(self._ask, client, planned.requests)

    def _idle(self, seconds: float) -> str:
        self._rest(seconds)
        return ""

    def _ask(self, client: BoundedClient, requests: int) -> str:
        found = client.ask(requests)
        self._answered += found
        self._progress.answered += len(found)
        failed = [each for each in found if each.error]
        if failed:
            return f"{len(failed)} of {requests} failed, the first: {failed[0].error.label}"
        return "" if len(found) == requests else f"{requests - len(found)} of {requests} could not be sent"

    def _handshakes(self, connections: int, *, resumed: bool) -> str:
        for _ in range(connections):
            if trouble := self._call(resumed=resumed):
                return trouble
            self._look()
        self._progress.answered += connections
        return ""

    def _call(self, *, resumed: bool) -> str:
        """One connection to the entry's sidecar, with one request; what went wrong, in words."""
        door, former = self._arm.door, self._ticket if resumed else None
        entrance = door.entrance
        answer, ticket = ask_once(door.dial, entrance.request, entrance.tls, former)
        self._ticket = ticket or self._ticket
        if answer.seen is not CallOutcome.OK:
            return f"a call of the entry's sidecar: {answer}"
        if resumed and not (answer.handshake and answer.handshake.resumed):
            return "no session was resumed"
        return ""


def _values(count: Count) -> Iterable[CountedValue]:
    yield INSTRUCTIONS, "", count.instructions
    if count.cycles is not None:
        yield CYCLES, "", count.cycles
    for name, made in sorted(count.system_calls.items()):
        yield SYSTEM_CALLS, name, made
