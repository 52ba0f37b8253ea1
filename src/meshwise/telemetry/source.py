"""Who was read: the `source` column of telemetry, and the `target` of events."""

from __future__ import annotations

from typing import NamedTuple

from meshwise.study.model import Trial


class Source(NamedTuple):
    """A process of one arm of an environment; `str` is its place in the archive."""

    environment: str
    """`none`, `istio`, `linkerd`."""
    arm: str
    """The set of processes: `a`, or `b` for the twin."""
    workload: str
    role: str
    """`proxy`, `service`, `store`, `instrument`, `controller`."""

    def __str__(self) -> str:
        return "/".join(self)

    @classmethod
    def read(cls, text: str) -> Source | None:
        """The inverse of `str`; None for what is no process of an arm: the host."""
        environment, _, rest = text.partition("/")
        arm, _, rest = rest.partition("/")
        workload, _, role = rest.rpartition("/")
        return cls(environment, arm, workload, role) if role else None

    def is_of(self, trial: Trial) -> bool:
        return (self.environment, self.arm) == (str(trial.cell.mesh), trial.process_set)
