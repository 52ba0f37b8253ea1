"""The seam `Application`: what is under load in every environment of a study.

A testbed owns pods, proxies and the processes that an application names; an application says which these are,
begins each trial as the one before, gives the clients what they ask, and judges what came of it. Conformance
suite: `tests/support/application_conformance.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import pyarrow as pa

from meshwise.core.process import OwnedProcess
from meshwise.load.spec import LoadSpec
from meshwise.mesh.seam import Capture, ProcessPlan
from meshwise.study.model import Cell, Trial
from meshwise.testbed.layout import Environment
from meshwise.testbed.seam import Measurement


@dataclass(frozen=True)
class ApplicationEnvironment:
    """One environment in one execution, as an application meets it."""

    environment: Environment
    tell: Callable[[str, int, str], None]
    """`tell(workload, port, path)`: POST to a port of the pod's loopback. Raises MW921 when that fails."""
    network_fd: Callable[[str], int | None]
    """By workload: the network of its pod, for what the application starts itself; None: our own."""
    files: Path
    """What its processes read at their start; private, and its own."""
    logs: Path


Send = Callable[[LoadSpec, Path], pa.Table]
"""Runs one more load to its end, from where the mesh's client is, with its files in that (new) directory; its
requests, fewer or none if it did not get through."""
Label = Callable[[str, pa.Table], pa.Table]
"""Gives further columns to what a client recorded, in the order of its requests."""


def _as_it_is(measurement: Measurement, _send: Send) -> Measurement:
    return measurement


@dataclass(frozen=True)
class TrialLoad:
    """What the clients of one trial ask, and what is made of their answers."""

    clients: Mapping[str, LoadSpec]
    label: Label | None = None
    judge: Callable[[Measurement, Send], Measurement] = _as_it_is
    """After the measured window, on the processes of the trial; not for one that failed before it."""


class Application(Protocol):
    """A context manager: when it is left, nothing remains. Conformance suite:
    `tests/support/application_conformance.py`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def describe(self) -> Mapping[str, object]:
        """What `environment.json` says of it, beside the testbed's own keys: builds of foreign programs."""

    def capture(self, rules: Capture, workload: str) -> Capture:
        """The rules of a workload's pod: its mesh's, with what the application wants to be otherwise."""

    def start(self, place: ApplicationEnvironment, draws: str) -> Sequence[ProcessPlan]:
        """Once per environment and execution: start what its services need, return when that is ready, and
        say which services are to be started. `draws` seeds what they draw: the same in every environment."""

    def beside(self, environment: Environment) -> Sequence[OwnedProcess]:
        """What it has started itself there, all of which must live: `POD/ROLE` is their name."""

    def stop(self) -> None:
        """After the services of all environments: end what `start` started."""

    def rest(self, place: ApplicationEnvironment) -> None:
        """Before a change of posture: its services let go of every connection. Raises MeshwiseError."""

    def again(self, place: ApplicationEnvironment, cell: Cell, workload: str) -> None:
        """Within a trial: the service of this workload was started anew, and is to go on."""

    def renew(self, place: ApplicationEnvironment, cell: Cell) -> None:
        """Before a trial: as if nothing had run before. Raises MeshwiseError."""

    def ask(
        self, place: ApplicationEnvironment, trial: Trial, clients: Mapping[str, LoadSpec], files: Path
    ) -> TrialLoad:
        """What the clients ask: requests, never when. `clients`, the mesh's own first, have the load of the
        cell; `files` (a new directory) takes what the instruments read."""
