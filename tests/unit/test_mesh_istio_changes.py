"""What Istio's sidecars are brought within a trial, read from the files that they would watch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.studies import cell

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.changes import Change
from meshwise.mesh.istio.binary import envoy_path
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.seam import PlacedWorkload, Placement
from meshwise.study.model import LADDER, MeshName
from meshwise.study.timeline import ChangePosture, PushPolicies
from meshwise.testbed.fake_reach import FakeReach

STRICT, NAMESPACE = LADDER[2:4]
CELL = cell(STRICT, length=2)


@pytest.fixture(autouse=True)
def _envoy() -> None:
    try:
        envoy_path()
    except MeshwiseError as error:
        pytest.skip(f"needs Envoy: {error.remedy}")


def placement(directory: Path) -> Placement:
    directory.mkdir(mode=0o700)
    placed = [
        PlacedWorkload(each, f"10.244.1.{number}", f"10.96.1.{number}")
        for number, each in enumerate(CELL.topology.workloads, 1)
    ]
    return Placement(MeshName.ISTIO, "a", tuple(placed), "10.244.1.99", directory)


def listeners(of: Placement, workload: str) -> Any:
    return json.loads((of.directory / workload / "lds" / "lds.json").read_text())


def policies(of: Placement, workload: str) -> set[str]:
    """Of all rules of the sidecar that deny."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("action") == "DENY":
                found.update(value.get("policies", {}))
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(listeners(of, workload))
    return found


def change(mesh: IstioMesh, of: Placement, act: Change) -> None:
    """Written, before a proxy that is not there is waited for."""
    with pytest.raises(MeshwiseError, match="MW406"):
        mesh.carry_out(of, CELL, act, SilentAfterwards(), lambda workload: None)


class SilentAfterwards(FakeReach):
    """Proxies that answer until something was brought to them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, pod: str, port: int, path: str) -> bytes:
        if pod in self.asked:
            return super().get(pod, port, path)
        self.asked.add(pod)
        return b'{"stats": []}'


def test_pushed_policies_are_new_each_time_and_on_whom_they_are_meant_for(tmp_path: Path) -> None:
    mesh, of = IstioMesh(), placement(tmp_path / "p")
    mesh.prepare(of, CELL)
    before = {name: listeners(of, name)["resources"] for name in ("client", "node-1", "node-2")}
    change(mesh, of, PushPolicies(5, relevant=True))
    first = {name: policies(of, name) for name in before}
    assert [len(first[name]) for name in ("client", "node-1", "node-2")] == [0, 3, 2], "in turn on the called"
    change(mesh, of, PushPolicies(5, relevant=True))
    second = {name: policies(of, name) for name in before}
    assert len(second["node-1"]) == 3
    assert not first["node-1"] & second["node-1"], "instead of the former"
    change(mesh, of, PushPolicies(50))
    for name, was in before.items():
        assert listeners(of, name)["resources"] == was, "policies of others leave a sidecar as it is"


def test_changes_add_up_and_a_reset_forgets_them(tmp_path: Path) -> None:
    mesh, of = IstioMesh(), placement(tmp_path / "p")
    mesh.prepare(of, CELL)
    plain = json.dumps(listeners(of, "node-1")["resources"])
    change(mesh, of, PushPolicies(4, relevant=True))
    change(mesh, of, ChangePosture(NAMESPACE))
    both = json.dumps(listeners(of, "node-1")["resources"])
    assert len(policies(of, "node-1")) == 2
    assert '"ALLOW"' in both
    assert '"ALLOW"' not in plain
    with pytest.raises(MeshwiseError, match="MW406"):
        mesh.reset(of, CELL, SilentAfterwards())
    assert policies(of, "node-1") == set()
    assert '"ALLOW"' not in json.dumps(listeners(of, "node-1")["resources"])


def test_what_was_foreseen_is_what_would_have_been_made(tmp_path: Path) -> None:
    acts = [PushPolicies(4, relevant=True), ChangePosture(NAMESPACE), PushPolicies(4, relevant=True)]
    told = []
    for foreseeing in (False, True):
        mesh, of = IstioMesh(), placement(tmp_path / str(foreseeing))
        mesh.prepare(of, CELL)
        if foreseeing:
            mesh.foresee(of, CELL, acts)
        seen = []
        for act in acts:
            change(mesh, of, act)
            seen.append({each.name: listeners(of, each.name) for each in of.workloads})
        told.append(seen)
    assert told[0] == told[1]
