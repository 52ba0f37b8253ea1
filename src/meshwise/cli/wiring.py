"""Which meshes there are: the one place where the commands join rooms that do not know each other. And the
option that `plan` and `run` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.mesh.seam import Mesh
from meshwise.study.model import Cell, Layer, MeshName, Study

LevelOption = Annotated[
    Layer | None, typer.Option("--level", help="Keep only opaque TCP (l4), or only http1, http2, grpc (l7).")
]


def all_meshes() -> Mapping[MeshName, Mesh]:
    """Every mesh that meshwise knows; making one starts nothing and needs no binary."""
    meshes = (NoneMesh(), IstioMesh(), LinkerdMesh())
    return {mesh.name: mesh for mesh in meshes}


def meshes_of(study: Study) -> Mapping[MeshName, Mesh]:
    return {name: mesh for name, mesh in all_meshes().items() if name in study.environments}


def not_applicable(cell: Cell) -> str | None:
    """Why the cell's mesh cannot express it, or None; a question of the mesh, not of what is installed."""
    return all_meshes()[cell.mesh].not_applicable(cell)
