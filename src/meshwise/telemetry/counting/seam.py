"""The seams `Counter` and `CountedProcess`: what a process did between two moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from meshwise.core.process import LaunchPlan, OwnedProcess


class Function(NamedTuple):
    """Where instructions were executed."""

    binary: str
    """Path of the program or library; empty where the counter does not know it."""
    name: str
    """Demangled; of a stripped binary not to be believed."""


@dataclass(frozen=True)
class Count:
    """What one process, all its threads together, did between two moments."""

    instructions: int
    """In user space."""
    cycles: int | None = None
    """In user space; None where the counter has none."""
    system_calls: Mapping[str, int] = field(default_factory=dict)
    """By the kernel's name of the call (`epoll_wait`); empty where they are not counted."""
    functions: Mapping[Function, int] = field(default_factory=dict)
    """Instructions in a function itself, without those that it calls; they add up to `instructions`.
    Empty where the counter does not tell functions apart."""


CALIBRATION = "calibration"
"""Of environment.json: what was measured of the machine as a study began."""
ARITHMETIC = "arithmetic_ns_per_instruction"
"""A fact that `Counter.describe` may give: what an instruction of dense arithmetic takes on this machine's
own CPU, if it is counted as this counter counts. Little else takes less."""


class CountedProcess(Protocol):
    """One running process that is counted, in windows one after another.

    Conformance suite: `tests/support/counter_conformance.py`.
    """

    def begin(self) -> None:
        """Start a window. When it returns, everything that the process does counts. Raises MW235 when the
        process has ended, MW234 when it does not answer."""

    def end(self) -> Count:
        """End the window: what the process did since `begin`. Raises as `begin` does, and MW236 when
        nothing at all was counted."""

    def pause(self) -> None:
        """Between windows: until the next one begins the process may be as fast as it can, and then it
        has to warm up again. Raises as `begin` does."""

    def close(self) -> None:
        """Let go of it; the process itself goes on."""


class Counter(Protocol):
    """How processes are started and read so that they are counted.

    A process is started by what `start` returns, by whoever owns it, and read through what `attach` returns.
    Whatever kills us, in a window or not, no process is left stopped. Counts of two counters are never
    compared.
    Conformance suite: `tests/support/counter_conformance.py`.
    """

    @property
    def name(self) -> str:
        """`callgrind`, `perf` or `fake`: stands with every count."""

    @property
    def slowness(self) -> float:
        """How many times longer a counted process takes for anything, for `Patience.slowed`; 1 or more."""

    def start(self, plan: LaunchPlan, directory: Path, together: str = "") -> LaunchPlan:
        """How to start the process so that it can be counted.

        `directory`: an existing one, of this process alone; the counter keeps its files there and gives it
        to the plan's uid. `together`: a name of processes that call one another; a counter may let them run
        one at a time. Raises MW233 for a program that cannot be counted."""

    def attach(self, process: OwnedProcess, directory: Path) -> CountedProcess:
        """After the start; waits until the process can be counted. `directory` as in `start`. Raises MW234 or
        MW235."""

    def describe(self) -> Mapping[str, str]:
        """For the archive: `tool`, `version`, `counts` (what an instruction is), `cpu` (which it runs on)."""
