"""Asked of a server that speaks something else: it is said at once, by name, and not by a time-out."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import hostile
from tests.support.loads import MS, load_spec, run_here
from tests.support.pki import Pki, make_pki

from meshwise.load.engine import Engine
from meshwise.load.lane import Share
from meshwise.load.spec import TlsSpec
from meshwise.load.wire import frames
from meshwise.study.model import Protocol

LONG_NS = 60_000 * MS
"""Longer than any test runs: what would come by time-out does not come."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


def plain_400(sock: socket.socket) -> None:
    """As an HTTP/1.1 server does that reads a TLS handshake."""
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    hostile._read_forever(sock)


def settings_first(sock: socket.socket) -> None:
    """As an HTTP/2 server does that expects nothing else."""
    sock.sendall(frames.settings({frames.MAX_CONCURRENT_STREAMS: 100}))
    hostile._read_forever(sock)


def over_tls(pki: Pki, alpn: list[str], behaviour: hostile.Behaviour) -> hostile.Behaviour:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_cert, pki.server_key)
    if alpn:
        context.set_alpn_protocols(alpn)

    def over(sock: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True) as wrapped:
            behaviour(wrapped)

    return over


NO_HTTP1 = "the server does not answer in HTTP/1 here, it speaks"
NO_TLS = "the server does not speak TLS here, it answers in"


@pytest.mark.parametrize(
    ("protocol", "behaviour", "reason"),
    [
        (Protocol.HTTP1, plain_400, f"{NO_TLS} HTTP/1"),
        (Protocol.HTTP2, plain_400, f"{NO_TLS} HTTP/1"),
        (Protocol.GRPC, settings_first, f"{NO_TLS} HTTP/2"),
        (Protocol.HTTP1, hostile.banner, f"{NO_TLS} SSH"),
    ],
)
def test_tls_of_a_port_without_it(protocol: Protocol, behaviour: hostile.Behaviour, reason: str) -> None:
    with hostile.hostile(behaviour) as port:
        spec = load_spec(port, protocol, tls=TlsSpec("localhost"), timeout_ns=LONG_NS)
        with Engine([Share(spec, 2)]) as engine:
            [failure] = engine.connect(LONG_NS)
    assert failure is not None
    assert (failure.kind.label, str(failure)) == ("tls", reason)


@pytest.mark.parametrize(("alpn", "chose"), [([], "nothing"), (["http/1.1"], "nothing")])
def test_http2_of_a_tls_server_that_has_none(alpn: list[str], chose: str, pki: Pki) -> None:
    with hostile.hostile(over_tls(pki, alpn, hostile._read_forever)) as port:
        spec = load_spec(port, Protocol.HTTP2, tls=TlsSpec("localhost"), timeout_ns=LONG_NS)
        with Engine([Share(spec, 2)]) as engine:
            [failure] = engine.connect(LONG_NS)
    assert failure is not None
    assert str(failure) == f"the server chose {chose} by ALPN where HTTP/2 needs h2"


@pytest.mark.parametrize(
    ("make", "kind", "reason"),
    [
        (lambda _: hostile.answers_tls_alert, "protocol", f"{NO_HTTP1} TLS"),
        (lambda _: settings_first, "protocol", f"{NO_HTTP1} HTTP/2"),
        (
            lambda pki: over_tls(pki, [], hostile._read_forever),
            "reset",
            "closed by the server before it answered anything (a port that wants TLS may do so)",
        ),
    ],
)  # fmt: skip
def test_plain_http1_of_another_server(
    make: Callable[[Pki], hostile.Behaviour], kind: str, reason: str, pki: Pki, tmp_path: Path
) -> None:
    with hostile.hostile(make(pki)) as port:
        spec = load_spec(port, connections=1, rate_rps=40, duration_ns=250 * MS, timeout_ns=LONG_NS)
        ran = run_here(spec, tmp_path)
    assert set(ran.errors()) == {kind}
    assert any(reason in said for said in ran.report.reasons), ran.report.reasons
    assert any(reason in note for note in ran.report.notes)
