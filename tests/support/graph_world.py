"""Program of the end-to-end tests of graphs: `graph_world.py SCENE MESH`; prints lines of JSON.

Real services and real sidecars of either mesh, on the small graph with demands (`mesh_graph`) or on a wide
one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.mesh.seam import LocalMesh
from meshwise.study.model import LADDER, NO_MESH, Cell, MeshName, Protocol, TopologyKind
from meshwise.testbed.local.world import enter_world
from tests.support.mesh_graph import POSTURES, SHOP, shop_cell
from tests.support.mesh_world import Ground, ground, say, verdict

MESHES: dict[str, Callable[[], LocalMesh]] = {"none": NoneMesh, "istio": IstioMesh, "linkerd": LinkerdMesh}


def told(here: Ground, cell: Cell) -> None:
    apply_s = here.apply(cell)
    proof = here.prove(cell)
    names = [each.name for each in proof.checks]
    say(
        cell=cell.name,
        posture=cell.posture.name,
        protocol=cell.protocol,
        apply_s=apply_s,
        names=names,
        **verdict(proof),
    )


def shop(mesh: str) -> int:
    """Every posture that the small graph can have, and gRPC; then a demand that was not applied."""
    like = shop_cell(MeshName(mesh))
    with ground(MESHES[mesh](), like=like) as here:
        if mesh == "none":
            told(here, replace(like, posture=NO_MESH))
            return 0
        for posture in POSTURES:
            told(here, replace(like, posture=posture))
        told(here, replace(like, posture=LADDER[3], protocol=Protocol.GRPC))
        # One service demands less than is claimed: its own behaviour has to tell.
        here.apply(replace(like, posture=LADDER[2]))
        claimed = tuple(
            replace(each, mtls=None) if each.name == "catalog" else each for each in SHOP.services
        )
        say(cell="claimed", **verdict(here.prove(replace(like, graph=replace(SHOP, services=claimed)))))
    return 0


def wide(mesh: str) -> int:
    """31 services, each with a sidecar of two workers: start, changes of posture, proofs, memory."""
    like = replace(shop_cell(MeshName(mesh)), shape=TopologyKind.TREE, length=5, graph=None)
    begun = time.monotonic()
    with ExitStack() as stack:
        here = stack.enter_context(ground(MESHES[mesh](), workers=2, like=like))
        say(started_s=time.monotonic() - begun)
        for posture in (LADDER[2], LADDER[3], LADDER[4], LADDER[1], LADDER[0], LADDER[2]):
            told(here, replace(like, posture=posture))
        say(pss_bytes=memory("envoy" if mesh == "istio" else "linkerd2-proxy"))
    return 0


def memory(word: str) -> list[int]:
    """Proportional set size of every process of this world whose program has the word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word in path.read_bytes().split(b"\0")[0].decode():
                rollup = (path.parent / "smaps_rollup").read_text()
                found.append(1024 * int(rollup.partition("\nPss:")[2].split()[0]))
        except OSError:
            continue  # it has just ended
    return sorted(found)


SCENES = {scene.__name__: scene for scene in (shop, wide)}


def main() -> int:
    scene, *words = sys.argv[1:]
    keep = [Path(os.environ.get("MESHWISE_LINKERD_PROXY", "/"))]
    try:
        return enter_world(lambda: SCENES[scene](*words), keep=keep)
    except MeshwiseError as error:
        say(error=error.code, what=str(error))
        return 0 if error.code == "MW201" else error.exit_status


if __name__ == "__main__":
    sys.exit(main())
