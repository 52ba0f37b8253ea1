"""The nat rules in a real kernel: who ends where, and that the original destination is kept."""

from __future__ import annotations

import json
import subprocess

import pytest
from tests.support.people import ORDINARY, ROOT, command_as, environment_as

PROGRAM = ("-m", "tests.support.inside_world")


def observe(person: str, mesh: str) -> dict[str, object]:
    done = subprocess.run(
        command_as(person, *PROGRAM, "capture", mesh),
        env=environment_as(person), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("mesh", ["istio", "linkerd"])
def test_capture_by_uid(mesh: str) -> None:
    seen = observe(ROOT, mesh)
    assert seen["privileged"] is True
    assert seen["application_to_service"] == ["left outbound", "10.244.1.1", "10.96.1.9", 8080]
    assert seen["application_to_pod"] == ["left outbound", "10.244.1.1", "10.244.1.2", 8080]
    assert_inbound(seen, mesh)


@pytest.mark.parametrize("mesh", ["istio", "linkerd"])
def test_capture_with_a_single_uid_goes_by_service_address(mesh: str) -> None:
    seen = observe(ORDINARY, mesh)
    assert seen["privileged"] is False
    assert seen["application_to_service"] == ["left outbound", "10.244.1.1", "10.96.1.9", 8080]
    assert seen["application_to_pod"] == ["right inbound", "10.244.1.1", "10.244.1.2", 8080]
    assert_inbound(seen, mesh)


def assert_inbound(seen: dict[str, object], mesh: str) -> None:
    exempt = {"istio": 15090, "linkerd": 4568}[mesh]
    source = {"istio": "127.0.0.6", "linkerd": "127.0.0.1"}[mesh]
    assert seen["proxy_to_pod"] == ["right inbound", "10.244.1.1", "10.244.1.2", 8080]
    assert seen["application_to_exempt"] == ["right exempt", "10.244.1.1", "10.244.1.2", exempt]
    assert seen["sidecar_to_application"] == ["right application", source, "10.244.1.2", 8080]
