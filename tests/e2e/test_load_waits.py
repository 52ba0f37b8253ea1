"""What a late request waited for, on real sockets: servers that recycle connections, a busy instrument, a
host that gives it no CPU."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from tests.support import hostile
from tests.support.loads import MS, load_spec, run_here
from tests.support.pki import Pki, make_pki

from meshwise.load.records import peek, read_records
from meshwise.load.spec import TlsSpec
from meshwise.load.wire.http1 import Http1
from meshwise.load.wire.seam import Completion
from meshwise.study.model import Protocol


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@contextlib.contextmanager
def recycling(pki: Pki, serve: Callable[[ssl.SSLSocket], None], alpn: str) -> Iterator[int]:
    """A TLS server whose handshake takes 100 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_cert, pki.server_key)
    context.set_alpn_protocols([alpn])

    def slowly(sock: socket.socket) -> None:
        time.sleep(0.1)
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True) as tls:
            serve(tls)

    with hostile.hostile(slowly) as port:
        yield port


def closes_every_fifth(tls: ssl.SSLSocket) -> None:
    """As nginx with keepalive_requests."""
    for number in range(1, 6):
        hostile.read_request(tls)
        close = b"connection: close\r\n" if number == 5 else b""
        tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + close + b"\r\nok")


def goes_away_every_fifth(tls: ssl.SSLSocket) -> None:
    """As an HTTP/2 server with a greatest connection age: GOAWAY that lets what is open end."""

    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        return (
            struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
        )

    held, answered = b"", 0
    while len(held) < 24:
        held += tls.recv(65536)
    held = held[24:]
    tls.sendall(frame(4, 0, 0))
    while True:
        while len(held) < 9 or len(held) < 9 + int.from_bytes(held[:3], "big"):
            data = tls.recv(65536)
            if not data:
                return
            held += data
        size, kind, flags = int.from_bytes(held[:3], "big"), held[3], held[4]
        stream, held = int.from_bytes(held[5:9], "big"), held[9 + size :]
        if kind == 4 and not flags & 1:
            tls.sendall(frame(4, 1, 0))
        if kind == 1:
            answered += 1
            goaway = frame(7, 0, 0, struct.pack(">II", stream, 0)) if answered == 5 else b""
            tls.sendall(goaway + frame(1, 5, stream, b"\x88"))


@pytest.mark.parametrize(
    ("protocol", "serve", "alpn"),
    [(Protocol.HTTP1, closes_every_fifth, "http/1.1"), (Protocol.HTTP2, goes_away_every_fifth, "h2")],
    ids=["connection: close", "GOAWAY"],
)
def test_waiting_for_a_recycled_connection_is_not_the_instrument_s(
    pki: Pki, protocol: Protocol, serve: Callable[[ssl.SSLSocket], None], alpn: str, tmp_path: Path
) -> None:
    changes = {"connections": 1, "rate_rps": 40, "warmup_ns": 200 * MS, "duration_ns": 1500 * MS}
    streams = 8 if protocol is Protocol.HTTP2 else 1
    with recycling(pki, serve, alpn) as port:
        tls = TlsSpec("localhost", pki.ca)
        spec = load_spec(port, protocol, tls=tls, streams=streams, timeout_ns=3 * 10**9, **changes)
        ran = run_here(spec, tmp_path)
    assert set(ran.errors()) <= {"", "goaway"}, "what was under way when it went away"
    assert ran.report.connections_made > 5
    waited = of_those_that_waited(ran.table, 20 * MS)
    assert waited["connection"] > 10
    assert waited["instrument"] == 0
    assert ran.report.waited_for["connection"] > 10
    assert ran.report.limited_by != "instrument"
    assert ran.report.queued_requests > 10


def of_those_that_waited(table: pa.Table, longer_ns: int) -> Counter[str]:
    """Cause -> measured requests. (The first request of all may wait for this process's garbage.)"""
    waits = zip(*(table[name].to_pylist() for name in ("intended_ns", "sent_ns", "waited_for")), strict=True)
    return Counter(cause for intended, sent, cause in waits if intended >= 0 and sent - intended > longer_ns)


def answers(sock: socket.socket) -> None:
    while True:
        hostile.read_request(sock)
        sock.sendall(hostile.OK_HTTP1)


def test_a_request_that_opens_its_own_connection_waited_for_it(tmp_path: Path) -> None:
    with hostile.hostile(answers) as port:
        ran = run_here(load_spec(port, requests_per_connection=2, connections=100), tmp_path)
    causes = Counter(ran.table["waited_for"].to_pylist())
    assert causes["connection"] + causes["instrument"] + causes["host"] >= 45
    assert causes["connection"] > 0
    assert set(ran.table["queued"].to_pylist()) == {False}, "a cold slot is a free slot"
    assert ran.report.limited_by != "server"


def test_a_slow_server_with_one_slot(tmp_path: Path) -> None:
    def slow(sock: socket.socket) -> None:
        while True:
            hostile.read_request(sock)
            time.sleep(0.02)
            sock.sendall(hostile.OK_HTTP1)

    with hostile.hostile(slow) as port:
        ran = run_here(load_spec(port, connections=1, rate_rps=100, timeout_ns=5000 * MS), tmp_path)
    assert of_those_that_waited(ran.table, 20 * MS)["slot"] > 30
    assert ran.report.waited_for["connection"] == 0
    assert ran.report.limited_by == "server"


def test_an_instrument_that_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes 12 ms for an answer, on the CPU as its clock tells here, whatever else runs."""
    real = Http1.receive

    def laborious(self: Http1, data: bytes, now_ns: int) -> Sequence[Completion]:
        time.sleep(0.012)
        return real(self, data, now_ns)

    monkeypatch.setattr(Http1, "receive", laborious)
    monkeypatch.setattr(time, "thread_time_ns", time.monotonic_ns)
    with hostile.hostile(answers) as port:
        ran = run_here(load_spec(port, connections=32, rate_rps=100), tmp_path)
    waited = Counter(ran.table["waited_for"].to_pylist())
    assert waited["instrument"] > 10
    assert waited["connection"] == 0


def test_a_host_that_gives_no_cpu(tmp_path: Path) -> None:
    """The instrument stands still for 100 ms three times, as if other work had its CPU."""
    with hostile.hostile(answers) as port:
        (tmp_path / "spec.json").write_text(load_spec(port, rate_rps=100, duration_ns=1000 * MS).to_json())
        argv = [sys.executable, "-m", "meshwise.load", "--spec", str(tmp_path / "spec.json")]
        with subprocess.Popen([*argv, "--out", str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while peek(tmp_path)[0] < 5 and process.poll() is None:
                time.sleep(0.01)
            for _ in range(3):
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(0.1)
                os.kill(process.pid, signal.SIGCONT)
                time.sleep(0.05)
            assert process.wait(20) == 0
    waited = of_those_that_waited(read_records(tmp_path), 20 * MS)
    assert waited["host"] > 10
    assert waited["instrument"] == 0
