"""The conformance suite of `WireProtocol` on every protocol of the instrument, and on a fake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar
from unittest import mock

import pytest
from tests.support.fake_wire import Lines
from tests.support.wire import Answer, answer_of
from tests.support.wire_conformance import TAG, Form, Forms, WireConformance
from tests.unit.test_load_http1 import ANSWERS
from tests.unit.test_load_http2 import (
    GRPC,
    GRPC_HEAD,
    INTERIM,
    MESSAGE,
    OK,
    SERVER_HELLO,
    SHAPES,
    data,
    headers,
    trailers,
)
from tests.unit.test_load_http2_malformed import CALLS, ENDED, RESET

from meshwise.load.wire import frames, grpc, grpc_stream, http2, tcp, varied
from meshwise.load.wire.blocks import encode_block
from meshwise.load.wire.http1 import Http1, KnownHeads
from meshwise.load.wire.http2_request import encode_request
from meshwise.load.wire.seam import ErrorKind, WireProtocol
from meshwise.service import tcp_server

LIMIT = 4
"""Streams of a connection of HTTP/2."""


class TestFake(WireConformance):
    forms: ClassVar[Forms] = {
        "ok": Form(b"ok\n", Answer(TAG, 0, ErrorKind.NONE, 3)),
        "the last": Form(b"ok bye\n", Answer(TAG, 0, ErrorKind.NONE, 7), keeps=False),
    }
    malformed: ClassVar[Mapping[str, bytes]] = {"another word": b"no\n"}

    def make(self) -> WireProtocol:
        return Lines()

    def answer(self, number: int, note: bytes = b"") -> bytes:
        return b"ok\n"

    def last(self, number: int) -> bytes:
        return b"ok bye\n"


class TestHttp1(WireConformance):
    forms: ClassVar[Forms] = {
        name: Form(text, Answer(TAG, status, ErrorKind.NONE, size), keeps)
        for name, (text, status, size, keeps) in ANSWERS.items()
    }
    malformed: ClassVar[Mapping[str, bytes]] = {
        "a head that is none": b"HTTP/1.1 2x0 OK\r\n\r\n",
        "a chunk size that is none": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxy\r\n",
    }
    endless: ClassVar[Mapping[str, tuple[bytes, bytes]]] = {
        "interim": (b"", b"HTTP/1.1 103 Hints\r\n\r\n"),
        "fields": (b"HTTP/1.1 200 OK\r\n", b"x-more: y\r\n"),
        "a length": (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", b"x"),
        "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        "a chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffff\r\n", b"x"),
        "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-more: y\r\n"),
        "a body until the end": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    }

    def make(self) -> WireProtocol:
        return Http1(b"request", KnownHeads())

    def answer(self, number: int, note: bytes = b"") -> bytes:
        return b"HTTP/1.1 200 OK\r\nx-note: " + note + b"\r\ncontent-length: 5\r\n\r\nhello"

    def last(self, number: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"

    def test_a_request_is_sent_as_it_was_encoded(self) -> None:
        assert self.opened().start(TAG) == b"request"


class TestVariedHttp1(TestHttp1):
    def make(self) -> WireProtocol:
        return varied.VariedHttp1([b"other", b"request"], b"\0\1", KnownHeads())


class TestTcp(WireConformance):
    forms: ClassVar[Forms] = {"whole": Form(tcp_server.answer_of(7, 10), Answer(TAG, 0, ErrorKind.NONE, 10))}
    malformed: ClassVar[Mapping[str, bytes]] = {
        "another length": tcp_server.answer_of(7, 11),
        "an answer to another request": tcp_server.answer_of(1, 10),
        "HTTP": b"HTTP/1.1 403 Forbidden\r\n\r\n",
    }

    def make(self) -> WireProtocol:
        return tcp.Tcp(tcp.encode_request(b"x" * 7, 10))

    def answer(self, number: int, note: bytes = b"") -> bytes:
        return tcp_server.answer_of(7, 10)

    def test_a_request_is_sent_as_it_was_encoded(self) -> None:
        assert self.opened().start(TAG) == tcp.encode_request(b"x" * 7, 10)


class TestTcpWithoutPayload(TestTcp):
    forms: ClassVar[Forms] = {
        "head alone": Form(tcp_server.answer_of(0, 0), Answer(TAG, 0, ErrorKind.NONE, 0))
    }
    malformed: ClassVar[Mapping[str, bytes]] = {"another length": tcp_server.answer_of(0, 11)}

    def make(self) -> WireProtocol:
        return tcp.Tcp(tcp.encode_request(b"", 0))

    def test_a_request_is_sent_as_it_was_encoded(self) -> None:
        assert self.opened().start(TAG) == bytes(8)

    def answer(self, number: int, note: bytes = b"") -> bytes:
        return tcp_server.answer_of(0, 0)


class TestVariedTcp(TestTcp):
    def make(self) -> WireProtocol:
        return varied.VariedTcp([tcp.encode_request(b"x" * 7, 10)], b"\0")


class OverHttp2(WireConformance):
    """What all that travels in frames of HTTP/2 has in common."""

    alone = True
    hello = SERVER_HELLO
    endless: ClassVar[Mapping[str, tuple[bytes, bytes]]] = {
        "a header block": (frames.frame(frames.HEADERS, 0, 1, OK), frames.frame(9, 0, 1, bytes(9000))),
        "a body": (headers(1), data(1, b"x" * 9000, end=False)),
        "interim": (b"", headers(1, INTERIM)),
        "PING": (b"", frames.ping()),
        "SETTINGS": (b"", frames.settings({frames.INITIAL_WINDOW_SIZE: 9})),
        "unknown frames": (b"", frames.frame(0xEE, 0, 0, bytes(9000))),
    }

    def last(self, number: int) -> bytes:
        return frames.goaway(2 * number + 1, frames.NO_ERROR) + self.answer(number)

    def test_the_peers_limit_holds_from_now_on(self) -> None:
        protocol = self.opened()
        assert protocol.limit == LIMIT
        protocol.receive(frames.settings({frames.MAX_CONCURRENT_STREAMS: 2}), 1)
        assert (protocol.attention, protocol.limit) == (True, 2)
        assert [bool(protocol.start(tag)) for tag in range(3)] == [True, True, False]
        protocol.receive(frames.settings({frames.MAX_CONCURRENT_STREAMS: 50}), 1)
        assert protocol.limit == LIMIT

    def test_what_goaway_leaves_out_has_failed_and_the_rest_is_answered(self) -> None:
        protocol = self.opened()
        for tag in range(3):
            protocol.start(tag)
        failed = [one.tag for one in map(answer_of, protocol.receive(frames.goaway(3, 0), 1))]
        assert (failed, protocol.open_tags(), protocol.limit) == ([2], [0, 1], 0)
        assert (protocol.closing, protocol.attention) == (True, True)
        answers = map(answer_of, protocol.receive(self.answer(0) + self.answer(1), 2))
        assert [one.tag for one in answers] == [0, 1]

    def test_a_stream_that_is_reset_fails_alone(self) -> None:
        protocol = self.opened()
        for tag in range(2):
            protocol.start(tag)
        (failed,) = map(answer_of, protocol.receive(frames.rst_stream(1, frames.INTERNAL_ERROR), 1))
        assert (failed.tag, failed.error) == (0, ErrorKind.RST_STREAM)
        assert protocol.open_tags() == [1]
        assert not protocol.closing


class TestHttp2(OverHttp2):
    forms: ClassVar[Forms] = {
        name: Form(stream, Answer(TAG, 200, ErrorKind.NONE, size)) for name, (stream, size) in SHAPES.items()
    }
    malformed: ClassVar[Mapping[str, bytes]] = {
        name: stream for name, (stream, _, _) in {**ENDED, **RESET}.items() if len(stream) < 100
    }
    body = b""

    def make(self) -> WireProtocol:
        return http2.Http2(encode_request("GET", "http", "/", "a", [], self.body), LIMIT)

    def answer(self, number: int, note: bytes = b"") -> bytes:
        key = 2 * number + 1
        return headers(key, OK + encode_block([("x-note", note.decode())])) + data(key, b"hello")


class TestHttp2WithoutItsShortCut(TestHttp2):
    @pytest.fixture(autouse=True)
    def _long_way(self) -> Iterator[None]:
        with mock.patch.object(http2, "learn", return_value=None):
            yield


class TestVariedHttp2(TestHttp2):
    def make(self) -> WireProtocol:
        calls = [encode_request("POST", "http", "/", "a", [], body) for body in (b"", b"b" * 90)]
        return varied.VariedHttp2(calls, b"\0\1", LIMIT)


class TestHttp2WhoseBodyWaits(TestHttp2):
    """The peer's window holds a body back, which an answer calls off."""

    hello = frames.settings({frames.INITIAL_WINDOW_SIZE: 5})
    body = b"b" * 90


class TestGrpc(OverHttp2):
    forms: ClassVar[Forms] = {
        name: Form(make(), replace(answer, tag=TAG)) for name, (make, answer) in GRPC.items()
    }
    malformed: ClassVar[Mapping[str, bytes]] = {name: stream for name, (stream, _, _) in CALLS.items()}
    call = grpc.encode_request("http", "/p.S/M", "a", [], b"m")
    messages = 1

    def make(self) -> WireProtocol:
        return grpc.Grpc(self.call, LIMIT)

    def answer(self, number: int, note: bytes = b"") -> bytes:
        key, head = 2 * number + 1, GRPC_HEAD + encode_block([("x-note", note.decode())])
        messages = b"".join(data(key, MESSAGE, end=False) for _ in range(self.messages))
        return headers(key, head) + messages + headers(key, trailers(0), end=True)


class TestVariedGrpc(TestGrpc):
    def make(self) -> WireProtocol:
        return varied.VariedGrpc([self.call, self.call], b"\0\1", LIMIT)


class TestUpstream(TestGrpc):
    up = grpc.encode_request("http", "/p.S/M", "a", [], b"m", messages=3)

    def make(self) -> WireProtocol:
        return grpc_stream.GrpcUpstream([self.up], b"\0", LIMIT, 3, grpc_stream.MessageLog())


class TestDownstream(TestGrpc):
    """Any number of messages may come, so that only what is cut is malformed."""

    messages = 3
    forms: ClassVar[Forms] = {
        "three messages": Form(
            headers(1, GRPC_HEAD) + data(1, MESSAGE * 2, end=False) + data(1, MESSAGE, end=False)
            + headers(1, trailers(0), end=True),
            Answer(TAG, 1000, ErrorKind.NONE, 21),
        ),
        "too few": Form(
            headers(1, GRPC_HEAD) + data(1, MESSAGE, end=False) + headers(1, trailers(0), end=True),
            Answer(TAG, 1013, ErrorKind.GRPC_STATUS, 7),
        ),
        "an error": Form(
            headers(1, GRPC_HEAD) + headers(1, trailers(5), end=True),
            Answer(TAG, 1005, ErrorKind.GRPC_STATUS, 0),
        ),
    }  # fmt: skip
    malformed: ClassVar[Mapping[str, bytes]] = {
        name: CALLS[name][0]
        for name in ("no status at all", "a message cut behind its prefix", "a prefix of another kind")
    }

    def make(self) -> WireProtocol:
        return grpc_stream.GrpcDownstream([self.call], b"\0", LIMIT, 3, grpc_stream.MessageLog())


class TestDialogue(TestDownstream):
    def make(self) -> WireProtocol:
        return grpc_stream.GrpcDialogue([TestUpstream.up], b"\0", LIMIT, 3, grpc_stream.MessageLog())
