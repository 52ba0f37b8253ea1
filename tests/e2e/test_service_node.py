"""Real nodes as processes, called by real clients: http.client, nghttp, curl, grpcio."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from tests.support import hostile
from tests.support.loads import load_spec, run_here
from tests.support.nodes import RunningNode, chain, fresh_address, running_node

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block
from meshwise.service import grpc_framing
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.study.model import SERVICE_PORTS, Protocol

DEADLINE_NS = 300_000_000


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[RunningNode]]:
    with chain(3) as running:
        yield running


@pytest.fixture(scope="module")
def fan() -> Iterator[RunningNode]:
    """A node with three leaves, the third of which does not exist."""
    with ExitStack() as stack:
        there = [stack.enter_context(running_node(NodeSpec(name, fresh_address()))) for name in ("l1", "l2")]
        leaves = [Upstream(leaf.address, leaf.spec.name) for leaf in there]
        leaves.append(Upstream("127.0.0.1", "l3", _nobody()))
        yield stack.enter_context(running_node(NodeSpec("root", fresh_address(), leaves=tuple(leaves))))


def _nobody() -> dict[Protocol, int]:
    """Ports on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return dict.fromkeys(Protocol, port)


def _http1(node: RunningNode, plan: str, body: bytes | None = None, **fields: str) -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection(node.address, node.spec.ports[Protocol.HTTP1], timeout=10)
    try:
        connection.request("POST" if body else "GET", "/echo", body, {"x-plan": plan, **fields})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("x-reason", "")
    finally:
        connection.close()


def _curl_http2(node: RunningNode, plan: str, *more: str) -> tuple[int, int, str]:
    command = ["curl", "-sS", "--http2-prior-knowledge", "--max-time", "10", "-o", os.devnull, "-D", "-",
               "-w", "%{http_code} %{size_download}", "-H", f"x-plan: {plan}", *more,
               node.url(protocol=Protocol.HTTP2)]  # fmt: skip
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    headers, _, numbers = out.rpartition("\n")
    reason = next((line[10:].strip() for line in headers.splitlines() if line.startswith("x-reason:")), "")
    status, size = numbers.split()
    return int(status), int(size), reason


def _grpc(node: RunningNode, plan: str, payload: bytes = b"") -> bytes:
    with grpc.insecure_channel(f"{node.address}:{node.spec.ports[Protocol.GRPC]}") as channel:
        call = channel.unary_unary("/meshwise.Echo/Call")
        answer: bytes = call(
            grpc_framing.frame_payload(payload)[5:], metadata=(("x-plan", plan),), timeout=10
        )
        return answer


needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed: apt install curl")
needs_nghttp = pytest.mark.skipif(
    not shutil.which("h2load"), reason="h2load is not installed: apt install nghttp2-client"
)


# --- echo, chain, fan-out --------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["bytes=1024", "bytes=1024;hops=1", "bytes=3000000;hops=2;work_us=20"])
@pytest.mark.parametrize("body", [None, b"x" * 100_000])
def test_a_chain_over_http1(nodes: list[RunningNode], plan: str, body: bytes | None) -> None:
    status, answer, _ = _http1(nodes[0], plan, body, authorization="Bearer t")
    assert status == 200
    assert len(answer) == int(plan.split(";")[0].partition("=")[2])


@needs_curl
@pytest.mark.parametrize("plan", ["bytes=1024", "bytes=1024;hops=1", "bytes=3000000;hops=2"])
@pytest.mark.parametrize("more", [(), ("--data-binary", "@" + sys.executable)])
def test_a_chain_over_http2(nodes: list[RunningNode], plan: str, more: tuple[str, ...]) -> None:
    status, size, _ = _curl_http2(nodes[0], plan, *more)
    assert (status, size) == (200, int(plan.split(";")[0].partition("=")[2]))


@pytest.mark.parametrize("plan", ["bytes=1024", "bytes=1024;hops=1", "bytes=3000000;hops=2"])
@pytest.mark.parametrize("payload", [b"", b"x" * 100_000])
def test_a_chain_over_grpc(nodes: list[RunningNode], plan: str, payload: bytes) -> None:
    size = int(plan.split(";")[0].partition("=")[2])
    answer = _grpc(nodes[0], plan, payload)
    assert answer == grpc_framing.frame_payload(answer[-size:])[5:]


def test_the_chain_really_passes_every_node(nodes: list[RunningNode]) -> None:
    """The last node has no next one, so one hop too many fails there and is reported at every node before."""
    status, _, reason = _http1(nodes[0], "hops=3")
    assert (status, reason) == (502, "upstream status 502")
    with pytest.raises(grpc.RpcError) as caught:
        _grpc(nodes[0], "hops=3")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "upstream grpc-status 14"


@needs_curl
def test_a_fan_calls_all_its_leaves(fan: RunningNode) -> None:
    assert _http1(fan, "fan=2;bytes=5")[:2] == (200, b' !"#$')
    assert _curl_http2(fan, "fan=2;bytes=5")[0] == 200
    assert _grpc(fan, "fan=2;bytes=5") == grpc_framing.frame_payload(b' !"#$')[5:]
    status, _, reason = _http1(fan, "fan=3")  # the third does not exist
    assert (status, reason) == (502, "connect: ECONNREFUSED Connection refused")
    assert _curl_http2(fan, "fan=3")[2] == "connect: ECONNREFUSED Connection refused"
    assert _http1(fan, "fan=4")[2] == "root has 3 leaves"


def test_many_callers_at_once_keep_few_connections(nodes: list[RunningNode]) -> None:
    with ThreadPoolExecutor(16) as pool:
        plans = [f"bytes={size};hops=1" for size in range(200)]
        answers = list(pool.map(lambda plan: _http1(nodes[0], plan), plans))
        grpc_answers = list(pool.map(lambda plan: _grpc(nodes[0], plan), plans[128:]))
    assert [len(answer) for answer in grpc_answers] == [size + 3 for size in range(128, 200)]
    assert [len(answer) for _, answer, _ in answers] == list(range(200))
    pid = nodes[0].process.pid
    to_next = _connections(pid, nodes[1].address)
    assert 1 <= to_next[SERVICE_PORTS[Protocol.HTTP1]] <= 16
    assert 1 <= to_next[SERVICE_PORTS[Protocol.GRPC]] <= 2


def _connections(pid: int, address: str) -> dict[int, int]:
    """Established TCP connections of the machine to each port of an address."""
    packed = socket.inet_aton(address)[::-1].hex().upper()
    counts: dict[int, int] = {}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        remote, state = line.split()[2:4]
        if remote.startswith(packed) and state == "01":
            port = int(remote.partition(":")[2], 16)
            counts[port] = counts.get(port, 0) + 1
    return counts


@needs_nghttp
@pytest.mark.parametrize("hops", [0, 1])
def test_h2load_finds_no_fault(nodes: list[RunningNode], hops: int) -> None:
    command = ["h2load", "-c8", "-m16", "-n4000", "-H", f"x-plan: bytes=1024;hops={hops}",
               nodes[0].url(protocol=Protocol.HTTP2)]  # fmt: skip
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "4000 succeeded, 0 failed" in out, out


@pytest.mark.skipif(not shutil.which("nghttp"), reason="nghttp is not installed: apt install nghttp2-client")
def test_nghttp_with_small_windows_and_padding(nodes: list[RunningNode]) -> None:
    command = ["nghttp", "-n", "-s", "--no-dep", "-w", "14", "-W", "14", "-b", "50", "-m", "5",
               "--timeout", "10", "-H", "x-plan: bytes=100000;hops=2",
               nodes[0].url(protocol=Protocol.HTTP2)]  # fmt: skip
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert out.count(" 200 ") == 5, out


# --- upstreams that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", hostile.HTTP1, ids=lambda one: one.__name__)
def test_a_hostile_next_hop_over_http1_is_a_502_in_time(behaviour: hostile.Behaviour) -> None:
    with hostile.hostile(behaviour) as port:
        upstream = Upstream("127.0.0.1", "bad", dict.fromkeys(Protocol, port))
        with running_node(NodeSpec("n", fresh_address(), next=upstream, deadline_ns=DEADLINE_NS)) as node:
            assert [_http1(node, "hops=1")[0] for _ in range(3)] == [502] * 3
            assert _http1(node, "bytes=3")[:2] == (200, b' !"')


@pytest.mark.parametrize("name", hostile.HTTP2)
def test_a_hostile_next_hop_over_grpc_is_unavailable_in_time(name: str) -> None:
    with hostile.hostile(hostile.HTTP2[name]) as port:
        upstream = Upstream("127.0.0.1", "bad", dict.fromkeys(Protocol, port))
        with running_node(NodeSpec("n", fresh_address(), next=upstream, deadline_ns=DEADLINE_NS)) as node:
            for _ in range(2):
                with pytest.raises(grpc.RpcError) as caught:
                    _grpc(node, "hops=1")
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, caught.value.details()
            assert _grpc(node, "bytes=1") == b"\x0a\x01 "


def test_a_next_hop_that_closes_kept_connections_is_no_failure() -> None:
    with hostile.hostile(hostile.closes_after_each_answer) as port:
        upstream = Upstream("127.0.0.1", "closing", dict.fromkeys(Protocol, port))
        with running_node(NodeSpec("n", fresh_address(), next=upstream)) as node:
            assert [_http1(node, "hops=1")[0] for _ in range(20)] == [200] * 20


def test_a_next_hop_that_restarts_is_found_again() -> None:
    address = fresh_address()
    upstream = Upstream(address, "back")
    with running_node(NodeSpec("front", fresh_address(), next=upstream)) as node:
        for _ in range(2):
            with running_node(NodeSpec("back", address)) as back:
                assert _http1(node, "hops=1")[0] == 200
                assert _grpc(node, "hops=1;bytes=1") == b"\x0a\x01 "
                back.process.kill()
                back.process.wait()
            assert _http1(node, "hops=1")[0] == 502
            with pytest.raises(grpc.RpcError):
                _grpc(node, "hops=1")


# --- callers that misbehave ------------------------------------------------------------------------


def _dial(node: RunningNode, protocol: Protocol = Protocol.HTTP1) -> socket.socket:
    return socket.create_connection((node.address, node.spec.ports[protocol]), timeout=10)


def test_a_caller_that_shuts_its_side_still_gets_its_answer(nodes: list[RunningNode]) -> None:
    with _dial(nodes[0]) as sock:
        sock.sendall(b"GET /echo HTTP/1.1\r\nhost: a\r\nx-plan: hops=2;bytes=3\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: sock.recv(4096), b"")).endswith(b' !"')


def test_pipelined_requests_with_long_answers_are_all_answered(nodes: list[RunningNode]) -> None:
    with _dial(nodes[0]) as sock:
        sock.sendall(b"GET /echo HTTP/1.1\r\nhost: a\r\nx-plan: bytes=100000\r\n\r\n" * 200)
        sock.shutdown(socket.SHUT_WR)
        received = sum(map(len, iter(lambda: sock.recv(1 << 20), b"")))
    assert 200 * 100_000 < received < 200 * 100_200


def test_a_refusal_reaches_a_caller_that_is_still_sending(nodes: list[RunningNode]) -> None:
    with _dial(nodes[0]) as sock:
        sock.sendall(b"GET /echo HTTP/1.1\r\n" + b"a" * 100_000)
        assert sock.recv(4096).startswith(b"HTTP/1.1 431 ")


def test_a_caller_that_never_reads_is_not_served_without_end(nodes: list[RunningNode]) -> None:
    request = b"GET /echo HTTP/1.1\r\nhost: a\r\nx-plan: bytes=1000000\r\n\r\n"
    before = _rss_bytes(nodes[2].process.pid)
    with _dial(nodes[2]) as sock:
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.sendall(request * 10**6)
        assert _rss_bytes(nodes[2].process.pid) - before < 200 << 20
    assert _http1(nodes[2], "bytes=1")[0] == 200


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_noise_on_every_port_hurts_nobody_else(nodes: list[RunningNode]) -> None:
    for protocol in Protocol:
        for noise in (
            b"\0" * 1000,
            b"\r\n" * 1000,
            os.urandom(5000),
            frames.PREFACE + os.urandom(2000),
            b"x",
        ):
            with _dial(nodes[0], protocol) as sock:
                sock.sendall(noise)
    assert _http1(nodes[0], "bytes=1;hops=2")[0] == 200
    assert _grpc(nodes[0], "bytes=1;hops=2") == b"\x0a\x01 "


# --- start and end ----------------------------------------------------------------------------------


def test_it_ends_cleanly_on_sigterm_with_connections_open() -> None:
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/echo")]
    with ExitStack() as stack:
        node = stack.enter_context(running_node(NodeSpec("n", fresh_address())))
        kept = stack.enter_context(_dial(node))
        h2 = stack.enter_context(_dial(node, Protocol.HTTP2))
        kept.sendall(b"GET /echo HTTP/1.1\r\nhost: a\r\n\r\n")
        assert kept.recv(4096)
        request = frames.headers_frames(1, encode_block(fields), end_stream=True)
        h2.sendall(frames.PREFACE + frames.settings({}) + request)
        received = h2.recv(4096)
        node.process.send_signal(signal.SIGTERM)
        assert kept.recv(4096) == b""
        received += b"".join(iter(lambda: h2.recv(4096), b""))
        assert frames.GOAWAY in [kind for kind, *_ in frames.split(received)[0]]
        kept.close()
        h2.close()
        assert node.process.wait(5) == 0
        assert node.process.stderr is not None
        assert node.process.stderr.read() == b""


def test_a_port_in_use_is_an_error_with_a_remedy() -> None:
    with running_node(NodeSpec("n", fresh_address())) as node:
        file = Path(f"/proc/{node.process.pid}/cmdline").read_bytes().split(b"\0")[-2].decode()
        command = [sys.executable, "-m", "meshwise.service", "--spec", file]
        second = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert second.returncode == 3
        assert "MW902" in second.stderr
        assert "hint:" in second.stderr


def test_a_broken_spec_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "node.json"
    file.write_text("{")
    command = [sys.executable, "-m", "meshwise.service", "--spec", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert "MW901" in ended.stderr
    assert ended.returncode == 3


# --- opaque TCP ------------------------------------------------------------------------------------


def test_opaque_tcp_by_the_instrument_and_by_hand(nodes: list[RunningNode], tmp_path: Path) -> None:
    address, port = nodes[0].address, nodes[0].spec.ports[Protocol.TCP]
    ran = run_here(
        load_spec(
            port, Protocol.TCP, address=address, body_bytes=100_000, response_bytes=70_000, connections=3,
            rate_rps=100, timeout_ns=5_000_000_000,
        ),
        tmp_path,
    )  # fmt: skip
    assert (ran.report.requests, ran.report.errors) == (50, {})
    assert set(ran.table["bytes"].to_pylist()) == {70_000}
    assert set(ran.table["status"].to_pylist()) == {0}
    with socket.create_connection((address, port), 10) as other:
        other.sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n")
        assert other.recv(1) == b"", "closed, without a word"
