"""Right exchanges, altered at random: what a connection makes of them has to add up, whatever it is.

`exchange(kind, seed)` plays one against a protocol, without a socket, and gives what is wrong with what came
of it (nothing, if all is well). `altering(kind, seed)` is a server that answers so. A seed repeats either.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshwise.load.wire import frames, grpc, http1, http2, http2_request
from meshwise.load.wire.blocks import encode_block
from meshwise.load.wire.seam import ErrorKind, WireError, WireProtocol
from tests.support.hostile import Behaviour, Http2Peer, read_request
from tests.support.wire import Answer, answer_of, cut

OPEN = 5
"""Requests that are open when the altered answers come (HTTP/1.1: one)."""
MOST_CONTROL_BYTES = 1 << 20
KINDS = ("http1", "http2", "grpc")

_RESPONSES = (
    b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1A\r\n"
    + b"z" * 26
    + b"\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
)
_HEAD = encode_block([(":status", "200"), ("server", "x"), ("content-length", "7")])
_PLAIN = encode_block([(":status", "404"), ("server", "x")])
_CALL = encode_block([(":status", "200"), ("content-type", "application/grpc")])
_INTERIM = encode_block([(":status", "103"), ("link", "</a>")])
_MESSAGE = b"\0\0\0\0\2ok"
_OK = encode_block([("grpc-status", "0"), ("grpc-message", "")])
_DENIED = encode_block([("grpc-status", "7")])
GOOD = {"http2": (_HEAD, b""), "grpc": (_CALL, _OK)}
"""Head and trailers of an answer whose body is _MESSAGE."""


def good_answer(kind: str, stream_id: int) -> bytes:
    """Without an alteration; its outcome is no error."""
    if kind == "http1":
        return _RESPONSES[0]
    head, trailers = GOOD[kind]
    body = frames.data_frames(stream_id, _MESSAGE, end_stream=not trailers)
    tail = frames.headers_frames(stream_id, trailers, end_stream=True) if trailers else b""
    return frames.headers_frames(stream_id, head, end_stream=False) + body + tail


def right_answer(kind: str, stream_id: int, dice: random.Random) -> bytes:
    """One of many forms."""
    if kind == "http1":
        return dice.choice(_RESPONSES)
    head = frames.headers_frames(stream_id, GOOD[kind][0], end_stream=False)
    forms = [good_answer(kind, stream_id)] * 3
    forms.append(frames.headers_frames(stream_id, _INTERIM, end_stream=False) + good_answer(kind, stream_id))
    if kind == "http2":
        padded = frames.frame(
            frames.DATA, frames.PADDED | frames.END_STREAM, stream_id, b"\2" + _MESSAGE + bytes(2)
        )
        forms += [frames.headers_frames(stream_id, _PLAIN, end_stream=True), head + padded]
    else:
        forms.append(frames.headers_frames(stream_id, _CALL + _DENIED, end_stream=True))
    forms.append(frames.rst_stream(stream_id, frames.REFUSED_STREAM))
    return dice.choice(forms)


def alter(data: bytes, dice: random.Random) -> bytes:
    """Bytes changed, lost, doubled, put elsewhere; frames changed in type, flags, stream or length."""
    altered = bytearray(data)
    for _ in range(dice.choice((0, 1, 1, 1, 2, 5))):
        if not altered:
            break
        at = dice.randrange(len(altered))
        size = dice.choice((1, 1, 2, 9, 20))
        part = altered[at : at + size]
        match dice.randrange(7):
            case 0:
                altered[at] = dice.randrange(256)
            case 1:
                altered[at] ^= 1 << dice.randrange(8)
            case 2:
                del altered[at : at + size]
            case 3:
                altered[at:at] = part
            case 4:
                altered[at:at] = dice.choice((b"\r\n", b"\n", b"\0", b":", b" ", b"0", dice.randbytes(size)))
            case 5:
                del altered[at : at + size]
                elsewhere = dice.randrange(len(altered) + 1)
                altered[elsewhere:elsewhere] = part
            case _:
                _alter_frame(altered, dice)
    return bytes(altered)


def _alter_frame(data: bytearray, dice: random.Random) -> None:
    """The field of one frame, if there is one to be found."""
    with contextlib.suppress(Exception):
        starts, offset = [], 0
        while offset + 9 <= len(data):
            starts.append(offset)
            offset += 9 + frames.parse_head(bytes(data), offset)[0]
        start = dice.choice(starts)
        match dice.randrange(4):
            case 0:
                data[start + 2] = dice.randrange(256)
            case 1:
                data[start + 3] = dice.randrange(11)
            case 2:
                data[start + 4] = dice.randrange(256)
            case _:
                data[start + 8] = dice.randrange(0, 2 * OPEN + 4)


# --- without a socket ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of one exchange."""

    wrong: str
    """What does not add up; empty: nothing."""
    errors: tuple[ErrorKind, ...]
    broke: bool
    """The connection, by a WireError."""


def _protocol(kind: str) -> WireProtocol:
    if kind == "http1":
        return http1.Http1(b"request", http1.KnownHeads())
    if kind == "grpc":
        return grpc.Grpc(grpc.encode_request("http", "/p.S/M", "a", [], b"m"), 2 * OPEN)
    return http2.Http2(http2_request.encode_request("GET", "http", "/", "a", [], b""), 2 * OPEN)


def exchange(kind: str, seed: int) -> Outcome:
    """One connection: good answers (from which the short cut learns), then altered ones, then the end."""
    dice = random.Random(f"{kind} {seed}")
    protocol = _protocol(kind)
    if kind != "http1":
        protocol.receive(frames.settings({frames.MAX_CONCURRENT_STREAMS: 100}), 1)
    started: list[int] = []
    ended: list[Answer] = []

    def start() -> int:
        """The stream of one more request."""
        tag = len(started)
        if protocol.start(tag):
            started.append(tag)
        return 2 * tag + 1

    def feed(pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            if piece:
                ended.extend(answer_of(done) for done in protocol.receive(piece, 7))
                if protocol.broken is not None:
                    raise protocol.broken

    for _ in range(dice.randrange(3)):
        feed([good_answer(kind, start())])
    good = len(ended)
    streams = [start() for _ in range(1 if kind == "http1" else OPEN)]
    dice.shuffle(streams)
    answers = b"".join(right_answer(kind, stream_id, dice) for stream_id in streams)
    broke = False
    try:
        feed(cut(alter(answers, dice), [dice.randrange(1 << 16) for _ in range(dice.randrange(4))]))
        wrong = _neighbour(kind, protocol, start, feed, ended) if dice.random() < 0.5 else ""
        if not protocol.closing:
            ended.extend(answer_of(done) for done in protocol.end_of_stream(9))
    except WireError:
        broke, wrong = True, ""
    tags = [answer.tag for answer in ended] + protocol.open_tags()
    if sorted(tags) != started:
        wrong = f"requests {started} came to {sorted(tags)}"
    if any(answer.error for answer in ended[:good]):
        wrong = f"good answers failed: {ended[:good]}"
    if len(protocol.take_control()) > MOST_CONTROL_BYTES:
        wrong = "more control bytes than any exchange needs"
    return Outcome(wrong, tuple(answer.error for answer in ended), broke)


def _neighbour(
    kind: str,
    protocol: WireProtocol,
    start: Callable[[], int],
    feed: Callable[[Sequence[bytes]], None],
    ended: list[Answer],
) -> str:
    """A connection of HTTP/2 on which answers failed and which lives gives a further request its answer."""
    waits = isinstance(protocol, http2.Http2) and (protocol._rest or protocol._block is not None)
    failed = any(answer.error is ErrorKind.PROTOCOL for answer in ended)
    if kind == "http1" or waits or protocol.closing or not failed:
        return ""  # the beginning of the next would be taken for the rest of what is half read
    before = len(ended)
    tag = (start() - 1) // 2
    if tag in protocol.open_tags():
        feed([good_answer(kind, 2 * tag + 1)])
        if [(answer.tag, answer.error) for answer in ended[before:]] != [(tag, ErrorKind.NONE)]:
            return f"the neighbour of a failed answer came to {ended[before:]}"
    return ""


# --- with sockets ----------------------------------------------------------------------------------


def altering(kind: str, seed: int) -> Behaviour:
    """Every answer is altered, or (half of them) right; sometimes the connection ends."""
    connections = random.Random(f"{kind} {seed}")

    def behaviour(sock: socket.socket) -> None:
        dice = random.Random(connections.random())
        peer = None if kind == "http1" else Http2Peer(sock)
        while True:
            if peer is None:
                read_request(sock)
            stream_id = 1 if peer is None else peer.next_request()
            answer = right_answer(kind, stream_id, dice)
            sock.sendall(alter(answer, dice) if dice.random() < 0.5 else answer)
            if dice.random() < 0.05:
                sock.shutdown(socket.SHUT_WR)

    return behaviour
