"""Values that tests of Linkerd share: a placement on paper, cells, every posture that Linkerd can express."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from meshwise.mesh.linkerd import posture
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.resources import parse
from meshwise.mesh.linkerd.snapshot import snapshot
from meshwise.mesh.seam import Placement
from meshwise.study.model import Authorization, Cell, KeyType, MeshName, MtlsMode, Posture, Protocol
from tests.support import mesh_samples

CELL = replace(mesh_samples.CELL, mesh=MeshName.LINKERD, key_type=KeyType.ECDSA_P256)

POSTURES: tuple[Posture, ...] = tuple(
    Posture(mtls, authorization)
    for mtls in MtlsMode
    for authorization in Authorization
    if posture.not_applicable(replace(CELL, posture=Posture(mtls, authorization))) is None
)
"""The ladder and the rest of the factorial, as far as Linkerd can express it."""


def cells() -> list[Cell]:
    """Every posture on every protocol that Linkerd can express."""
    found = [replace(CELL, posture=each, protocol=protocol) for protocol in Protocol for each in POSTURES]
    return [cell for cell in found if posture.not_applicable(cell) is None]


def placement(length: int = 2, directory: Path = Path("/run/meshwise")) -> Placement:
    return replace(mesh_samples.placement(length, directory), mesh=MeshName.LINKERD)


def made(cell: Cell, length: int = 2, version: int = 1, transport: Transport | None = None) -> Any:
    """The snapshot of a cell's own resources."""
    return made_from(posture.resources(cell), length, version, transport)


def made_from(resources: str, length: int = 2, version: int = 1, transport: Transport | None = None) -> Any:
    return snapshot(parse(resources), placement(length), version, transport or Transport())
