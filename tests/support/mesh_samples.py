"""Values that tests of meshes share: a placement on paper, cells, every posture that Istio can express."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from meshwise.mesh.delivery.seam import ProxyConfig
from meshwise.mesh.delivery.stream import SOURCES
from meshwise.mesh.istio import posture
from meshwise.mesh.istio.resources import parse
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import Options, View, view_of
from meshwise.mesh.seam import PlacedWorkload, Placement
from meshwise.mesh.tokens import tokens
from meshwise.study.model import (
    LADDER,
    Authorization,
    Cell,
    KeyType,
    MeshName,
    MtlsMode,
    Posture,
    Protocol,
    RuleKind,
    RulePlace,
    Topology,
    TopologyKind,
)

CELL = Cell(
    mesh=MeshName.ISTIO, posture=LADDER[0], protocol=Protocol.HTTP1, rate_rps=100, request_bytes=64,
    response_bytes=128, connections=1, streams=1, shape=TopologyKind.CHAIN, length=1,
    key_type=KeyType.RSA_2048, policy_count=0, plaintext_share=0.0,
)  # fmt: skip

POSTURES: tuple[Posture, ...] = tuple(
    Posture(mtls, authorization)
    for mtls in MtlsMode
    for authorization in Authorization
    if posture.not_applicable(replace(CELL, posture=Posture(mtls, authorization))) is None
)
"""The ladder and the rest of the factorial, as far as Istio can express it."""

ONE_THING: tuple[tuple[RuleKind, RulePlace], ...] = (
    *((kind, RulePlace.BEFORE) for kind in RuleKind),
    (RuleKind.PATH, RulePlace.AFTER),
    (RuleKind.HEADER, RulePlace.DENY),
    *((kind, RulePlace.HIT) for kind in RuleKind),
)
"""Further rules of every kind, and in every place."""


def placement(length: int = 2, directory: Path = Path("/run/meshwise")) -> Placement:
    placed = tuple(
        PlacedWorkload(workload, f"10.244.1.{index}", f"10.96.1.{index}")
        for index, workload in enumerate(Topology(TopologyKind.CHAIN, length).workloads, 1)
    )
    return Placement(MeshName.ISTIO, "a", placed, "10.244.1.99", directory)


def view(resources: str, length: int = 2, options: Options | None = None) -> View:
    return view_of(placement(length), parse(resources), "generation-1", SOURCES, options or Options())


def config(cell: Cell, workload: str, jwks: str | None = None) -> ProxyConfig:
    return translate(view(posture.resources(cell, jwks or tokens().jwks)), workload)
