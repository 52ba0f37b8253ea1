"""The client that asks exactly so many requests: numbers, concurrency, and what becomes of failures."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from tests.support.nodes import fresh_address, running_node

from meshwise.archive.schema import REQUESTS, conform
from meshwise.load.bounded import BoundedClient, answered_table
from meshwise.load.spec import LoadSpec
from meshwise.load.wire.seam import ErrorKind
from meshwise.service.spec import NodeSpec
from meshwise.study.model import SERVICE_PORTS, Arrivals, Protocol


def load(address: str, port: int, protocol: Protocol = Protocol.HTTP1, **more: object) -> LoadSpec:
    values: dict[str, object] = {
        "address": address, "port": port, "authority": "node-1.test", "protocol": protocol,
        "method": "POST", "path": "/meshwise.Echo/Call" if protocol is Protocol.GRPC else "/echo",
        "headers": (), "body_bytes": 3000, "rate_rps": 0.0, "arrivals": Arrivals.CLOSED, "seed": 1,
        "warmup_ns": 0, "duration_ns": 0, "connections": 3, "streams": 1, "timeout_ns": 2 * 10**9,
        "response_bytes": 700,
    }  # fmt: skip
    return LoadSpec(**{**values, **more})  # type: ignore[arg-type]


def client(spec: LoadSpec) -> BoundedClient:
    def dial() -> socket.socket:
        return socket.create_connection((spec.address, spec.port), 2)

    return BoundedClient(spec, dial, lambda: None)


@pytest.fixture(scope="module")
def node() -> Iterator[NodeSpec]:
    with running_node(NodeSpec("node-1", fresh_address(), work_rounds_per_us=1.0)) as running:
        yield running.spec


@pytest.mark.parametrize("protocol", list(Protocol))
def test_exactly_as_many_as_asked_on_every_protocol(node: NodeSpec, protocol: Protocol) -> None:
    streams = 4 if protocol in (Protocol.HTTP2, Protocol.GRPC) else 1
    spec = load(node.listen, SERVICE_PORTS[protocol], protocol, streams=streams)
    with client(spec) as asking:
        asking.open()
        for requests in (1, 7, 100, 0):
            found = asking.ask(requests)
            assert len(found) == requests
            assert {each.error for each in found} <= {ErrorKind.NONE}
        found = asking.ask(60)
        assert set(Counter(each.connection for each in found)) == {0, 1, 2}
        table = conform(answered_table(found, found[0].sent_ns), REQUESTS, "c000-p00")
        status = {Protocol.GRPC: 1000, Protocol.TCP: 0}.get(protocol, 200)
        assert set(table["status"].to_pylist()) == {status}
        assert set(table["error"].to_pylist()) == {""}
        assert table["intended_ns"][0].as_py() == 0


Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(serve: Serve) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)


def answering(times: int, end: str = "close") -> Serve:
    """Answers so many requests on a connection, then closes it, or says nothing more."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for _ in range(times):
                while b"x" not in connection.recv(65536):
                    pass
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            connection.recv(1)
            if end == "hang":
                threading.Event().wait(3)

    return serve


def test_a_connection_that_ends_fails_what_is_open_and_ends_the_window() -> None:
    with server(answering(3)) as (address, port):
        spec = load(address, port, connections=1, body_bytes=1)
        with client(spec) as asking:
            asking.open()
            found = asking.ask(10)
            assert [each.error for each in found] == [*[ErrorKind.NONE] * 3, ErrorKind.RESET]
            asking.open()  # takes its place
            assert len(asking.ask(3)) == 3


def test_silence_is_a_timeout_and_the_connection_is_replaced() -> None:
    with server(answering(1, "hang")) as (address, port):
        spec = load(address, port, connections=2, body_bytes=1, timeout_ns=400_000_000)
        with client(spec) as asking:
            asking.open()
            found = asking.ask(4)
            assert Counter(each.error for each in found) == {ErrorKind.NONE: 2, ErrorKind.TIMEOUT: 2}
            assert all(each.done_ns == -1 for each in found if each.error)
            asking.open()
            assert [each.error for each in asking.ask(2)] == [ErrorKind.NONE] * 2


def test_whoever_waits_can_end_it() -> None:
    def look() -> None:
        raise InterruptedError

    with server(answering(0, "hang")) as (address, port):
        spec = load(address, port, connections=1, body_bytes=1)
        with BoundedClient(spec, lambda: socket.create_connection((address, port)), look) as asking:
            asking.open()
            with pytest.raises(InterruptedError):
                asking.ask(1)
