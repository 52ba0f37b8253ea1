"""Tracing with real proxies: Envoy's tracer, linkerd2-proxy's exporter, the nodes' own spans, and faults."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from tests.support.people import ORDINARY, ROOT, command_as, environment_as
from tests.support.studies import cell, study

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.binary import envoy_path
from meshwise.mesh.linkerd import binary
from meshwise.study.model import TopologyKind
from meshwise.testbed.applications import choose

PROGRAM = ("-m", "tests.support.inside_tracing")


@pytest.fixture(autouse=True)
def _envoy() -> None:
    try:
        envoy_path()
    except MeshwiseError as error:
        pytest.skip(f"needs Envoy: {error.remedy}")


def scene(*words: str) -> list[dict[str, Any]]:
    person = ROOT if os.geteuid() == 0 else ORDINARY
    done = subprocess.run(
        command_as(person, *PROGRAM, *words),
        env=environment_as(person), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def shape_of(length: int, mesh: str) -> dict[str, Any]:
    """What a trace of a chain has to be: who called whom, through which sidecars. linkerd2-proxy has two
    spans of each request that passes it."""
    inner: list[dict[str, Any]] = []
    for number in range(length, 0, -1):
        node, caller = f"node-{number}", f"node-{number - 1}" if number > 1 else "client"
        inner = [{f"{node}/service server": inner}]
        if mesh == "istio":
            inner = [{f"{caller}/proxy client": [{f"{node}/proxy server": inner}]}]
        elif mesh == "linkerd":
            inner = [{f"{node}/proxy server": [{f"{node}/proxy client": inner}]}]
            inner = [{f"{caller}/proxy server": [{f"{caller}/proxy client": inner}]}]
        role = "service" if number > 1 else "instrument"
        inner = [{f"{caller}/{role} client": inner}]
    return inner[0]


SPANS = {"none": 2, "istio": 4, "linkerd": 6}
"""Of a hop."""
PARTS = {
    "none": {"network"},
    "istio": {"client app", "client proxy and network", "server proxy"},
    "linkerd": {"client app", "client proxy", "network", "server proxy"},
}


@pytest.mark.parametrize(("protocol", "length"), [("http1", 2), ("grpc", 1)])
def test_traced_requests_have_every_span_of_their_way(protocol: str, length: int) -> None:
    told, *arms = scene("traced", protocol, str(length))
    assert "traced-sampling" in told["fidelity"]
    assert arms.pop() == {"foreign": 0}, "nobody traces what the load generator has not chosen"
    linkerd = [arm for arm in arms if arm["mesh"] == "linkerd"]
    for arm in arms:
        assert (arm["failure"], arm["errors"], arm["flags"]) == ("", [""], []), arm
        assert arm["receiver"], "its CPU is told, under a name of its own"
        if not arm["share"]:
            assert "spans" not in arm
            continue
        assert arm["traced"] == pytest.approx(arm["requests"] / 4, abs=2)
        mesh = arm["mesh"]
        assert sum(arm["spans"].values()) == arm["traced"] * SPANS[mesh] * length
        assert arm["whole"] == 1.0
        assert arm["shape"] == shape_of(length, mesh)
        assert arm["inside"], "no span begins before its caller's: one clock"
        assert set(arm["parts"]) == PARTS[mesh] | {"service"}
        assert all(value > 0 for value in arm["parts"].values())
    if not linkerd:
        with pytest.raises(MeshwiseError) as lacking:
            binary.proxy_path()
        pytest.skip(f"Linkerd's part needs linkerd2-proxy: {lacking.value.remedy}")


def test_a_receiver_that_ends_or_overflows_is_flagged_and_the_trial_stays() -> None:
    killed, small = scene("faults")
    for one in (killed, small):
        assert (one["failure"], one["errors"]) == ("", [""])
    assert [flag.split(":")[0] for flag in killed["flags"]] == ["spans_missing", "receiver_ended"]
    assert "killed by SIGKILL" in killed["flags"][1]
    assert [flag.split(":")[0] for flag in small["flags"]] == ["spans_missing", "spans_dropped"]
    assert small["whole"] < 1.0


def test_the_banks_services_take_part_with_the_sdk() -> None:
    try:
        choose.require(study([cell(shape=TopologyKind.BANK)]))
    except MeshwiseError as error:
        pytest.skip(f"needs the bank: {error.remedy}")
    (one,) = scene("bank")
    assert (one["failure"], one["errors"], one["flags"]) == ("", [""], [])
    assert one["whole"] == 1.0
    spans = one["spans"]
    assert spans["edge/service server"] == spans["client/instrument client"] == one["traced"] > 10
    assert spans["edge/service client"] == spans["edge/proxy client"] > one["traced"], "calls of the edge"
    for service in ("users", "accounts", "transactions", "notifications"):
        assert spans[f"{service}/service server"] == spans[f"{service}/proxy server"] > 0
