"""Connection patterns: numbered, churned, fresh and resumed; and servers that refuse, reset and stall."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import hostile
from tests.support.loads import MS, Ran, load_spec, run_here
from tests.support.nodes import RunningNode, fresh_address, running_node
from tests.support.pki import Pki, make_pki

from meshwise.load import connection as connections
from meshwise.load.spec import LoadSpec, TlsSpec
from meshwise.service.spec import NodeSpec
from meshwise.study.model import Arrivals, Protocol

PROTOCOLS = (Protocol.HTTP1, Protocol.HTTP2, Protocol.GRPC, Protocol.TCP)


@pytest.fixture(scope="module")
def node() -> Iterator[RunningNode]:
    spec = NodeSpec("node-1", fresh_address(), work_rounds_per_us=2.0)
    with running_node(spec) as running:
        yield running


def at(node: RunningNode, protocol: Protocol, **changes: object) -> LoadSpec:
    path = "/meshwise.Echo/Call" if protocol is Protocol.GRPC else "/echo"
    spec = load_spec(node.spec.ports[protocol], protocol, address=node.address, path=path, method="POST")
    return dataclasses.replace(spec, **changes)  # type: ignore[arg-type]


def errors(ran: Ran) -> set[str]:
    return set(ran.errors()) - {""}


# --- a number of requests per connection -----------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("number", [1, 5])
def test_a_connection_ends_after_its_requests(
    node: RunningNode, protocol: Protocol, number: int, tmp_path: Path
) -> None:
    ran = run_here(at(node, protocol, requests_per_connection=number), tmp_path)
    assert errors(ran) == set()
    probe, unfinished = 1, 4
    assert 100 / number <= ran.report.connections_made - probe <= 100 / number + unfinished
    assert ran.report.connections_replaced >= 100 // number - unfinished
    assert ran.report.unsent_requests == 0


def test_streams_share_a_numbered_connection(node: RunningNode, tmp_path: Path) -> None:
    changes = {"requests_per_connection": 10, "connections": 2, "streams": 4, "rate_rps": 1000}
    ran = run_here(at(node, Protocol.HTTP2, **changes), tmp_path)
    assert errors(ran) == set()
    assert 50 <= ran.report.connections_made - 1 <= 52


def test_a_closed_loop_on_new_connections(node: RunningNode, tmp_path: Path) -> None:
    changes = {"requests_per_connection": 1, "arrivals": Arrivals.CLOSED, "duration_ns": 200 * MS}
    ran = run_here(at(node, Protocol.HTTP1, **changes), tmp_path)
    assert errors(ran) == set()
    assert ran.table.num_rows > 20
    assert ran.report.connections_made - 1 == ran.table.num_rows


def test_a_server_that_says_close_first(tmp_path: Path) -> None:
    def closing(sock: socket.socket) -> None:
        hostile.read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

    with hostile.hostile(closing) as port:
        ran = run_here(load_spec(port, requests_per_connection=3), tmp_path)
    assert errors(ran) <= {"reset"}  # the hostile server may reset before its answer is read
    assert ran.errors().count("") >= 90
    assert ran.report.connections_made - 1 == 100


# --- churn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_churn_replaces_connections_and_loses_nothing(
    node: RunningNode, protocol: Protocol, tmp_path: Path
) -> None:
    ran = run_here(at(node, protocol, churn_per_s=100), tmp_path)
    assert errors(ran) == set()
    most = ran.wall_s * 100 + 1  # a busy machine ends the run later
    assert 35 <= ran.report.connections_replaced <= most
    assert ran.report.connections_made >= ran.report.connections_replaced
    assert {0, 1, 2, 3} == set(ran.table["connection"].to_pylist())


def test_churn_that_cannot_be_had_is_said(node: RunningNode, tmp_path: Path) -> None:
    ran = run_here(at(node, Protocol.HTTP1, churn_per_s=50_000, connections=2), tmp_path)
    assert any("connections were replaced where 25000 should" in note for note in ran.report.notes)


# --- TLS, fresh and resumed --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@contextlib.contextmanager
def tls_server(pki: Pki, version: ssl.TLSVersion, delay_s: float = 0.0) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_cert, pki.server_key)
    context.minimum_version = context.maximum_version = version

    def serve(sock: socket.socket) -> None:
        time.sleep(delay_s)
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True) as tls:
            while True:
                hostile.read_request(tls)
                tls.sendall(hostile.OK_HTTP1)

    with hostile.hostile(serve) as port:
        yield port


VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: str(version.name))
@pytest.mark.parametrize("resume", [False, True])
def test_new_tls_connections_fresh_and_resumed(
    pki: Pki, version: ssl.TLSVersion, resume: bool, tmp_path: Path
) -> None:
    tls = TlsSpec("localhost", pki.ca)
    changes = {"requests_per_connection": 1, "resume_tls": resume, "rate_rps": 100, "connections": 8}
    with tls_server(pki, version) as port:
        ran = run_here(load_spec(port, tls=tls, **changes), tmp_path)
    assert errors(ran) == set()
    assert ran.report.connections_made - 1 == 50
    assert ran.report.tls.startswith(version.name.replace("_", "."))
    if resume:
        assert 40 <= ran.report.tls_resumed <= 50
        assert ran.report.tls_resumed_us.p50 is not None
    else:
        assert (ran.report.tls_resumed, ran.report.tls_resumed_us.p50) == (0, None)


def test_the_set_up_is_in_the_response_time_and_not_in_the_lateness(pki: Pki, tmp_path: Path) -> None:
    changes = {"requests_per_connection": 1, "connections": 32, "rate_rps": 100, "duration_ns": 300 * MS}
    with tls_server(pki, ssl.TLSVersion.TLSv1_3, delay_s=0.05) as port:
        ran = run_here(load_spec(port, tls=TlsSpec("localhost", pki.ca), **changes), tmp_path)
    assert errors(ran) == set()
    assert (ran.report.response_time_us.p50 or 0) > 50_000
    assert (ran.report.service_time_us.p50 or 0) > 50_000
    assert (ran.report.lateness_us.p50 or 0) < 50_000
    assert (ran.report.tls_us.p50 or 0) > 50_000


# --- what goes wrong ---------------------------------------------------------------------------------

SHORT = {"rate_rps": 100, "duration_ns": 100 * MS, "timeout_ns": 300 * MS, "requests_per_connection": 1}


@pytest.mark.parametrize("behaviour", hostile.HTTP1, ids=lambda behaviour: str(behaviour.__name__))
def test_new_connections_to_servers_that_misbehave(behaviour: hostile.Behaviour, tmp_path: Path) -> None:
    with hostile.hostile(behaviour) as port:
        ran = run_here(load_spec(port, **SHORT), tmp_path)
    assert ran.table.num_rows == 10
    assert all(ran.errors())
    assert ran.wall_s < 5


@pytest.mark.parametrize("name", hostile.HTTP2)
def test_churn_and_new_streams_with_servers_that_misbehave(name: str, tmp_path: Path) -> None:
    changes = {**SHORT, "requests_per_connection": 0, "churn_per_s": 200}
    with hostile.hostile(hostile.HTTP2[name]) as port:
        ran = run_here(load_spec(port, Protocol.HTTP2, **changes), tmp_path)
    assert ran.table.num_rows == 10
    assert all(ran.errors())
    assert ran.wall_s < 5


@pytest.mark.parametrize("arrivals", [Arrivals.CONSTANT, Arrivals.CLOSED])
def test_a_server_that_goes_away_refuses_each_request(arrivals: Arrivals, tmp_path: Path) -> None:
    gone = socket.create_server(("127.0.0.1", 0))
    port = gone.getsockname()[1]

    def leave(engine: object) -> None:
        gone.close()

    spec = load_spec(port, requests_per_connection=1, arrivals=arrivals, duration_ns=300 * MS)
    ran = run_here(spec, tmp_path, meanwhile=leave)
    assert errors(ran) <= {"connect", "reset", "timeout"}
    assert "connect" in errors(ran)
    assert ran.report.setup_failures["connect"] > 0
    if arrivals is Arrivals.CLOSED:
        assert ran.table.num_rows < 200, "a closed loop must not spin on a server that refuses"
    else:
        assert ran.table.num_rows == 60


def test_a_machine_without_ports_left_is_the_instrument_s_limit(
    node: RunningNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = connections.tcp_socket, iter(range(10**9))

    def scarce(address: str, port: int) -> socket.socket:
        if next(calls) % 3 == 2:
            raise OSError(errno.EADDRNOTAVAIL, "no port left")
        return real(address, port)

    monkeypatch.setattr(connections, "tcp_socket", scarce)
    ran = run_here(at(node, Protocol.HTTP1, requests_per_connection=1), tmp_path)
    assert errors(ran) == {"connect"}
    assert ran.report.errors["connect"] == ran.report.setup_exhausted > 20
    assert ran.report.limited_by == "instrument"
    assert any("no port, descriptor or memory" in note for note in ran.report.notes)


def test_what_finds_no_free_connection_in_time_is_counted(tmp_path: Path) -> None:
    with hostile.hostile(hostile.never_answers) as port:
        changes = {"requests_per_connection": 1, "connections": 1, "timeout_ns": 200 * MS}
        ran = run_here(load_spec(port, **changes), tmp_path)
    assert ran.table.num_rows == 100
    assert ran.report.errors == {"timeout": 100}
    assert 50 < ran.report.unsent_requests < 100
    assert ran.report.queued_requests >= 10, "what waited for a slot is not the instrument's lateness"
    assert any("were never sent" in note for note in ran.report.notes)


def test_many_kept_connections(node: RunningNode, tmp_path: Path) -> None:
    ran = run_here(at(node, Protocol.HTTP1, connections=1500, rate_rps=1000), tmp_path)
    assert errors(ran) == set()
    assert ran.report.connections_made == 1500
    assert len(set(ran.table["connection"].to_pylist())) == ran.table.num_rows
