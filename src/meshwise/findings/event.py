"""What stands behind a finding about an event: how often it was done, what failed, where it was looked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class EventFacts:
    occurrences: int
    """In all executions."""
    unfinished: int
    """Of these, not done by every target."""
    failures: int
    """Requests that failed around them."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """The same by kind of failure."""
    windows_ms: tuple[tuple[float, float], ...] = ()
    """Stretches in which more requests are disturbed than usual, from the beginning of the event."""
    found: bool = True
    """Whether they were found; else nothing stands out, and what is counted is a stretch that was fixed
    before."""
    usual_per_window: float | None = None
    """Of the metric, in as much undisturbed time."""
    most: float | None = None
    """Of the metric, around the one occurrence with the most of it; the estimate is the middle of them."""
    named: str = ""
    """Of the last request under an old rule: its trial, its time there, and whose it was."""
