"""A small graph with demands of its own, for tests of both meshes: one namespace that stays permissive, one
without mutual TLS, one service of least privilege, and a store that speaks TCP and lets in two namespaces.

    client -> front -> cart    -> store
                    |          -> pricing -> legacy
                    -> catalog -> store
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from meshwise.mesh.seam import PlacedWorkload, Placement
from meshwise.study.graph.model import Call, Concurrent, GraphService, ServiceGraph
from meshwise.study.model import (
    LADDER,
    Authorization,
    Cell,
    KeyType,
    MeshName,
    MtlsMode,
    Posture,
    Protocol,
    Topology,
    TopologyKind,
)
from tests.support.mesh_samples import CELL

STORE_PORT = 6379

SHOP = ServiceGraph(
    "shop",
    (
        GraphService("front", script=(Concurrent((Call("cart"), Call("catalog"))),)),
        GraphService("cart", script=(Call("store"), Call("pricing"))),
        GraphService("catalog", "open", script=(Call("store"),), mtls=MtlsMode.PERMISSIVE),
        GraphService(
            "pricing", script=(Call("legacy"),), mtls=MtlsMode.STRICT, authorization=Authorization.FINE
        ),
        GraphService("legacy", "legacy", mtls=MtlsMode.DISABLE, authorization=Authorization.NONE),
        GraphService(
            "store", "stores", mtls=MtlsMode.STRICT, authorization=Authorization.NAMESPACE,
            ports=((Protocol.TCP, STORE_PORT),),
        ),
    ),
)  # fmt: skip
TOPOLOGY = Topology(TopologyKind.GRAPH, 1, SHOP)
POSTURES = (LADDER[0], LADDER[1], LADDER[2], LADDER[3])
"""`fine` for all would be for `legacy` too, whose callers have no identity."""


def shop_cell(mesh: MeshName = MeshName.ISTIO, posture: Posture = LADDER[2]) -> Cell:
    key = KeyType.ECDSA_P256 if mesh is MeshName.LINKERD else KeyType.RSA_2048
    return replace(CELL, mesh=mesh, posture=posture, key_type=key, shape=TopologyKind.GRAPH, graph=SHOP)


def placed(
    topology: Topology, mesh: MeshName = MeshName.ISTIO, directory: Path = Path("/run/meshwise")
) -> Placement:
    workloads = tuple(
        PlacedWorkload(workload, f"10.244.1.{index}", f"10.96.1.{index}")
        for index, workload in enumerate(topology.workloads, 1)
    )
    return Placement(mesh, "a", workloads, "10.244.1.99", directory)
