"""What one trial produced, as the archive stores it. Frozen values; the seams to the right re-export
`Check`, `Proof` (`mesh.seam`) and `Measurement` (`testbed.seam`), whose words they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from meshwise.study.model import Trial

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Check:
    """One line of a proof: what was tried, what had to happen, what happened."""

    name: str
    expected: str
    observed: str
    passed: bool


@dataclass(frozen=True)
class Proof:
    """Whether the posture that a trial asks for is what the proxies do. Stored with the trial."""

    checks: tuple[Check, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    """`tls_version`, `tls_group`, `tls_cipher`, `client_identity`, `server_identity`, `workers`, ..."""
    duration_ns: int = 0

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


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
    """Empty, or why the trial failed: a proxy, a service or the instrument ended."""
    log_tail: str = ""
    flags: tuple[str, ...] = field(default=())
    checks: tuple[Check, ...] = ()
    """What was judged after the trial: whether the books of the bank agree."""
    events: pa.Table | None = None
    """What was done to it meanwhile, columns as in `archive.schema.EVENTS`; None: nothing was meant to be."""
    counts: pa.Table | None = None
    """Of a counting trial, columns as in `archive.schema.COUNTS`."""
    functions: pa.Table | None = None
    """The same, as in `archive.schema.FUNCTIONS`; None: its counter tells no functions."""
    profiles: pa.Table | None = None
    """Of a profiled trial, columns as in `archive.schema.PROFILES`."""
    spans: pa.Table | None = None
    """Columns as in `archive.schema.SPANS`; None: nothing was traced."""


class TrialStatus(StrEnum):
    OK = "ok"
    FAILED = "failed"
    """It was tried, and a process ended or refused. What was recorded until then is kept."""
    UNPROVEN = "unproven"
    """Its posture did not hold, so it was not measured."""


@dataclass(frozen=True)
class TrialOutcome:
    """A trial with how it ended; one row of `trials.parquet`."""

    trial: Trial
    status: TrialStatus
    proof: Proof
    failure: str = ""
    measurement: Measurement | None = None
    resources: str = ""
    """The posture as the mesh's own resources (YAML)."""
    apply_ns: int = 0
    prove_ns: int = 0
    measure_ns: int = 0
    """Time inside warm-up and measurement."""
    result: str = ""
    """Of a step of a search: `held`, `broken`, `invalid`."""
    reason: str = ""
    """Why it is broken or invalid."""
    state: Mapping[str, str] = field(default_factory=dict)
    """Of a trial that failed or is unproven: what proxies and logs said before the processes ended, as file
    name to text; without secrets."""


@dataclass(frozen=True)
class ProtectionTry:
    """One try of one attempt against one posture; one row of `protection.parquet`."""

    mesh: str
    posture: str
    protocol: str
    attempt: str
    """Its key."""
    execution: int
    number: int
    """Of the try within its execution, from 0."""
    outcome: str
    """An `AttemptOutcome` (`findings.protection`)."""
    evidence: str
    """JSON: `status`, `reason`, `counted`, `wire`, `harm`, as far as there are any."""
    duration_ns: int
