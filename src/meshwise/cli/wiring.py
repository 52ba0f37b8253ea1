"""Which meshes there are: the one place where the commands join rooms that do not know each other. And the
arguments and options that several of them have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshwise.core.patience import Patience
from meshwise.mesh.istio.mesh import DRAIN_TIME_S, ISTIO_DRAIN_TIME_S, IstioMesh
from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.linkerd.model import LinkerdModel
from meshwise.mesh.none.mesh import NoneMesh, NoneModel
from meshwise.mesh.seam import LocalMesh, MeshModel
from meshwise.study.model import Cell, ControlPlane, Layer, MeshName, Study
from meshwise.study.timeline import Act, ChangePosture, PushPolicies, Rotate, Rotated
from meshwise.testbed.local.world import current_world

if TYPE_CHECKING:
    from meshwise.mesh.istio.istiod.control_plane import IstiodControlPlane

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


@contextmanager
def control_plane_of(study: Study, patience: Patience) -> Iterator[IstiodControlPlane | None]:
    """What a study has beside its sidecars, for `meshes_of`; it ends with the block. For a world. Raises
    MW440."""
    if study.control_plane is not ControlPlane.ISTIOD:
        yield None
        return
    from meshwise.mesh.istio.istiod.binary import istiod_path
    from meshwise.mesh.istio.istiod.control_plane import IstiodControlPlane  # imports grpc, slowly

    with IstiodControlPlane(istiod_path(), current_world().secrets / "istiod", patience) as istiod:
        yield istiod


def meshes_of(
    study: Study, istiod: IstiodControlPlane | None = None, *, drain: bool = False
) -> Mapping[MeshName, LocalMesh]:
    """`istiod`: for a study that asks for it (`control_plane_of`). Where configuration changes within trials,
    Istio has the drain time that it has on a cluster; `drain`: it has it anyway."""
    assert (istiod is None) is (study.control_plane is ControlPlane.MESHWISE), "as the study says"
    own = {MeshName.ISTIO: _istio_of(study, istiod, drain=drain)}
    return {
        name: own.get(name) or local() for name, (_, local) in MESHES.items() if name in study.environments
    }


def meshes_that_drain(study: Study, istiod: IstiodControlPlane | None = None) -> Mapping[MeshName, LocalMesh]:
    """With the drain time that the mesh itself has, where `meshes_of` has none, so that trials are alike."""
    return meshes_of(study, istiod, drain=True)


def _istio_of(study: Study, istiod: IstiodControlPlane | None, *, drain: bool) -> LocalMesh:
    due = [each.act for each in study.trial.timeline.occurrences(study.trial.duration_ns)]
    pushes = any(isinstance(act, PushPolicies | ChangePosture) for act in due)
    keys = {Rotated.LEAF: 0, Rotated.ISSUER: 1, Rotated.ANCHOR: 2}
    spare = sum(keys[act.what] for act in due if isinstance(act, Rotate))
    drain_time_s = ISTIO_DRAIN_TIME_S if drain or pushes else DRAIN_TIME_S
    return IstioMesh(drain_time_s=drain_time_s, spare_keys=spare, istiod=istiod)


def cannot(cell: Cell, act: Act) -> str | None:
    """Why an event cannot happen to the cell, as its mesh runs here; a question that needs no binary."""
    return MESHES[cell.mesh][1]().cannot(cell, act)


def _istiod(patience: Patience) -> IstiodControlPlane:
    """Raises MW440."""
    from meshwise.mesh.istio.istiod.binary import istiod_path
    from meshwise.mesh.istio.istiod.control_plane import IstiodControlPlane  # imports grpc, slowly

    return IstiodControlPlane(istiod_path(), current_world().secrets / "istiod", patience)


def not_applicable(cell: Cell) -> str | None:
    """Why the cell's mesh cannot express it, or None; a question of the mesh, not of what is installed."""
    return MESHES[cell.mesh][0]().not_applicable(cell)
