"""The counter `perf`: the CPU's own counters, where the kernel gives them. A process runs as it always does.

The same counters are read in timed trials (`PmuSampler`), where they cost nothing that could be seen.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from meshwise.core import messages
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.telemetry.counting import perf_events
from meshwise.telemetry.counting.perf_events import (
    CYCLES,
    INSTRUCTIONS,
    Counted,
    EventKind,
    OpenEvent,
    ProcessEvents,
    open_event,
)
from meshwise.telemetry.counting.seam import Count
from meshwise.telemetry.counting.troubles import require_running
from meshwise.telemetry.seam import Moment, Sample

KINDS = (INSTRUCTIONS, CYCLES)


class PerfCounter:
    def __init__(self, kinds: Sequence[EventKind] = KINDS, opening: OpenEvent = open_event) -> None:
        """`kinds`: what stands for instructions, and for cycles; others only in tests, on machines that have
        no performance counter. Raises MW237."""
        if reason := perf_events.missing(kinds[0], opening):
            raise messages.NO_PMU.error(name="a process", reason=reason)
        self._kinds = tuple(kinds)
        self._opening = opening

    @property
    def name(self) -> str:
        return "perf"

    @property
    def slowness(self) -> float:
        return 1.0

    def start(self, plan: LaunchPlan, directory: Path, together: str = "") -> LaunchPlan:
        return plan

    def attach(self, process: OwnedProcess, directory: Path) -> PerfProcess:
        return PerfProcess(process, self._kinds, self._opening)

    def describe(self) -> Mapping[str, str]:
        return {
            "tool": "perf_event_open",
            "version": platform.release(),
            "counts": f"{', '.join(kind.name for kind in self._kinds)} in user space of all threads",
            "cpu": _cpu(),
        }


class PerfProcess:
    """Owns the descriptors of the events of one process."""

    def __init__(self, process: OwnedProcess, kinds: Sequence[EventKind], opening: OpenEvent) -> None:
        self._process = process
        require_running(process, "perf")
        try:
            self._events = ProcessEvents(process.pid, kinds, opening)
        except OSError as error:
            require_running(process, "perf")
            raise messages.NO_PMU.error(name=process.name, reason=error.strerror) from error
        self._begun: Sequence[Counted] | None = None

    def begin(self) -> None:
        require_running(self._process, "perf")
        self._begun = self._events.read()

    def end(self) -> Count:
        if self._begun is None:
            raise ValueError("a window ends that has not begun")
        read = self._events.read()
        require_running(self._process, "perf")
        if any(each.shared for each in read):
            raise messages.NOTHING_COUNTED.error(
                counter="perf", name=self._process.name, reason="the counter was someone else's for a time"
            )
        done = [later.value - earlier.value for later, earlier in zip(read, self._begun, strict=True)]
        self._begun = None
        return Count(done[0], done[1] if len(done) > 1 else None)

    def pause(self) -> None:
        """Counting slows nothing down."""

    def close(self) -> None:
        self._events.close()


class PmuSampler:
    """What processes have executed since it was made: `instructions_total` and `cycles_total` of each, in
    user space. An exact sampler (`telemetry.record`) and a context manager."""

    def __init__(
        self,
        processes: Mapping[str, int],
        kinds: Sequence[EventKind] = KINDS,
        opening: OpenEvent = open_event,
    ) -> None:
        """`processes`: source -> pid. Where this machine has no counter, and of a process that has ended,
        there is nothing to read."""
        self._metrics = [f"{kind.name}_total" for kind in kinds]
        self._events: dict[str, ProcessEvents] = {}
        with ExitStack() as stack:
            if not perf_events.missing(kinds[0], opening):
                for source, pid in processes.items():
                    try:
                        self._events[source] = stack.enter_context(ProcessEvents(pid, kinds, opening))
                    except ProcessLookupError:
                        continue
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def counts(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._events)

    @property
    def name(self) -> str:
        return "pmu"

    def sample(self, moment: Moment) -> Sequence[Sample]:
        """A value of a counter that was someone else's for a time is left out."""
        samples = []
        for source, events in self._events.items():
            read, now_ns = events.read(), time.monotonic_ns()
            samples += [
                Sample(now_ns, source, metric, "", float(each.value))
                for metric, each in zip(self._metrics, read, strict=True)
                if not each.shared
            ]
        return samples


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine
