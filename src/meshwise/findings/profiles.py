"""What profilers saw and what the kernel says of threads, as data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class FrameNode:
    """A frame with all that was seen below it."""

    name: str
    samples: int = 0
    below: dict[str, FrameNode] = field(default_factory=dict)

    @property
    def own(self) -> int:
        """Samples in which it was innermost."""
        return self.samples - sum(each.samples for each in self.below.values())

    def deepest(self) -> int:
        return 1 + max((each.deepest() for each in self.below.values()), default=0)


@dataclass(frozen=True)
class ProcessProfile:
    """One process, as one tool saw it in one trial."""

    trial_id: str
    source: str
    tool: str
    root: FrameNode


@dataclass(frozen=True)
class ThreadUse:
    """Of one thread, between the readings around a trial's window."""

    source: str
    thread: str
    cpu_ns: float
    waited_ns: float
    """Able to run, without a CPU."""
    voluntary: float
    """Context switches because it had to wait for something."""
    involuntary: float
    """Because something else was given its CPU."""
