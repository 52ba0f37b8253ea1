"""gRPC streams over sockets: against the node, through a real Envoy, and with servers that break off."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import hostile
from tests.support.envoy import envoy
from tests.support.loads import MS, Ran, load_spec, run_here
from tests.support.nodes import RunningNode, fresh_address, running_node

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block
from meshwise.service.behaviour import STREAM_PATHS
from meshwise.service.spec import NodeSpec
from meshwise.study.model import Protocol
from meshwise.study.protocol import Streaming

KINDS = (Streaming.CLIENT, Streaming.SERVER, Streaming.BIDI)


@pytest.fixture(scope="module")
def node() -> Iterator[RunningNode]:
    with running_node(NodeSpec("node-1", fresh_address(), work_rounds_per_us=2.0)) as running:
        yield running


def streams(address: str, port: int, kind: Streaming, directory: Path, **changes: object) -> Ran:
    values: dict[str, object] = {
        "address": address, "path": STREAM_PATHS[kind], "method": "POST", "streaming": kind, "messages": 5,
        "body_bytes": 100, "response_bytes": 200, "streams": 4, "rate_rps": 100,
        "headers": (("x-plan", "bytes={response_bytes};messages=5"),), "timeout_ns": 2000 * MS,
    }  # fmt: skip
    return run_here(load_spec(port, Protocol.GRPC, **{**values, **changes}), directory)


def judge(ran: Ran, kind: Streaming, messages: int = 5) -> None:
    assert set(ran.errors()) == {""}
    assert ran.table["messages"].to_pylist() == [messages] * 50
    assert ran.report.messages == 50 * messages
    framed = 200 + 5 + 3
    assert set(ran.table["bytes"].to_pylist()) == {framed * (1 if kind is Streaming.CLIENT else messages)}
    assert ran.report.response_time_us.p50 is not None


@pytest.mark.parametrize("kind", KINDS)
def test_streams_with_the_node(node: RunningNode, kind: Streaming, tmp_path: Path) -> None:
    judge(streams(node.address, node.spec.ports[Protocol.GRPC], kind, tmp_path), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_streams_on_connections_that_are_replaced(node: RunningNode, kind: Streaming, tmp_path: Path) -> None:
    port = node.spec.ports[Protocol.GRPC]
    ran = streams(node.address, port, kind, tmp_path, requests_per_connection=3)
    judge(ran, kind)
    assert ran.report.connections_made > 16


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_messages_may_be_drawn(node: RunningNode, kind: Streaming, tmp_path: Path) -> None:
    sizes = {"request_sizes": "uniform(1B, 20KiB)", "response_sizes": "uniform(1B, 20KiB)"}
    ran = streams(node.address, node.spec.ports[Protocol.GRPC], kind, tmp_path, **sizes)
    assert set(ran.errors()) == {""}
    assert ran.table["messages"].to_pylist() == [5] * 50
    assert len(set(ran.table["bytes"].to_pylist())) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_large_messages_in_windows(node: RunningNode, kind: Streaming, tmp_path: Path) -> None:
    changes = {"body_bytes": 2 * 2**20, "response_bytes": 2 * 2**20, "rate_rps": 10, "timeout_ns": 10**10}
    ran = streams(node.address, node.spec.ports[Protocol.GRPC], kind, tmp_path, **changes)
    assert set(ran.errors()) == {""}
    assert ran.table["messages"].to_pylist() == [5] * 5


# --- through Envoy -----------------------------------------------------------------------------------


@contextlib.contextmanager
def proxied(node: RunningNode, directory: Path) -> Iterator[tuple[str, int]]:
    """An Envoy that speaks HTTP/2 on both sides."""
    address, port = fresh_address(), 15008
    http2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }}  # fmt: skip

    def socket_address(host: str, number: int) -> dict[str, object]:
        return {"address": {"socket_address": {"address": host, "port_value": number}}}

    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "node", "timeout": "0s"}}],
        }]},
        "http_filters": [{
            "name": "router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    }  # fmt: skip
    config = {"static_resources": {
        "listeners": [{
            **socket_address(address, port),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }],
        "clusters": [{
            "name": "node", "type": "STATIC", "typed_extension_protocol_options": http2,
            "load_assignment": {"cluster_name": "node", "endpoints": [{"lb_endpoints": [
                {"endpoint": socket_address(node.address, node.spec.ports[Protocol.GRPC])}
            ]}]},
        }],
    }}  # fmt: skip
    path = directory / "envoy.json"
    path.write_text(json.dumps(config))
    argv = [envoy(), "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(address, port)
            yield address, port
        finally:
            process.terminate()


def _wait_for(address: str, port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.02)
    raise AssertionError("Envoy did not start")


def test_streams_through_envoy(node: RunningNode, tmp_path: Path) -> None:
    with proxied(node, tmp_path) as (address, port):
        for kind in KINDS:
            directory = tmp_path / kind
            directory.mkdir()
            judge(streams(address, port, kind, directory), kind)
        ran = streams(address, port, Streaming.BIDI, tmp_path, churn_per_s=50)
        judge(ran, Streaming.BIDI)
        assert ran.report.connections_replaced > 10


# --- servers that break off ----------------------------------------------------------------------------

_HEAD = encode_block([(":status", "200"), ("content-type", "application/grpc")])
_MESSAGE = b"\0\0\0\0\2ok"


def _one_message(stream_id: int) -> bytes:
    head = frames.headers_frames(stream_id, _HEAD, end_stream=False)
    return head + frames.data_frames(stream_id, _MESSAGE, end_stream=False)


def _closes_mid_stream(sock: socket.socket) -> None:
    peer = hostile.Http2Peer(sock)
    sock.sendall(_one_message(peer.next_request()))
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(65536):
        pass


def _resets_mid_stream(sock: socket.socket) -> None:
    peer = hostile.Http2Peer(sock)
    sock.sendall(_one_message(peer.next_request()))
    sock.recv(65536)
    hostile.reset(sock)


def _rst_mid_stream(sock: socket.socket) -> None:
    peer = hostile.Http2Peer(sock)
    while True:
        stream_id = peer.next_request()
        sock.sendall(_one_message(stream_id) + frames.rst_stream(stream_id, frames.INTERNAL_ERROR))


def _half_a_message(sock: socket.socket) -> None:
    peer = hostile.Http2Peer(sock)
    while True:
        stream_id = peer.next_request()
        sock.sendall(frames.headers_frames(stream_id, _HEAD, end_stream=False))
        sock.sendall(frames.data_frames(stream_id, _MESSAGE[:6], end_stream=False))


SHORT = {"rate_rps": 100, "duration_ns": 100 * MS, "timeout_ns": 300 * MS, "streams": 1}


@pytest.mark.parametrize(
    ("behaviour", "kind", "most_messages"),
    [
        (_closes_mid_stream, "reset", 1),
        (_resets_mid_stream, "reset", 1),
        (_rst_mid_stream, "rst_stream", 1),
        (_half_a_message, "timeout", 0),
    ],
)
@pytest.mark.parametrize("per_connection", [0, 1])
def test_a_stream_that_is_broken_off_is_an_error_with_what_came(
    behaviour: hostile.Behaviour, kind: str, most_messages: int, per_connection: int, tmp_path: Path
) -> None:
    with hostile.hostile(behaviour) as port:
        changes = {**SHORT, "requests_per_connection": per_connection}
        ran = streams("127.0.0.1", port, Streaming.BIDI, tmp_path, **changes)
    assert ran.table.num_rows == 10
    assert all(ran.errors())
    assert kind in ran.errors()
    assert max(ran.table["messages"].to_pylist()) == most_messages
    assert ran.report.messages == 0, "failed streams are not counted as good ones"
    assert ran.wall_s < 5


def test_an_answer_after_the_client_gave_up_is_not_taken_for_another_s(tmp_path: Path) -> None:
    done = encode_block([("grpc-status", "0")])

    def late(sock: socket.socket) -> None:
        peer = hostile.Http2Peer(sock)
        for number in range(10**6):
            stream_id = peer.next_request()
            if number == 0:
                time.sleep(0.2)  # beyond the time-out: the stream has been cancelled by then
            whole = _one_message(stream_id) + frames.headers_frames(stream_id, done, end_stream=True)
            sock.sendall(whole)

    changes = {"messages": 1, "connections": 1, "timeout_ns": 100 * MS, "duration_ns": 600 * MS}
    with hostile.hostile(late) as port:
        ran = streams("127.0.0.1", port, Streaming.SERVER, tmp_path, rate_rps=50, **changes)
    assert set(ran.errors()) == {"", "timeout"}
    assert ran.errors()[-1] == ""
    assert ran.report.connections_made == 1, "a cancelled stream costs no connection"
    good = [row for row in ran.table.to_pylist() if not row["error"]]
    assert all((row["messages"], row["bytes"], row["status"]) == (1, len(_MESSAGE), 1000) for row in good)
