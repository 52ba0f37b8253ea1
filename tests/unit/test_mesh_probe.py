"""The prober against peers that answer, refuse, answer wrongly or never, on a socket pair or loopback."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.mesh_samples import CELL

from meshwise.load.wire import blocks, frames
from meshwise.mesh.exchange import ask
from meshwise.mesh.expectations import CallOutcome, Meaning, What, Who, expectations
from meshwise.mesh.identity import CertificateAuthority, IdentityFiles, make_key, store
from meshwise.mesh.istio.caller import SIGNS
from meshwise.mesh.probe import GREETINGS, Ask, ProbeAnswer, TlsAs, check_of, variant
from meshwise.service.plan import Plan
from meshwise.study.model import LADDER, KeyType, Layer, Protocol

HTTP1 = Ask(Protocol.HTTP1, "host:8080", "GET", "/echo", (("x-tenant", "blue"),))
HTTP2 = replace(HTTP1, protocol=Protocol.HTTP2)
GRPC = Ask(Protocol.GRPC, "host:8082", "POST", "/meshwise.Echo/Call", ())
POSTGRES, REDIS = (Ask(Protocol.TCP, "", "", "", (), greeting=GREETINGS[port]) for port in (5432, 6379))

Peer = Callable[[socket.socket], None]


@contextmanager
def talking_to(peer: Peer) -> Iterator[Callable[[], socket.socket]]:
    """A connection to a peer that runs in a thread and closes at its end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(2.0)

    def run() -> None:
        with theirs:
            peer(theirs)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: ours
    finally:
        ours.close()
        thread.join()


def http1(head: bytes) -> Peer:
    def peer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head)

    return peer


def http2(fields: list[tuple[str, str]], trailers: list[tuple[str, str]] | None = None) -> Peer:
    def peer(connection: socket.socket) -> None:
        connection.recv(65536)
        answer = frames.settings({}) + frames.ping()
        answer += frames.headers_frames(
            1, blocks.encode_block(fields), end_stream=not trailers, frame_bytes=9
        )
        if trailers:
            answer += frames.data_frames(1, b"message", end_stream=False)
            answer += frames.headers_frames(1, blocks.encode_block(trailers), end_stream=True)
        for start in range(0, len(answer), 7):  # at any cut
            connection.sendall(answer[start : start + 7])
        connection.recv(65536)

    return peer


@pytest.mark.parametrize(
    ("request_", "peer", "seen"),
    [
        (HTTP1, http1(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), CallOutcome.OK),
        (HTTP1, http1(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n"), CallOutcome.FORBIDDEN),
        (HTTP1, http1(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"), CallOutcome.UNAUTHENTICATED),
        (HTTP1, http1(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"), CallOutcome.OTHER),
        (HTTP1, http1(b""), CallOutcome.CLOSED),
        (HTTP1, http1(b"nonsense\r\n\r\n"), CallOutcome.OTHER),
        (HTTP1, http1(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"), CallOutcome.OTHER),
        (HTTP2, http2([(":status", "200"), ("x", "y" * 40)]), CallOutcome.OK),
        (HTTP2, http2([(":status", "403")]), CallOutcome.FORBIDDEN),
        (HTTP2, http1(frames.settings({}) + frames.rst_stream(1, 2)), CallOutcome.CLOSED),
        (HTTP2, http1(frames.goaway(0, 2)), CallOutcome.CLOSED),
        (HTTP2, http1(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(64)), CallOutcome.OTHER),
        (GRPC, http2([(":status", "200")], [("grpc-status", "0")]), CallOutcome.OK),
        (
            GRPC,
            http2([(":status", "200"), ("grpc-status", "7"), ("grpc-message", "RBAC")]),
            CallOutcome.FORBIDDEN,
        ),
        (GRPC, http2([(":status", "200"), ("grpc-status", "16")]), CallOutcome.UNAUTHENTICATED),
        (GRPC, http2([(":status", "200"), ("grpc-status", "14")]), CallOutcome.OTHER),
        (GRPC, http2([(":status", "200")]), CallOutcome.OTHER),
        (GRPC, http2([(":status", "403")]), CallOutcome.FORBIDDEN),
        (HTTP1, http1(b'HTTP/1.1 400 No\r\ncontent-length: 14\r\n\r\n{"error":"no"}'), CallOutcome.DECLINED),
        (HTTP1, http1(b"HTTP/1.1 400 No\r\ncontent-length: 2\r\n\r\nno"), CallOutcome.OTHER),
        (HTTP2, http2([(":status", "400")], [("x", "y")]), CallOutcome.OTHER),
        (
            GRPC,
            http2([(":status", "200"), ("grpc-status", "3"), ("grpc-message", '%7B"error":"no"%7D')]),
            CallOutcome.DECLINED,
        ),
        (GRPC, http2([(":status", "200"), ("grpc-status", "3"), ("grpc-message", "no")]), CallOutcome.OTHER),
        (POSTGRES, http1(b"N"), CallOutcome.OK),
        (POSTGRES, http1(b"HTTP/1.1 400 Bad Request"), CallOutcome.OTHER),
        (POSTGRES, http1(b""), CallOutcome.CLOSED),
        (REDIS, http1(b"-NOAUTH Authentication required.\r\n"), CallOutcome.OK),
        (REDIS, http1(b"+PONG\r\n"), CallOutcome.OK),
        (REDIS, http1(b"-ERR\r\n"), CallOutcome.OTHER),
        (REDIS, http1(b"+PO"), CallOutcome.CLOSED),
    ],
)
def test_answers(request_: Ask, peer: Peer, seen: CallOutcome) -> None:
    with talking_to(peer) as connect:
        assert ask(connect, request_).seen is seen


def test_silence_and_refusal_are_answers() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.01)
    with theirs:
        assert ask(lambda: ours, HTTP1).seen is CallOutcome.TIMEOUT

    def refuse() -> socket.socket:
        raise ConnectionRefusedError("no")

    assert ask(refuse, HTTP1).seen is CallOutcome.CLOSED


# --- TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, IdentityFiles]:
    folder: Path = tmp_path_factory.mktemp("identities")
    authority, foreign = (CertificateAuthority(key_type=KeyType.ECDSA_P256) for _ in range(2))
    key = make_key(KeyType.ECDSA_P256)
    return {
        name: store(issuer.issue("backend", name, key), authority.root_pem, folder, name)
        for name, issuer in {"server": authority, "client": authority, "foreign": foreign}.items()
    }


def tls_server(files: IdentityFiles, handshakes: int = 1) -> tuple[socket.socket, threading.Thread]:
    """Asks for a certificate, answers 200 to who has one; TLS 1.3 tells a refusal after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    context.load_verify_locations(files.root)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(handshakes):
            connection, _ = listener.accept()
            connection.settimeout(2.0)
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return listener, thread


def test_a_handshake_tells_version_names_and_resumption(identities: dict[str, IdentityFiles]) -> None:
    listener, thread = tls_server(identities["server"], 3)
    with listener:
        client = TlsAs(identities["client"], str(identities["client"].root))
        connect = lambda: socket.create_connection(listener.getsockname(), 2.0)  # noqa: E731
        first = ask(connect, HTTP1, client)
        assert first.handshake is not None
        second = ask(connect, HTTP1, replace(client, resume=True))
        thread.join()
    assert (first.seen, first.handshake.version, first.handshake.resumed) == (
        CallOutcome.OK,
        "TLSv1.3",
        False,
    )
    assert first.handshake.peer_ids == ("spiffe://cluster.local/ns/backend/sa/server",)
    assert first.handshake.peer_key == "ecdsa-p256"
    assert second.handshake is not None
    assert second.handshake.resumed


@pytest.mark.parametrize("who", ["foreign", None])
def test_a_certificate_that_is_not_accepted_fails_the_handshake(
    identities: dict[str, IdentityFiles], who: str | None
) -> None:
    listener, thread = tls_server(identities["server"])
    with listener:
        client = TlsAs(identities[who] if who else None, str(identities["server"].root))
        answer = ask(lambda: socket.create_connection(listener.getsockname(), 2.0), HTTP1, client)
        thread.join()
    assert answer.seen in (CallOutcome.TLS_FAILED, CallOutcome.CLOSED)


def test_tls_to_a_plaintext_port_fails_the_handshake(identities: dict[str, IdentityFiles]) -> None:
    with talking_to(http1(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as connect:
        answer = ask(connect, HTTP1, TlsAs(identities["client"], str(identities["client"].root)))
    assert answer.seen is CallOutcome.TLS_FAILED


# --- opaque TCP ---------------------------------------------------------------------------------

TCP = Ask(Protocol.TCP, "host:8083", "", "", (), response_bytes=5)


def echo(answer: bytes) -> Peer:
    def peer(connection: socket.socket) -> None:
        assert connection.recv(65536) == bytes(7) + b"\5"
        for place in range(len(answer)):
            connection.sendall(answer[place : place + 1])

    return peer


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (bytes(3) + b"\5" + bytes(4) + b"hello", CallOutcome.OK),
        (bytes(3) + b"\5" + bytes(4) + b"hell", CallOutcome.CLOSED),
        (b"", CallOutcome.CLOSED),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", CallOutcome.OTHER),
    ],
)
def test_what_an_opaque_port_answers(answer: bytes, seen: CallOutcome) -> None:
    with talking_to(echo(answer)) as connect:
        assert ask(connect, TCP).seen is seen


def test_opaque_tcp_has_one_request() -> None:
    cell = replace(CELL, protocol=Protocol.TCP)
    assert {variant(cell, what, "host:8083", Plan(bytes=5)) for what in What} == {TCP}


# --- requests and checks -----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [each for each in Protocol if each.layer is Layer.L7])
def test_each_variant_differs_in_one_thing(protocol: Protocol) -> None:
    cell = replace(CELL, protocol=protocol)
    allowed = variant(cell, What.ALLOWED, "host", Plan())
    for what in What:
        made = variant(cell, what, "host", Plan())
        differing = [
            name for name in ("method", "path", "headers") if getattr(made, name) != getattr(allowed, name)
        ]
        assert differing == {
            What.ALLOWED: [], What.OTHER_METHOD: ["method"], What.OTHER_PATH: ["path"],
        }.get(what, ["headers"])  # fmt: skip


def test_a_check_passes_only_with_the_sign_of_its_meaning() -> None:
    row = next(row for row in expectations(LADDER[2]) if row.who is Who.PLAINTEXT)
    assert row.meaning is Meaning.PEER_REFUSED
    assert check_of(row, ProbeAnswer(CallOutcome.CLOSED), SIGNS[Layer.L7]).passed
    failed = check_of(row, ProbeAnswer(CallOutcome.OK), SIGNS[Layer.L7], "node-2: ")
    assert not failed.passed
    assert failed.name.startswith("node-2: outsider in plaintext")
    assert failed.observed == "200"


def test_an_answer_brings_its_status_fields_and_body() -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nL5d-Proxy-Error: no\r\ncontent-length: 3\r\n\r\nnot"
    with talking_to(http1(head)) as connect:
        answer = ask(connect, HTTP1)
    assert (answer.status, answer.body, answer.field("l5d-proxy-error")) == (403, b"not", "no")
    with talking_to(http2([(":status", "200"), ("server", "x")])) as connect:
        answer = ask(connect, HTTP2)
    assert (answer.status, answer.field("server")) == (200, "x")


def test_a_request_may_have_a_body() -> None:
    received: list[bytes] = []

    def peer(connection: socket.socket) -> None:
        while b"a body" not in b"".join(received):
            received.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with talking_to(peer) as connect:
        assert ask(connect, replace(HTTP1, method="POST", body=b"a body")).seen is CallOutcome.OK
    assert b"Content-Length: 6\r\n" in b"".join(received)


def test_a_handshake_may_have_less_time_than_an_answer(tmp_path: Path) -> None:
    authority = CertificateAuthority(key_type=KeyType.ECDSA_P256)
    files = store(
        authority.issue("a", "b", make_key(KeyType.ECDSA_P256)), authority.root_pem, tmp_path, "one"
    )
    silent = threading.Event()
    with talking_to(lambda connection: silent.wait() and None) as connect:
        answer = ask(connect, HTTP1, TlsAs(files, str(files.root), "x", within_s=0.01))
        silent.set()
    assert answer.seen is CallOutcome.TIMEOUT
    assert answer.handshake is None
