"""`AttackStage` on this machine: pushes to running proxies, and the end of a control plane that is a
process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.process import OwnedProcess
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import LocalMesh, Placement
from meshwise.study.model import Cell
from meshwise.testbed.local.processes import check_alive

CONTROL_PLANE = "controller"
"""The role of its process, where it is one."""


@dataclass(frozen=True)
class LocalStage:
    """See `meshwise.mesh.protection.stage.AttackStage`."""

    mesh: LocalMesh
    placement: Placement
    reach: Reach
    ended: Callable[[], AbstractContextManager[str]]

    def push(self, cell: Cell, *, guarded: bool = False) -> None:
        """The mesh forgets the rule again at once, so that what is brought next has none."""
        self.mesh.guard(guarded)
        try:
            self.mesh.push(self.placement, cell, self.reach)
        finally:
            self.mesh.guard(False)

    @contextmanager
    def without_control_plane(self) -> Iterator[str]:
        with self.ended() as why:
            yield why
        if not why:
            wait_for_control_plane(self.mesh, self.placement)


def wait_for_control_plane(
    mesh: LocalMesh, placement: Placement, processes: Sequence[OwnedProcess] = ()
) -> None:
    """After its start. Raises MW421 when it does not answer in time, MW503 when one of its processes has
    ended."""
    deadline = time.monotonic() + placement.patience.settle_s
    while True:
        try:
            mesh.delivered(placement)
            return
        except MeshwiseError as error:
            check_alive(processes)
            if error.code != messages.CONTROLLER_SILENT.code or time.monotonic() > deadline:
                raise
        time.sleep(0.02)
