"""The conformance suite on every mesh and on a fake; and the binary that Istio needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import linkerd_samples
from tests.support.envoy import envoy
from tests.support.fake_mesh import ADMIN_PORT, TAKEN_UP, NotesMesh
from tests.support.mesh_conformance import MeshConformance
from tests.support.mesh_samples import CELL, placement

from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.mesh.istio import binary
from meshwise.mesh.istio.mesh import PROXY_UID, IstioMesh
from meshwise.mesh.istio.view import Options
from meshwise.mesh.linkerd import binary as linkerd_binary
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.mesh.seam import OUTSIDER, Delivered, LocalMesh
from meshwise.study.model import LADDER, NO_MESH, MeshName
from meshwise.testbed.fake_reach import FakeReach


class TestNone(MeshConformance):
    mesh = NoneMesh
    cell = replace(CELL, mesh=MeshName.NONE, posture=NO_MESH)


@pytest.mark.usefixtures("_needs_envoy")
class TestIstio(MeshConformance):
    mesh = IstioMesh
    cell = replace(CELL, posture=LADDER[4])


@pytest.fixture
def _needs_envoy() -> None:
    envoy()


@pytest.mark.usefixtures("_introduced")
class TestLinkerd(MeshConformance):
    mesh = LinkerdMesh
    cell = replace(linkerd_samples.CELL, posture=LADDER[4])


@pytest.fixture
def _introduced(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that says what linkerd2-proxy says at its start, which is all that is asked of it here."""
    program = tmp_path_factory.mktemp("linkerd") / "linkerd2-proxy"
    banner = f"linkerd2_proxy: release {linkerd_binary.PINNED[0]} (abcdef01) by linkerd"
    program.write_text(f"#!/bin/sh\necho '{banner}' >&2\nexit 64\n")
    program.chmod(0o755)
    monkeypatch.setenv("MESHWISE_LINKERD_PROXY", str(program))


class TestNotes(MeshConformance):
    """The fake, which is a mesh as far as the seams go."""

    mesh = NotesMesh
    cell = replace(linkerd_samples.CELL, posture=LADDER[2])


def test_the_fake_is_proven_by_what_answers(tmp_path: Path) -> None:
    mesh: LocalMesh = NotesMesh()
    cell, here = replace(linkerd_samples.CELL, posture=LADDER[2]), placement(1, tmp_path)
    port = cell.topology.entry.port(cell.protocol)
    answers = {("node-1", port, "/"): b"", ("node-1", ADMIN_PORT, TAKEN_UP): b"strict"}
    for reach, passed in (
        (FakeReach(answers), False),
        (FakeReach(answers, frozenset({OUTSIDER})), True),
        (FakeReach(answers, frozenset({OUTSIDER, "client"})), False),
    ):
        assert mesh.model.judge(here, cell, reach, Delivered(1)).passed is passed


def test_all_are_meshes() -> None:
    meshes: list[LocalMesh] = [NoneMesh(), IstioMesh(), LinkerdMesh()]
    assert [mesh.model.name for mesh in meshes] == list(MeshName)


def test_istio_starts_one_proxy_per_workload_with_istios_flags() -> None:
    envoy()
    controller, *plans = IstioMesh().processes(placement(), workers=3)
    assert (controller.role, controller.pod) == ("controller", "client")
    assert [plan.pod for plan in plans] == ["client", "node-1", "node-2"]
    for plan in plans:
        words = " ".join(plan.argv)
        assert "--concurrency 3 " in words
        assert "--disable-hot-restart" in words
        assert plan.uid == PROXY_UID
        assert plan.ready is not None
        assert (plan.ready.port, plan.ready.path) == (15021, "/healthz/ready")


def test_keys_are_kept_and_certificates_are_fresh_at_every_start(tmp_path: Path) -> None:
    envoy()
    mesh, here = IstioMesh(), placement(1, tmp_path)
    cell = replace(CELL, posture=LADDER[2])
    mesh.prepare(here, cell)
    keys = tmp_path / "node-1" / "keys"
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    mesh.prepare(here, cell)
    after = {path.name: path.read_bytes() for path in keys.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"rsa-2048.chain.pem"}


def test_fidelity_follows_the_options() -> None:
    def codes(options: Options, privileged: bool = True) -> set[str]:
        return {each.code for each in IstioMesh(options).fidelity(privileged=privileged)}

    assert {"istio-metrics", "istio-curves", "istio-drain"} <= codes(Options())
    assert {"istio-no-telemetry", "istio-default-curves"} <= codes(Options(curves=(), telemetry=False))
    assert codes(Options(), privileged=False) - codes(Options()) == {"istio-capture"}


@pytest.mark.parametrize("path", ["/nonexistent", "/etc/hostname", "/bin/true"])
def test_an_envoy_that_is_none_is_said(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binary.VARIABLE, path)
    with pytest.raises(MeshwiseError) as caught:
        binary.facts(binary.envoy_path())
    assert caught.value.code == "MW403"
    assert caught.value.exit_status is ExitStatus.ENVIRONMENT
    assert path in str(caught.value)
