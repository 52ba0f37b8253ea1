"""Which meshes there are: the one place where the commands join rooms that do not know each other. And the
arguments and options that several of them have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from meshwise.mesh.istio.mesh import DRAIN_TIME_S, ISTIO_DRAIN_TIME_S, IstioMesh
from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.linkerd.model import LinkerdModel
from meshwise.mesh.none.mesh import NoneMesh, NoneModel
from meshwise.mesh.seam import LocalMesh, MeshModel
from meshwise.study.model import Cell, Layer, MeshName, Study
from meshwise.study.timeline import Act, ChangePosture, PushPolicies, Rotate, Rotated

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
    """Where configuration changes within trials, Istio has the drain time that it has on a cluster."""
    own = {MeshName.ISTIO: _istio_of(study)}
    return {
        name: own.get(name) or local() for name, (_, local) in MESHES.items() if name in study.environments
    }


def _istio_of(study: Study) -> LocalMesh:
    due = [each.act for each in study.trial.timeline.occurrences(study.trial.duration_ns)]
    pushes = any(isinstance(act, PushPolicies | ChangePosture) for act in due)
    keys = {Rotated.LEAF: 0, Rotated.ISSUER: 1, Rotated.ANCHOR: 2}
    spare = sum(keys[act.what] for act in due if isinstance(act, Rotate))
    return IstioMesh(drain_time_s=ISTIO_DRAIN_TIME_S if pushes else DRAIN_TIME_S, spare_keys=spare)


def cannot(cell: Cell, act: Act) -> str | None:
    """Why an event cannot happen to the cell, as its mesh runs here; a question that needs no binary."""
    return MESHES[cell.mesh][1]().cannot(cell, act)


def meshes_that_drain(study: Study) -> Mapping[MeshName, LocalMesh]:
    """With the drain time that the mesh itself has, where `meshes_of` has none, so that trials are alike."""
    own = {MeshName.ISTIO: IstioMesh(drain_time_s=ISTIO_DRAIN_TIME_S)}
    return {name: own.get(name, mesh) for name, mesh in meshes_of(study).items()}


def not_applicable(cell: Cell) -> str | None:
    """Why the cell's mesh cannot express it, or None; a question of the mesh, not of what is installed."""
    return MESHES[cell.mesh][0]().not_applicable(cell)
