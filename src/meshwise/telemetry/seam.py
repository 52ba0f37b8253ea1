"""The seam `Sampler`: something that can be read at a moment and says what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Moment(StrEnum):
    """When in a trial a sampler is read; expensive readings (PSS, whole statistics) skip `DURING`."""

    START = "start"
    DURING = "during"
    END = "end"


@dataclass(frozen=True)
class Sample:
    """One value at one moment; a row of `telemetry/TRIAL.parquet` once `t_ns` is made relative."""

    t_ns: int
    """CLOCK_MONOTONIC at the reading, nanoseconds."""
    source: str
    """Who was read: `istio/a/node-1/proxy` (mesh, process set, workload, role of the process), or `host`."""
    metric: str
    """Unit last: `cpu_ns`, `rss_bytes`, `tls_handshakes_total`."""
    labels: str
    """`key=value` pairs joined by commas, sorted; empty when there are none."""
    value: float


class Sampler(Protocol):
    """Contract: `sample` returns within 50 ms, and for a target that has ended yields what can still
    be read instead of raising. Conformance suite: `tests/support/sampler_conformance.py`."""

    @property
    def name(self) -> str: ...

    def sample(self, moment: Moment) -> Sequence[Sample]: ...
