"""The seam `Testbed`: where trials live. `testbed.local` runs real proxies; `testbed.fake` runs none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self

from meshwise.archive.outcome import Measurement as Measurement
from meshwise.mesh.protection.stage import AttackStage
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import Placement, Proof
from meshwise.study.model import Trial


@dataclass(frozen=True)
class LiveProgress:
    """What can be said while a trial runs."""

    elapsed_s: float
    completed: int
    p50_us: float | None


@dataclass(frozen=True)
class ReachedPods:
    """A trial's set of processes, as somebody meets it who makes calls there."""

    placement: Placement
    reach: Reach
    stage: AttackStage | None = None
    """For what is changed meanwhile; None where nothing can be."""


Observe = Callable[[LiveProgress], None]


class Testbed(Protocol):
    """Owner of every process of a study. A context manager: when it is left, nothing remains. Conformance
    suite: `tests/support/testbed_conformance.py`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def environment(self) -> Mapping[str, object]:
        """For `environment.json`: host, kernel, CPU, proxies, fidelity; `"testbed": "fake"` in a fake."""

    def restart(self, execution: int) -> None:
        """(Re)start every environment's processes with fresh identities; return when all are ready."""

    def apply(self, trial: Trial) -> None:
        """Bring the trial's set of processes into the trial's posture."""

    def prove(self, trial: Trial) -> Proof: ...

    def resources(self, trial: Trial) -> str:
        """The posture's own resources (YAML), for the archive."""

    def state(self, trial: Trial) -> Mapping[str, str]:
        """What proxies and logs say now, after a failure: file name to text, bounded, without secrets. Never
        makes the failure worse: what does not answer is a file that says so."""

    def measure(self, trials: Sequence[Trial], observe: Observe) -> Mapping[str, Measurement]:
        """Warm up and measure the arms of a round at the same time; by trial_id. Raises only when the testbed
        itself is broken, not when a trial fails. `observe` is told of the first arm."""

    def reached(self, trial: Trial) -> AbstractContextManager[ReachedPods]:
        """For calls that are no load: what it holds open is closed when the block is left."""

    def revive(self, trial: Trial, silent: Collection[str] = ()) -> Sequence[str]:
        """Start again whatever of the trial's set of processes has ended, and the proxies of these workloads,
        which do not answer any more; return what was started, each with how it had ended, when it is ready.
        The posture has to be applied again."""
