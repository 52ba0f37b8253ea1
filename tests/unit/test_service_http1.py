"""The HTTP/1.1 codecs of a node, without a socket."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from meshwise.service.http1_client import Http1Client, ResponseHeads
from meshwise.service.http1_server import Http1Server, RequestHeadCache
from meshwise.service.http1_syntax import MAX_HEAD_BYTES
from meshwise.service.outgoing import Done, Outgoing
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.service.ticket import Ticket
from meshwise.study.model import Protocol

NEXT = Upstream("10.96.0.2", "node-2.test")
SPEC = NodeSpec("node-1", next=NEXT, leaves=(NEXT, NEXT))


class Calls:
    """Stands where the upstreams are: remembers what was to be called."""

    def __init__(self) -> None:
        self.started: list[tuple[Sequence[Outgoing], Done]] = []

    def __call__(self, protocol: Protocol, outgoing: Sequence[Outgoing], done: Done) -> None:
        assert protocol is Protocol.HTTP1
        self.started.append((outgoing, done))


def server(calls: Calls | None = None) -> Http1Server:
    return Http1Server(RequestHeadCache(SPEC, 1.0), calls or Calls())


def request(line: str = "GET /echo HTTP/1.1", *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, "host: a", *fields, "", ""]).encode("latin-1") + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_bytes_of_the_plan_are_answered() -> None:
    answer = server().receive(request("GET /echo HTTP/1.1", "x-plan: bytes=10"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-length: 10")
    assert len(body) == 10


def test_pipelined_requests_are_answered_in_order() -> None:
    codec = server()
    both = request("GET /echo HTTP/1.1", "x-plan: bytes=3") + request("GET /nowhere HTTP/1.1")
    answers = codec.receive(both + request()[:10])
    assert answers.index(b"200 OK") < answers.index(b"404 Not Found")
    assert status(codec.receive(request()[10:])) == 200
    assert not codec.closing


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (("content-length: 5",), b"hello"),
        (("transfer-encoding: chunked",), b"5;a=b\r\nhello\r\n0\r\n\r\n"),
        (("Transfer-Encoding: Chunked",), b"2\r\nhe\r\n3\r\nllo\r\n0\r\nx-trailer: 1\r\n\r\n"),
    ],
)
def test_bodies_are_read_however_they_arrive(fields: tuple[str, ...], body: bytes) -> None:
    whole = request("POST /echo HTTP/1.1", *fields, body=body)
    for cut in range(1, len(whole)):
        codec = server()
        answer = codec.receive(whole[:cut]) + codec.receive(whole[cut:] + request("GET /healthz HTTP/1.1"))
        assert answer.count(b"HTTP/1.1 200 OK") == 2, cut


def test_a_body_is_passed_on_with_its_length() -> None:
    calls = Calls()
    codec = server(calls)
    fields = ("x-plan: hops=2;bytes=4", "authorization: Bearer x", "x-request-id: abc", "x-tenant: t",
              "x-forwarded-proto: https", "transfer-encoding: chunked")  # fmt: skip
    told: list[bytes] = []
    codec.emit = told.append
    sent = request("POST /echo?q HTTP/1.1", *fields, body=b"3\r\nabc\r\n0\r\n\r\n")
    assert codec.receive(sent + request("GET /healthz HTTP/1.1")) == b""
    [([outgoing], done)] = calls.started
    assert outgoing.body == b"abc"
    lines = outgoing.head.decode().split("\r\n")
    assert lines[0] == "POST /echo?q HTTP/1.1"
    assert set(lines[1:-2]) == {
        "host: node-2.test:8080", "authorization: Bearer x", "x-tenant: t", "x-request-id: abc",
        "x-plan: bytes=4;hops=1;fan=0;work_us=0", "content-length: 3",
    }  # fmt: skip
    done("", 0)
    assert told[0].count(b"HTTP/1.1 200 OK") == 2  # the waiting request too


def test_a_failed_call_is_a_502_with_its_reason() -> None:
    calls, told = Calls(), []
    codec = server(calls)
    codec.emit = told.append
    codec.receive(request("GET /echo HTTP/1.1", "x-plan: fan=2"))
    [(outgoing, done)] = calls.started
    assert len(outgoing) == 2
    done("deadline", 0)
    assert status(told[0]) == 502
    assert b"x-reason: deadline\r\n" in told[0]
    assert not codec.closing


def test_requests_that_differ_in_their_id_only_share_an_answer_but_not_the_id() -> None:
    calls = Calls()
    heads = RequestHeadCache(SPEC, 1.0)
    for number in range(3):
        codec = Http1Server(heads, calls)
        codec.receive(request("GET /echo HTTP/1.1", f"x-request-id: id-{number}", "x-plan: hops=1"))
    assert len(heads._known) == 1
    assert [
        outgoing[0].head.count(b"x-request-id: id-%d\r\n" % n)
        for n, (outgoing, _) in enumerate(calls.started)
    ] == [1] * 3


def test_head_and_connection_options() -> None:
    answer = server().receive(request("HEAD /echo HTTP/1.1", "x-plan: bytes=10"))
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 10" in answer
    closing = server()
    assert b"connection: close" in closing.receive(request("GET /echo HTTP/1.1", "connection: close"))
    assert closing.closing
    old = server()
    old.receive(b"GET /echo HTTP/1.0\r\n\r\n")
    assert old.closing
    kept = server()
    kept.receive(b"GET /echo HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    assert not kept.closing


def test_continue_is_sent_when_the_body_is_held_back() -> None:
    codec = server()
    head = request("POST /echo HTTP/1.1", "content-length: 2", "expect: 100-continue")
    assert codec.receive(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert status(codec.receive(b"ok")) == 200
    assert status(codec.receive(head + b"ok")) == 200  # it did not wait: no interim answer


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /echo HTTP/2.0\r\nhost: a\r\n\r\n", 505),
        (b"GET /echo HTTP/1.1\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nhost : a\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nhost: a\nb: c\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx", 400),
        (b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx", 400),
        (b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n", 400),
        (b"GET /echo HTTP/1.1\r\n" + b"a" * MAX_HEAD_BYTES, 431),
    ],
)
def test_what_is_not_http_is_refused_and_the_connection_ends(raw: bytes, expected: int) -> None:
    codec = server()
    answer = codec.receive(raw)
    assert status(answer) == expected
    assert b"connection: close" in answer
    assert codec.closing


# --- the calling side ------------------------------------------------------------------------------


class Caller:
    """A client codec and what it told."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.results: list[str] = []
        self.free = 0
        self.lost: list[Ticket] = []
        self.codec = Http1Client(ResponseHeads(), self._freed, self.lost.append)
        self.codec.emit = self.sent.append

    def _freed(self, _: Http1Client) -> None:
        self.free += 1

    def call(self, head: bytes = b"GET / HTTP/1.1\r\n\r\n") -> None:
        self.codec.send(Ticket(Outgoing(NEXT, head, b"body"), lambda reason, _: self.results.append(reason)))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\na: b\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_answers_are_read_however_they_arrive(answer: bytes) -> None:
    caller = Caller()
    for cut in range(1, len(answer)):
        caller.call()
        caller.codec.receive(answer[:cut])
        caller.codec.receive(answer[cut:])
    assert caller.results == [""] * (len(answer) - 1)
    assert caller.free == len(answer) - 1
    assert caller.sent[0] == b"GET / HTTP/1.1\r\n\r\nbody"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "upstream status 403"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "not HTTP/1.1"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "not HTTP/1.1"),
        (b"x" * (MAX_HEAD_BYTES + 1), "not HTTP/1.1"),
    ],
)
def test_bad_answers_are_reasons(answer: bytes, reason: str) -> None:
    caller = Caller()
    caller.call()
    caller.codec.receive(answer)
    assert len(caller.results) == 1
    assert caller.results[0].startswith(reason)


def test_a_body_without_framing_lasts_until_the_end() -> None:
    caller = Caller()
    caller.call()
    caller.codec.receive(b"HTTP/1.1 200 OK\r\n\r\nabc")
    assert caller.results == []
    caller.codec.eof()
    assert caller.results == [""]
    assert caller.codec.closing


def test_only_a_kept_connection_that_was_closed_in_silence_is_tried_again() -> None:
    fresh = Caller()
    fresh.call()
    fresh.codec.eof()
    assert (fresh.results, fresh.lost) == (["connection lost"], [])
    kept = Caller()
    kept.call()
    kept.codec.receive(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    kept.call()
    kept.codec.eof()
    assert kept.results == [""]
    assert len(kept.lost) == 1
    begun = Caller()
    begun.call()
    begun.codec.receive(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    begun.call()
    begun.codec.receive(b"HTTP/1.1 2")
    begun.codec.eof()
    assert begun.results == ["", "connection lost"]


def test_more_than_was_asked_for_ends_the_connection() -> None:
    caller = Caller()
    caller.call()
    caller.codec.receive(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert caller.results == [""]
    assert caller.codec.closing


def test_a_node_answers_the_date_that_it_is_told_and_else_none() -> None:
    date = "Fri, 01 Jan 2027 00:00:00 GMT"
    told = Http1Server(RequestHeadCache(NodeSpec("dated", date=date), 1.0), Calls())
    assert f"\r\ndate: {date}\r\n".encode() in told.receive(request())
    assert b"date:" not in server().receive(request())
