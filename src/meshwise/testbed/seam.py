"""The seam `Testbed`: where trials live. `testbed.local` runs real proxies; `testbed.fake` runs none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import pyarrow as pa

from meshwise.mesh.seam import Proof
from meshwise.study.model import Trial


@dataclass(frozen=True)
class LiveProgress:
    """What can be said while a trial runs."""

    elapsed_s: float
    completed: int
    p50_us: float | None


Observe = Callable[[LiveProgress], None]


@dataclass(frozen=True)
class Measurement:
    """The raw outcome of one trial; tables as the archive's contract says (`archive.schema`)."""

    requests: pa.Table
    telemetry: pa.Table
    started_unix_ns: int
    """Wall clock at the trial's time 0, the end of its warm-up."""
    instrument: Mapping[str, float | str]
    """The instrument's own report: lateness, CPU, `limited_by`, ..."""
    failure: str = ""
    """Empty, or why the trial failed: a proxy, a service or the instrument ended. Kept with what was recorded."""
    log_tail: str = ""
    flags: tuple[str, ...] = field(default=())


class Testbed(Protocol):
    """Owner of every process of a study. A context manager: leaving it leaves nothing behind."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def environment(self) -> Mapping[str, object]:
        """For `environment.json`: host, kernel, CPU, proxies, fidelity, privileges; `"testbed": "fake"` in a fake."""

    def restart(self, execution: int) -> None:
        """(Re)start every environment's processes with fresh identities; return when all are ready."""

    def apply(self, trial: Trial) -> None:
        """Bring the trial's set of processes into the trial's posture."""

    def prove(self, trial: Trial) -> Proof: ...

    def resources(self, trial: Trial) -> str:
        """The posture's own resources (YAML), for the archive."""

    def measure(self, trial: Trial, observe: Observe) -> Measurement:
        """Warm up and measure. Raises only when the testbed itself is broken, not when a trial fails."""
