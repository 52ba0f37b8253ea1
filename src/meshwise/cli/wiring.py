"""Which meshes there are: the one place where the commands join rooms that do not know each other. And the
option that `plan` and `run` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.linkerd.model import LinkerdModel
from meshwise.mesh.none.mesh import NoneMesh, NoneModel
from meshwise.mesh.seam import LocalMesh, MeshModel
from meshwise.study.model import Cell, Layer, MeshName, Study

LevelOption = Annotated[
    Layer | None, typer.Option("--level", help="Keep only opaque TCP (l4), or only http1, http2, grpc (l7).")
]


MESHES: Mapping[MeshName, tuple[Callable[[], MeshModel], Callable[[], LocalMesh]]] = {
    MeshName.NONE: (NoneModel, NoneMesh),
    MeshName.ISTIO: (IstioModel, IstioMesh),
    MeshName.LINKERD: (LinkerdModel, LinkerdMesh),
}
"""Both halves of every mesh that meshwise knows; making one starts nothing and needs no binary."""


def meshes_of(study: Study) -> Mapping[MeshName, LocalMesh]:
    return {name: local() for name, (_, local) in MESHES.items() if name in study.environments}


def not_applicable(cell: Cell) -> str | None:
    """Why the cell's mesh cannot express it, or None; a question of the mesh, not of what is installed."""
    return MESHES[cell.mesh][0]().not_applicable(cell)
