"""Talks byte for byte, pure; what a service says arrived; the rule that forbids, as resources."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace

import pytest
import yaml
from tests.support.mesh_samples import CELL, placement

from meshwise.load.wire import blocks, frames
from meshwise.mesh.delivery.stream import SOURCES
from meshwise.mesh.identity import spiffe_id
from meshwise.mesh.istio import simulate
from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.istio.simulate import Certificate, HttpRequest, InboundConnection, Reached
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.linkerd.model import LinkerdModel
from meshwise.mesh.protection.guard_rule import guarded_path
from meshwise.mesh.protection.socket_line import open_line
from meshwise.mesh.protection.talk import (
    End,
    Http2Heard,
    Say,
    Wire,
    http1,
    http1_answers,
    http2,
    http2_start,
)
from meshwise.service.arrivals import ArrivalLog
from meshwise.service.http1_server import Http1Server, RequestHeadCache
from meshwise.service.spec import NodeSpec
from meshwise.service.tcp_server import TcpServer
from meshwise.study.model import LADDER, MeshName, Protocol

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


# --- answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (OK + OK, [(200, 2), (200, 2)]),
        (OK[:-1], []),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, [(200, 2)]),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n", [(101, 0)]),
        (b"HTTP/1.1 204 No Content\r\n\r\n" + OK, [(204, 0), (200, 2)]),
        (
            b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n" + OK,
            [(403, 3), (200, 2)],
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", []),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil it closes", [(200, 15)]),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", []),
        (b"", []),
    ],
)
def test_whole_answers_of_http1_are_told_apart(received: bytes, expected: list[tuple[int, int]]) -> None:
    assert [(each.status, each.body_bytes) for each in http1_answers(received)] == expected


def test_answers_of_http2_come_by_stream_however_they_are_cut() -> None:
    first = frames.headers_frames(1, blocks.encode_block([(":status", "200")]), end_stream=False)
    second = frames.headers_frames(3, blocks.encode_block([(":status", "403")]), end_stream=True)
    data = frames.settings({}) + first + second + frames.data_frames(1, b"body", end_stream=True)
    heard = Http2Heard()
    answers, replies = [], b""
    for at in range(0, len(data), 5):
        more, said, reply = heard.feed(data[at : at + 5])
        answers += more
        replies += reply
        assert not said
    assert [(each.status, each.body_bytes) for each in answers] == [(403, 0), (200, 4)]
    assert replies == frames.SETTINGS_ACK


def test_how_http2_ends_a_stream_or_a_connection_is_told() -> None:
    assert Http2Heard().feed(frames.rst_stream(1, frames.PROTOCOL_ERROR))[1] == "RST_STREAM PROTOCOL_ERROR"
    assert Http2Heard().feed(frames.goaway(0, frames.NO_ERROR))[1] == "GOAWAY NO_ERROR"


def test_what_is_to_be_sent_is_sent_as_it_is() -> None:
    odd = http1("gEt", "//a/../b#c", "h:1", [("X ", "y\nz")])
    assert odd == b"gEt //a/../b#c HTTP/1.1\r\nHost: h:1\r\nX : y\nz\r\n\r\n"
    sent = http2(3, "get", "/a b", "h", [("x-a", "b\r\nc")], b"body")
    parsed, rest = frames.split(sent)
    assert not rest
    assert [(kind, stream_id) for kind, _, stream_id, _ in parsed] == [(frames.HEADERS, 3), (frames.DATA, 3)]
    fields = dict(blocks.BlockDecoder().decode(parsed[0][3]))
    assert fields[b":method"], fields[b":path"] == (b"get", b"/a b")
    assert fields[b"x-a"] == b"b\r\nc"
    assert http2_start().startswith(frames.PREFACE)


# --- a line ------------------------------------------------------------------------------------------


def peer_that(answers: bytes, *, closes: bool) -> socket.socket:
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs:
            theirs.recv(4096)
            theirs.sendall(answers)
            if not closes:
                theirs.recv(1)

    threading.Thread(target=run, daemon=True).start()
    return ours


def test_a_line_stops_reading_when_it_has_its_answers_and_goes_on_later() -> None:
    with open_line(lambda: peer_that(OK, closes=False), None) as line:
        heard = line.talk(Say((b"x",)))
        assert (heard.statuses, heard.end) == ((200,), End.OPEN)
        assert heard.received == OK


def test_a_line_says_how_it_ended_and_stays_ended() -> None:
    with open_line(lambda: peer_that(OK, closes=True), None) as line:
        heard = line.talk(Say((b"x",), answers=2))
        assert (str(heard), line.talk(Say((b"y",))).end) == ("200, closed", End.CLOSED)


def test_a_line_that_was_refused_says_so_at_its_first_talk() -> None:
    def refuse() -> socket.socket:
        raise ConnectionRefusedError("nobody")

    with open_line(refuse, None) as line:
        heard = line.talk(Say((b"x",)))
    assert (heard.end, heard.detail) == (End.REFUSED, "connect: nobody")


def test_bytes_that_are_no_http2_end_a_talk_of_http2() -> None:
    with open_line(lambda: peer_that(b"HTTP/1.1 400 Bad Request\r\n\r\n", closes=False), None) as line:
        heard = line.talk(Say((b"x",), Wire.HTTP2))
    assert heard.end is End.CLOSED
    assert "not HTTP/2" in heard.detail


# --- what arrived ------------------------------------------------------------------------------------


def served() -> tuple[ArrivalLog, Http1Server]:
    arrived = ArrivalLog()
    return arrived, Http1Server(RequestHeadCache(NodeSpec("n"), 1.0, arrived), lambda *_: None)


def told(server: Http1Server) -> list[dict[str, object]]:
    answer = server.receive(b"GET /arrived HTTP/1.1\r\nHost: n\r\n\r\n")
    found: list[dict[str, object]] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def test_a_node_tells_what_arrived_with_a_mark_and_of_nothing_else() -> None:
    _, server = served()
    server.receive(b"GET /echo HTTP/1.1\r\nHost: n\r\n\r\n")
    server.receive(
        b"delete /echo/../x?y HTTP/1.1\r\nHost: N:1\r\nX-Attempt: a-1\r\nX-Tenant: b\r\nx-tenant: g\r\n"
        b"Authorization: secret\r\n\r\n"
    )
    (one,) = told(server)
    assert (one["attempt"], one["method"], one["target"]) == ("a-1", "delete", "/echo/../x?y")
    assert one["fields"] == [["host", "N:1"], ["x-tenant", "b"], ["x-tenant", "g"]]
    assert len(told(server)) == 1, "the answer is made anew every time"


def test_bytes_that_are_no_request_are_told_by_their_mark() -> None:
    arrived, server = served()
    server.receive(b"SSH-2.0 x-attempt: a-2 \r\n\r\n")
    assert server.closing
    tcp = TcpServer(arrived)
    tcp.receive(http1("DELETE", "/x", "h", [("x-attempt", "a-3")]))
    assert tcp.closing
    found = json.loads(arrived.to_json())
    assert [(each["attempt"], each["protocol"], each["unread"][:6]) for each in found] == [
        ("a-2", "http1", "SSH-2."),
        ("a-3", "tcp", "DELETE"),
    ]


def test_an_unreadable_body_is_not_told_as_the_request_before_it() -> None:
    _, server = served()
    server.receive(b"GET /echo HTTP/1.1\r\nHost: n\r\nx-attempt: a-4\r\n\r\n")
    server.receive(b"not a request\r\n\r\n")
    _, other = served()
    assert told(other) == []
    assert server.closing


# --- the rule that forbids -----------------------------------------------------------------------------

GUARDED = replace(CELL, posture=LADDER[3])


def test_istio_forbids_by_a_policy_that_denies() -> None:
    model = IstioModel(guarded=True)
    plain = IstioModel().resources(GUARDED, "cluster.local")
    documents = list(yaml.safe_load_all(model.resources(GUARDED, "cluster.local")))
    assert documents[:-1] == list(yaml.safe_load_all(plain))
    assert documents[-1]["spec"]["action"] == "DENY"
    view = model.view(placement(), GUARDED, "1", SOURCES)
    proxy = translate(view, "node-1")
    client = Certificate(spiffe_id("cluster.local", "frontend", "client"))
    server = spiffe_id("cluster.local", "backend", "node-1")
    arriving = InboundConnection(8080, True, ("istio-http/1.1", "istio", "http/1.1"), client)

    def passes(method: str, path: str, **headers: str) -> bool:
        request = HttpRequest(method, path, "node-1", {k.replace("_", "-"): v for k, v in headers.items()})
        return isinstance(simulate.arrive(proxy, arriving, request, server, 0.0), Reached)

    assert passes("POST", "/echo", x_tenant="blue")
    assert not passes("DELETE", "/echo", x_tenant="blue")
    assert not passes("POST", guarded_path(GUARDED), x_tenant="blue")
    assert not passes("POST", "/echo/x/../admin", x_tenant="blue")
    assert passes("POST", "/echo//admin", x_tenant="blue")
    assert not passes("POST", "/echo", x_tenant="green")


def test_linkerd_forbids_by_a_route_that_nobody_is_allowed_to() -> None:
    cell = replace(GUARDED, mesh=MeshName.LINKERD)
    here = replace(placement(), mesh=MeshName.LINKERD)
    made = LinkerdModel(guarded=True).snapshot(here, cell, 1)
    node = next(each for each in made.workloads if "node-1" in each.token)
    server = node.ports[8080]
    assert not server.authorizations, "what a Server allows would hold for every route"
    routes = {each.metadata.resource.name: each for each in server.protocol.http1.routes}
    assert not routes["guard-of-node-1"].authorizations
    assert len(routes["guard-of-node-1"].rules[0].matches) == 3
    assert len(routes["rest-of-node-1"].authorizations) == 1


def test_without_it_resources_are_as_ever() -> None:
    for cell, model in (
        (GUARDED, IstioModel()),
        (replace(GUARDED, mesh=MeshName.LINKERD, protocol=Protocol.HTTP2), LinkerdModel()),
    ):
        assert model.resources(cell, "cluster.local") == replace(model, guarded=False).resources(
            cell, "cluster.local"
        )
        assert "guard" not in model.resources(cell, "cluster.local")
