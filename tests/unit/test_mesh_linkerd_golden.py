"""The first depth: golden translation, resources in, answers of the control plane out.

A file of `tests/golden/linkerd` holds both: the resources, and under `# ---- becomes` what is made of them.
Write the expected half anew with MESHWISE_UPDATE_GOLDEN=1, and read the difference before you commit it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from tests.support import linkerd_samples as samples

from meshwise.mesh.linkerd import posture
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.names import workload_token
from meshwise.study.model import LADDER, SERVICE_PORTS, Posture, Protocol, RuleKind

FOLDER = Path(__file__).parent.parent / "golden" / "linkerd"
BECOMES = "# ---- becomes\n"


def plain(message: Any) -> Any:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def server(snapshot: Any, protocol: Protocol) -> Any:
    token = workload_token(samples.placement()["node-1"])
    entry = next(each for each in snapshot.workloads if each.token == token)
    return plain(entry.ports[SERVICE_PORTS[protocol]])


def service(snapshot: Any, protocol: Protocol = Protocol.HTTP1) -> Any:
    authority = f"node-1.backend.svc.cluster.local:{SERVICE_PORTS[protocol]}"
    return plain(next(each for each in snapshot.services if each.authority == authority))


def compare(path: Path, resources: str, made: object) -> None:
    given, _, expected = path.read_text().partition(BECOMES) if path.exists() else ("", "", "")
    if os.environ.get("MESHWISE_UPDATE_GOLDEN"):
        text = yaml.safe_dump(made, sort_keys=True, width=110)
        path.write_text(f"{resources}{BECOMES}{text}")
        return
    assert given == resources
    assert yaml.safe_load(expected) == made


@pytest.mark.parametrize("each", samples.POSTURES, ids=lambda each: each.name)
def test_posture(each: Posture) -> None:
    """What a rung changes: the server's policy, and how the client's sidecar reaches it."""
    resources = posture.resources(replace(samples.CELL, posture=each))
    snapshot = samples.made_from(resources)
    made = {
        "node_1_port_8080": server(snapshot, Protocol.HTTP1),
        "endpoint_of_node_1": service(snapshot)["endpoints"]["addrs"][0],
    }
    compare(FOLDER / f"posture-{each.name.replace('+', '-')}.yaml", resources, made)


@pytest.mark.parametrize("protocol", [Protocol.HTTP2, Protocol.GRPC, Protocol.TCP])
def test_least_privilege_on_the_other_protocols(protocol: Protocol) -> None:
    cell = replace(samples.CELL, posture=LADDER[4], protocol=protocol, policy_count=1)
    resources = posture.resources(cell)
    made = server(samples.made_from(resources), protocol)
    compare(FOLDER / f"fine-{protocol}.yaml", resources, made)


@pytest.mark.parametrize("kind", [RuleKind.IDENTITY, RuleKind.PATH, RuleKind.PATH_PREFIX, RuleKind.HEADER])
def test_further_rules_that_ask_for_one_thing(kind: RuleKind) -> None:
    cell = replace(samples.CELL, posture=LADDER[4], policy_count=1, rule_kind=kind)
    resources = posture.resources(cell)
    made = server(samples.made_from(resources), Protocol.HTTP1)
    compare(FOLDER / f"rules-{kind}.yaml", resources, made)


def test_a_whole_service() -> None:
    resources = posture.resources(replace(samples.CELL, posture=LADDER[2]))
    compare(FOLDER / "service.yaml", resources, service(samples.made_from(resources)))


def test_an_opaque_service() -> None:
    resources = posture.resources(replace(samples.CELL, posture=LADDER[2], protocol=Protocol.TCP))
    made = service(samples.made_from(resources), Protocol.TCP)
    compare(FOLDER / "service-opaque.yaml", resources, made)
    assert made["endpoints"]["addrs"][0]["protocol_hint"] == {
        "opaque": {}, "opaque_transport": {"inbound_port": 4143},
    }  # fmt: skip


def test_everything_that_is_understood() -> None:
    """By hand: wildcards, networks with exceptions, a namespace as target, patterns, two authentications."""
    path = FOLDER / "understood.yaml"
    resources = path.read_text().partition(BECOMES)[0]
    snapshot = samples.made_from(resources)
    made = {str(protocol): server(snapshot, protocol) for protocol in Protocol}
    compare(path, resources, made)


def test_transport_is_a_choice() -> None:
    def hint(transport: Transport, rung: int = 2) -> Any:
        cell = replace(samples.CELL, posture=LADDER[rung])
        return service(samples.made(cell, transport=transport))["endpoints"]["addrs"][0].get(
            "protocol_hint", {}
        )

    header = {"opaque_transport": {"inbound_port": 4143}}
    assert hint(Transport()) == {"h2": {}, **header}
    assert hint(Transport(http2_upgrade=False)) == header
    assert hint(Transport(transport_header=False)) == {"h2": {}}
    assert hint(Transport(False, False)) == {}
    assert hint(Transport(), rung=0) == {"h2": {}}, "the header needs TLS"


def test_equal_answers_have_equal_fingerprints() -> None:
    cell = replace(samples.CELL, posture=LADDER[4])
    first, second = samples.made(cell, version=1), samples.made(cell, version=2)
    assert first.fingerprint == second.fingerprint
    assert samples.made(replace(cell, policy_count=1)).fingerprint != first.fingerprint
