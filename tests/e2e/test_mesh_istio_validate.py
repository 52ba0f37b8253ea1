"""The real binary accepts what is generated: every posture, and every resource that is understood."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.envoy import envoy, validate
from tests.support.mesh_samples import CELL, POSTURES, view

from meshwise.mesh.istio import binary, native, posture
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.istio.native import Native
from meshwise.mesh.istio.view import Options
from meshwise.mesh.tokens import tokens
from meshwise.study.model import LADDER, Posture

GOLDEN = Path(__file__).parent.parent / "golden" / "istio"
UNDERSTOOD = (
    "authorization-patterns", "authorization-deny-before-allow", "authorization-tcp", "authorization-request",
    "jwt-two-issuers", "cluster-outbound-pool", "cluster-outbound-tls-off", "routes-outbound-registry-only",
    "listener-inbound-port-level", "listener-inbound-undeclared-port", "authorization-conditions",
    "authorization-dry-run", "jwt-places", "cluster-inbound-pool", "routes-outbound-mixed-upgrade",
)  # fmt: skip


@pytest.mark.parametrize("each", POSTURES, ids=lambda each: each.name)
def test_every_posture(each: Posture, tmp_path: Path) -> None:
    cell = replace(CELL, posture=each)
    assert validate(view(posture.resources(cell, tokens().jwks)), "node-1", tmp_path) == ""


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_every_understood_resource(name: str, tmp_path: Path) -> None:
    resources = (GOLDEN / f"{name}.yaml").read_text().partition("# ---- becomes")[0]
    resources = resources.replace('{"keys":[]}', tokens().jwks)
    for workload in ("client", "node-1"):
        assert validate(view(resources), workload, tmp_path) == ""


@pytest.mark.parametrize("options", [Options(curves=()), Options(telemetry=False)])
def test_every_option(options: Options, tmp_path: Path) -> None:
    resources = posture.resources(replace(CELL, posture=LADDER[4]), tokens().jwks)
    assert validate(view(resources, options=options), "node-1", tmp_path) == ""


def test_a_broken_configuration_would_be_noticed(tmp_path: Path) -> None:
    resources = posture.resources(replace(CELL, posture=LADDER[4]), tokens().jwks)
    assert "nonsense" in validate(view(resources, options=Options(curves=("nonsense",))), "node-1", tmp_path)


def test_upstream_envoy_refuses_istios_filters_and_nothing_else() -> None:
    path = envoy()
    assert binary.istio_filters(path) == Native()
    trial = native._trial("stats", "istio.stats")
    assert not binary._validates(path, trial)
    text = json.dumps(trial).replace("/stats.PluginConfig", "/envoy.extensions.filters.http.cors.v3.Cors")
    assert binary._validates(path, json.loads(text.replace(', "disable_host_header_fallback": true', "")))


def test_describe_names_the_build() -> None:
    facts = IstioMesh().describe()
    assert facts == {**facts, **binary.facts(envoy())}
    assert facts["tls_library"] == "BoringSSL"
    assert facts["version"].count(".") == 2
    assert facts["digest"].startswith("sha256:")
