"""The seam `AttackStage`: what an attempt may change meanwhile, where a `Reach` only asks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from meshwise.study.model import Cell

FIXED = "nothing can be changed here while an attempt is made"


class AttackStage(Protocol):
    """Of one set of processes. Conformance suite: `tests/support/stage_conformance.py`."""

    def push(self, cell: Cell, *, guarded: bool = False) -> None:
        """Bring only what differs from what is in force, as the mesh's control plane does; connections become
        what the proxies make of them. `guarded`: with the rule that forbids laid over it (`guard_rule`).
        Raises as `LocalMesh.push`."""

    def without_control_plane(self) -> AbstractContextManager[str]:
        """It has ended within, and runs again afterwards. Yields why that cannot be, or nothing."""
