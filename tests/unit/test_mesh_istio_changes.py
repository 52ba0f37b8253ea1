"""What Istio's sidecars are brought within a trial, read from what the control plane would hand out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from tests.support.studies import cell

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.changes import NOT_DONE, Change
from meshwise.mesh.delivery.messages import message_class
from meshwise.mesh.delivery.names import CONTROLLER_DIRECTORY, SNAPSHOT_FILE
from meshwise.mesh.delivery.resources import XdsKind, read_snapshot
from meshwise.mesh.istio.binary import envoy_path
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.seam import PlacedWorkload, Placement
from meshwise.study.model import LADDER, MeshName
from meshwise.study.timeline import ChangePosture, PushPolicies, Rotate, Rotated
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
    """By name."""
    snapshot = read_snapshot(of.directory / CONTROLLER_DIRECTORY / SNAPSHOT_FILE)
    (entry,) = (each for node, each in snapshot.proxies.items() if f"~{workload}." in node)
    made = message_class("envoy.config.listener.v3.Listener")
    pool = made.DESCRIPTOR.file.pool
    return {
        name: json_format.MessageToDict(made.FromString(snapshot.blobs[digest]), descriptor_pool=pool)
        for name, digest in entry.types[XdsKind.LISTENERS][1].items()
    }


def policies(of: Placement, workload: str, action: str = "DENY") -> set[str]:
    """Of all rules of the sidecar with this action; that of rules which allow is left out."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "policies" in value and value.get("action", "ALLOW") == action:
                found.update(value["policies"])
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(listeners(of, workload))
    return found


def change(mesh: IstioMesh, of: Placement, act: Change) -> None:
    """Written, for a control plane that is not there and comes back."""
    taken = mesh.carry_out(of, CELL, act, FakeReach(), lambda workload: None)
    assert [(each.workload, each.done_ns) for each in taken] == [
        (each.name, None) for each in CELL.topology.workloads
    ]
    assert all("does not answer" in str(each.detail[NOT_DONE]) for each in taken)


def test_pushed_policies_are_new_each_time_and_on_whom_they_are_meant_for(tmp_path: Path) -> None:
    mesh, of = IstioMesh(), placement(tmp_path / "p")
    mesh.prepare(of, CELL)
    before = {name: listeners(of, name) for name in ("client", "node-1", "node-2")}
    change(mesh, of, PushPolicies(5, relevant=True))
    first = {name: policies(of, name) for name in before}
    assert [len(first[name]) for name in ("client", "node-1", "node-2")] == [0, 3, 2], "in turn on the called"
    change(mesh, of, PushPolicies(5, relevant=True))
    second = {name: policies(of, name) for name in before}
    assert len(second["node-1"]) == 3
    assert not first["node-1"] & second["node-1"], "instead of the former"
    change(mesh, of, PushPolicies(50))
    for name, was in before.items():
        assert listeners(of, name) == was, "policies of others leave a sidecar as it is"


def test_changes_add_up_and_a_reset_forgets_them(tmp_path: Path) -> None:
    mesh, of = IstioMesh(), placement(tmp_path / "p")
    mesh.prepare(of, CELL)
    plain = policies(of, "node-1", "ALLOW")
    change(mesh, of, PushPolicies(4, relevant=True))
    change(mesh, of, ChangePosture(NAMESPACE))
    assert len(policies(of, "node-1")) == 2
    assert policies(of, "node-1", "ALLOW")
    assert plain == set()
    with pytest.raises(MeshwiseError, match="MW421"):
        mesh.reset(of, CELL, FakeReach())
    assert policies(of, "node-1") == policies(of, "node-1", "ALLOW") == set()


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


def test_while_the_control_plane_is_gone_nobody_signs_and_nothing_is_lost(tmp_path: Path) -> None:
    """The authority is the same process, so keys, certificates and the rules in force stay as they are."""
    mesh, of = IstioMesh(), placement(tmp_path / "p")
    mesh.prepare(of, CELL)
    change(mesh, of, PushPolicies(2, relevant=True))
    snapshot = of.directory / CONTROLLER_DIRECTORY / SNAPSHOT_FILE
    before = read_snapshot(snapshot)
    change(mesh, of, Rotate(Rotated.ISSUER))
    assert read_snapshot(snapshot) == before
