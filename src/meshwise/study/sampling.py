"""How often a trial's telemetry is read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SamplingKind(StrEnum):
    SLOW = "slow"
    """Everything each `interval_ns`."""
    FAST = "fast"
    """And what costs microseconds to read, CPU clocks, each `fast_ns` as well."""
    ADAPTIVE = "adaptive"
    """The same, but kept only around what the study does to the trial and where something changes."""


@dataclass(frozen=True)
class Sampling:
    kind: SamplingKind = SamplingKind.SLOW
    interval_ns: int = 10**9
    fast_ns: int = 10**7
