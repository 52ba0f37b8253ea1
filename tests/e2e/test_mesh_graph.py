"""A graph with demands of its own, and a store behind TCP, on real sidecars of both meshes: applied, then
proven.

Linkerd needs its binary: MESHWISE_LINKERD_PROXY, or `meshwise proxies pull linkerd`.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import graph_world
from tests.support.envoy import envoy
from tests.support.mesh_graph import POSTURES
from tests.support.people import ROOT, scene_as

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.linkerd import binary


def play(scene: str, mesh: str) -> list[dict[str, Any]]:
    extra = {}
    if mesh == "istio":
        envoy()
    if mesh == "linkerd":
        try:
            path = binary.proxy_path()
            binary.facts(path)
        except MeshwiseError as error:
            pytest.skip(str(error))
        extra["MESHWISE_LINKERD_PROXY"] = str(path)
    return scene_as(ROOT, graph_world.__name__, scene, mesh, **extra)


@pytest.mark.parametrize("mesh", ["istio", "linkerd"])
def test_every_service_is_proven_by_what_it_demands(mesh: str) -> None:
    *proofs, claimed = play("shop", mesh)
    assert [(each["cell"], each["failed"]) for each in proofs if not each["passed"]] == []
    assert [each["posture"] for each in proofs] == [
        *(posture.name for posture in POSTURES),
        "strict+namespace",
    ]
    for each in proofs:
        tried = [name for name in each["names"] if name.startswith("store: ")]
        assert any("outsider in plaintext" in name for name in tried), "the store refuses who has no identity"
        assert any("another namespace" in name for name in tried)
    assert not claimed["passed"]
    assert all(
        "catalog" in failure or "configuration of" in failure or "snapshot" in failure
        for failure in claimed["failed"]
    )
    assert any(failure.startswith("catalog: outsider in plaintext") for failure in claimed["failed"])


def test_without_a_mesh_every_hop_answers() -> None:
    (proof,) = play("shop", "none")
    assert proof["failed"] == []
    assert {"cart -> store: client through its sidecar: the allowed request"} <= set(proof["names"])
