"""What a mesh is asked to change within a trial, and how a proxy took it up.

Rules of this file:
- A change is brought as the mesh's own control plane brings it (`LocalMesh.push`), never as between trials:
  what becomes of connections is up to the proxies.
- What is in force is the mesh's to know: changes of one trial add up, and `LocalMesh.reset` forgets them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from meshwise.study.changed import in_posture
from meshwise.study.model import Cell, Posture
from meshwise.study.timeline import ChangePosture, Fail, PushPolicies, Rotate, Skew

Change = Rotate | PushPolicies | ChangePosture
"""What is done once and then holds."""
Disturbance = Fail | Skew
"""What goes on for a while and is over."""

RestartProxy = Callable[[str], None]
"""Ends a workload's proxy as its mesh ends one, and starts it again; returns when it is ready."""

NOT_DONE = "not_done"
"""In `Taken.detail`: why this proxy did not take it up, in the words of whoever refused."""


@dataclass(frozen=True)
class Taken:
    """How one workload's proxy took a change up."""

    workload: str
    done_ns: int | None
    """CLOCK_MONOTONIC; None: it did not, and `detail` says why (`NOT_DONE`)."""
    detail: Mapping[str, object] = field(default_factory=dict)
    """What was seen: serial numbers before and after, versions, connections kept, a proxy's own words."""


@dataclass(frozen=True)
class PolicyPush:
    """Policies that were pushed within a trial, beside those of the posture."""

    act: PushPolicies
    number: int
    """0 or 1 in turn: policies that are pushed replace others."""


@dataclass(frozen=True)
class InForce:
    """What a trial's changes have made of its cell."""

    posture: Posture | None = None
    """None: the cell's own."""
    pushed: PolicyPush | None = None

    def cell(self, own: Cell) -> Cell:
        return own if self.posture in (None, own.posture) else in_posture(own, _given(self.posture))

    def after(self, act: PushPolicies | ChangePosture) -> InForce:
        if isinstance(act, ChangePosture):
            return replace(self, posture=act.posture)
        return replace(self, pushed=PolicyPush(act, 1 - self.pushed.number if self.pushed else 0))


def _given(posture: Posture | None) -> Posture:
    assert posture is not None
    return posture
