"""The conformance suite on the meshes that need no proxy to be present; and the binary that Istio needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.envoy import envoy
from tests.support.mesh_conformance import MeshConformance
from tests.support.mesh_samples import CELL, placement

from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.mesh.istio import binary
from meshwise.mesh.istio.mesh import PROXY_UID, IstioMesh
from meshwise.mesh.istio.view import Options
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.mesh.seam import LocalMesh
from meshwise.study.model import LADDER, NO_MESH, MeshName


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


def test_both_are_meshes() -> None:
    meshes: list[LocalMesh] = [NoneMesh(), IstioMesh()]
    assert [mesh.model.name for mesh in meshes] == [MeshName.NONE, MeshName.ISTIO]


def test_istio_starts_one_proxy_per_workload_with_istios_flags() -> None:
    envoy()
    plans = IstioMesh().processes(placement(), workers=3)
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
