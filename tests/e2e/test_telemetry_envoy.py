"""The Envoy sampler and the node, with a real Envoy between caller and node: its counts are our counts."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from tests.support.envoy import envoy
from tests.support.nodes import RunningNode, chain, fresh_address
from tests.support.sampler_conformance import SamplerConformance

from meshwise.service.grpc_framing import frame_payload
from meshwise.study.model import Protocol
from meshwise.telemetry.envoy import EnvoySampler
from meshwise.telemetry.process import CpuSampler
from meshwise.telemetry.record import Recording, Window
from meshwise.telemetry.seam import Moment, Sampler

SOURCE = "istio/a/node-1/proxy"
ADMIN_PORT = 15_000
_HTTP = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
_RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def _address(address: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": address, "port_value": port}}


def _config(own: str, node: str, ports: dict[Protocol, int]) -> dict[str, object]:
    """A listener and a cluster for each protocol; requests with `x-bad: 1` are denied."""
    bad = {"header": {"name": "x-bad", "string_match": {"exact": "1"}}}
    rules = {"action": "DENY", "policies": {"bad": {"permissions": [bad], "principals": [{"any": True}]}}}
    filters = [
        {"name": "envoy.filters.http.rbac", "typed_config": {"@type": _RBAC, "rules": rules}},
        {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}},
    ]
    listeners, clusters = [], []
    for protocol, port in ports.items():
        name = str(protocol)
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": name}}]
        manager = {
            "@type": _HTTP, "stat_prefix": name, "codec_type": "AUTO", "http_filters": filters,
            "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
        }  # fmt: skip
        chains = [{"filters": [{"name": "hcm", "typed_config": manager}]}]
        listeners.append({"name": name, "address": _address(own, port), "filter_chains": chains})
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(node, port)}}]}]
        cluster: dict[str, object] = {
            "name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        }  # fmt: skip
        if protocol is not Protocol.HTTP1:
            explicit: dict[str, object] = {"explicit_http_config": {"http2_protocol_options": {}}}
            cluster["typed_extension_protocol_options"] = {
                _OPTIONS: {"@type": f"type.googleapis.com/{_OPTIONS}", **explicit}
            }
        clusters.append(cluster)
    return {
        "admin": {"address": _address(own, ADMIN_PORT)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


@dataclass(frozen=True)
class Sidecar:
    address: str
    process: subprocess.Popen[bytes]

    def fetch(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{self.address}:{ADMIN_PORT}{path}", timeout=5) as answer:
            return bytes(answer.read())


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RunningNode]]:
    with chain(2) as running:
        yield running


@pytest.fixture
def sidecar(nodes: list[RunningNode], tmp_path: Path) -> Iterator[Sidecar]:
    file, own = tmp_path / "envoy.json", fresh_address()
    file.write_text(json.dumps(_config(own, nodes[0].address, dict(nodes[0].spec.ports))))
    command = [str(envoy()), "-c", str(file), "--concurrency", "1", "-l", "off", "--disable-hot-restart"]
    with subprocess.Popen(command) as process:
        running = Sidecar(own, process)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if running.fetch("/ready") == b"LIVE\n":
                    break
            time.sleep(0.05)
        yield running
        process.kill()


class TestRealEnvoySampler(SamplerConformance):
    @pytest.fixture(autouse=True)
    def _sidecar(self, sidecar: Sidecar) -> None:
        self.sidecar = sidecar

    def make(self) -> Sampler:
        return EnvoySampler(SOURCE, self.sidecar.fetch, during=True)

    def end_target(self) -> None:
        self.sidecar.process.kill()
        self.sidecar.process.wait()


def _ask(sidecar: Sidecar, plan: str, *, bad: bool = False) -> int:
    connection = http.client.HTTPConnection(sidecar.address, 8080, timeout=10)
    connection.request("GET", "/echo", headers={"x-plan": plan, "x-bad": str(int(bad))})
    status = connection.getresponse().status
    connection.close()
    return status


def test_what_envoy_counts_is_what_was_asked(sidecar: Sidecar) -> None:
    sampler = EnvoySampler(SOURCE, sidecar.fetch)

    def read() -> dict[tuple[str, str], float]:
        return {(one.metric, one.labels): one.value for one in sampler.sample(Moment.END)}

    before = read()
    assert [_ask(sidecar, "bytes=10;hops=1") for _ in range(7)] == [200] * 7
    assert [_ask(sidecar, "", bad=True) for _ in range(3)] == [403] * 3
    after = read()
    moved = {key: after[key] - before.get(key, 0.0) for key in after}
    assert moved["rbac_allowed_total", "name=http1"] == 7
    assert moved["rbac_denied_total", "name=http1"] == 3
    assert moved["downstream_requests_total", "name=http1,scope=http"] == 10
    assert moved["downstream_2xx_total", "name=http1,scope=http"] == 7
    assert moved["downstream_4xx_total", "name=http1,scope=http"] == 3
    assert moved["upstream_requests_total", "name=http1"] == 7
    assert moved["downstream_connections_total", "name=http1,scope=http"] == 10
    assert after["workers", ""] == 1
    assert after["memory_allocated_bytes", ""] > 1 << 20


def test_http2_and_grpc_pass_envoy_in_both_directions(sidecar: Sidecar) -> None:
    with grpc.insecure_channel(f"{sidecar.address}:8082") as channel:
        call = channel.unary_unary("/meshwise.Echo/Call")
        for size in (1, 100, 100_000):
            for _ in range(20):  # each with a request id of its own
                answer = call(frame_payload(b"x" * size)[5:], metadata=(("x-plan", f"bytes={size};hops=1"),))
                assert len(answer) == len(frame_payload(bytes(size))) - 5
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=(("x-plan", "hops=2"),))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_recording_over_a_real_proxy_has_its_cpu_at_both_ends(sidecar: Sidecar) -> None:
    now_ns = time.monotonic_ns()
    window = Window(now_ns + 100_000_000, now_ns + 400_000_000, 100_000_000)
    with Recording(
        window, [CpuSampler({SOURCE: sidecar.process.pid})], [EnvoySampler(SOURCE, sidecar.fetch)]
    ) as recording:
        for _ in range(50):
            assert _ask(sidecar, "bytes=10") == 200
        rows = recording.result().to_pylist()
    cpu = [row for row in rows if row["metric"] == "cpu_ns"]
    assert cpu[0]["t_ns"] >= 0
    assert cpu[-1]["t_ns"] >= 300_000_000
    assert cpu[-1]["value"] > cpu[0]["value"]
    assert {row["value"] for row in rows if row["metric"] == "reachable"} == {1.0}
