"""Which meshes there are: the one place where the commands join rooms that do not know each other. And the
arguments and options that several of them have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from meshwise.mesh.istio.mesh import ISTIO_DRAIN_TIME_S, IstioMesh
from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.linkerd.model import LinkerdModel
from meshwise.mesh.none.mesh import NoneMesh, NoneModel
from meshwise.mesh.seam import LocalMesh, MeshModel
from meshwise.study.model import Cell, Layer, MeshName, Study

LevelOption = Annotated[
    Layer | None, typer.Option("--level", help="Keep only opaque TCP (l4), or only http1, http2, grpc (l7).")
]


StudyArgument = Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY.yaml")]
OutOption = Annotated[
    Path, typer.Option("--out", help="Directory of the archive; made if absent.", metavar="DIR")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue at the first missing trial.")]


MESHES: Mapping[MeshName, tuple[Callable[[], MeshModel], Callable[[], LocalMesh]]] = {
    MeshName.NONE: (NoneModel, NoneMesh),
    MeshName.ISTIO: (IstioModel, IstioMesh),
    MeshName.LINKERD: (LinkerdModel, LinkerdMesh),
}
"""Both halves of every mesh that meshwise knows; making one starts nothing and needs no binary."""


def meshes_of(study: Study) -> Mapping[MeshName, LocalMesh]:
    return {name: local() for name, (_, local) in MESHES.items() if name in study.environments}


def meshes_that_drain(study: Study) -> Mapping[MeshName, LocalMesh]:
    """With the drain time that the mesh itself has, where `meshes_of` has none, so that trials are alike."""
    own = {MeshName.ISTIO: IstioMesh(drain_time_s=ISTIO_DRAIN_TIME_S)}
    return {name: own.get(name, mesh) for name, mesh in meshes_of(study).items()}


def not_applicable(cell: Cell) -> str | None:
    """Why the cell's mesh cannot express it, or None; a question of the mesh, not of what is installed."""
    return MESHES[cell.mesh][0]().not_applicable(cell)
