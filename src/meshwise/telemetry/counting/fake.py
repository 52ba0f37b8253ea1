"""A counter without a machine behind it: counts what it is told that a process has done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.telemetry.counting.seam import Count, Function
from meshwise.telemetry.counting.troubles import require_running

Key = TypeVar("Key", str, Function)

Work = Callable[[], Count]
"""What a process has done since it started, by now."""


class FakeCountedProcess:
    """The difference of two readings of `work`."""

    def __init__(self, process: OwnedProcess, work: Work) -> None:
        self._process = process
        self._work = work
        self._begun: Count | None = None

    def begin(self) -> None:
        self._begun = self._read()

    def end(self) -> Count:
        if self._begun is None:
            raise ValueError("a window ends that has not begun")
        begun, self._begun = self._begun, None
        return difference(self._read(), begun)

    def _read(self) -> Count:
        require_running(self._process, "fake")
        return self._work()

    def pause(self) -> None:
        """It slows nothing down."""
        require_running(self._process, "fake")

    def close(self) -> None:
        """Holds nothing."""


class FakeCounter:
    def __init__(self, work: Callable[[str], Count], slowness: float = 1.0) -> None:
        """`work`: what the process of this name (`OwnedProcess.name`) has done since its start, by now."""
        self._work = work
        self._slowness = slowness

    @property
    def name(self) -> str:
        return "fake"

    @property
    def slowness(self) -> float:
        return self._slowness

    def start(self, plan: LaunchPlan, directory: Path, together: str = "") -> LaunchPlan:
        return plan

    def attach(self, process: OwnedProcess, directory: Path) -> FakeCountedProcess:
        return FakeCountedProcess(process, lambda: self._work(process.name))

    def describe(self) -> Mapping[str, str]:
        return {"tool": "fake", "version": "1", "counts": "what it is told", "cpu": "none"}


def difference(later: Count, earlier: Count) -> Count:
    """What was done from one reading to a later one of the same process."""
    return Count(
        later.instructions - earlier.instructions,
        None if later.cycles is None or earlier.cycles is None else later.cycles - earlier.cycles,
        _less(later.system_calls, earlier.system_calls),
        _less(later.functions, earlier.functions),
    )


def _less(later: Mapping[Key, int], earlier: Mapping[Key, int]) -> dict[Key, int]:
    """Without those of which there is none."""
    return {key: left for key, value in later.items() if (left := value - earlier.get(key, 0))}
