"""Servers that misbehave in one known way each, for tests of their callers.

    with hostile(closes_mid_body) as port: ...

A behaviour is a function of one accepted connection; it runs in a thread of its own, may block, and has its
connection reset when the test leaves the block.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block

Behaviour = Callable[[socket.socket], None]

OK_HTTP1 = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_OK_BLOCK = encode_block([(":status", "200")])


@contextmanager
def hostile(behaviour: Behaviour, address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Yields the port of a server of which every connection behaves like that."""
    listener = socket.create_server((address, port), backlog=256)
    taken: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def connection(sock: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            behaviour(sock)
        reset(sock)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                taken.append(sock)
                thread = threading.Thread(target=connection, args=(sock,), daemon=True)
                threads.append(thread)
                thread.start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)
        for sock in list(taken):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        for sock in taken:
            sock.close()


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_request(sock: socket.socket) -> bytes:
    """A head of HTTP/1.1 without a body. Raises EOFError when the peer has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            raise EOFError
        data += part
    return data


def _read_forever(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


# --- for any protocol ----------------------------------------------------------------------------


def never_answers(sock: socket.socket) -> None:
    _read_forever(sock)


def never_reads(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    poll.poll()  # until the peer or the test ends it


def closes_at_once(sock: socket.socket) -> None:
    sock.close()


def resets_at_once(sock: socket.socket) -> None:
    reset(sock)


def resets_after_request(sock: socket.socket) -> None:
    sock.recv(65536)
    reset(sock)


def garbage(sock: socket.socket) -> None:
    noise = random.Random(1)
    sock.recv(65536)
    for _ in range(64):
        sock.sendall(noise.randbytes(4096))
    _read_forever(sock)


def answers_http1(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    _read_forever(sock)


def answers_tls_alert(sock: socket.socket) -> None:
    """As a server does that wants TLS and is spoken to without."""
    sock.recv(65536)
    sock.sendall(b"\x15\x03\x01\x00\x02\x02\x46")
    sock.shutdown(socket.SHUT_WR)
    _read_forever(sock)


def closes_after_reading(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.close()


def banner(sock: socket.socket) -> None:
    """It speaks first, and something else."""
    sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    _read_forever(sock)


# --- HTTP/1.1 ------------------------------------------------------------------------------------


def closes_mid_head(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-le")
    sock.close()


def closes_mid_body(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")
    sock.close()


def closes_mid_chunk(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nonly this")
    sock.close()


def closes_after_each_answer(sock: socket.socket) -> None:
    """Without having said so: the next request on the kept connection meets a closed one."""
    read_request(sock)
    sock.sendall(OK_HTTP1)
    sock.close()


def bad_chunk_size(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
    _read_forever(sock)


def two_lengths(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok")
    _read_forever(sock)


def endless_head(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        sock.sendall(b"x-more: and more and more and more\r\n" * 100)


def endless_interim(sock: socket.socket) -> None:
    read_request(sock)
    while True:
        sock.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 50)


def answers_unasked(sock: socket.socket) -> None:
    while True:
        read_request(sock)
        sock.sendall(OK_HTTP1 * 2)


def drips(sock: socket.socket) -> None:
    """A right answer, one byte at a time."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        read_request(sock)
        for byte in OK_HTTP1:
            sock.sendall(bytes([byte]))


def refuses_bodies(sock: socket.socket) -> None:
    """Says so after the head and closes; what was sent and not read makes the kernel send RST behind it."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = sock.recv(256)
        if not part:
            raise EOFError
        head += part
    sock.sendall(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    sock.close()


# --- HTTP/2 --------------------------------------------------------------------------------------


class Http2Peer:
    """The least that a misbehaving HTTP/2 server needs: it has read the preface and sent its settings."""

    def __init__(self, sock: socket.socket, settings: dict[int, int] | None = None) -> None:
        self.sock = sock
        self.buffer = b""
        while len(self.buffer) < len(frames.PREFACE):
            self._more()
        self.buffer = self.buffer[len(frames.PREFACE) :]
        sock.sendall(frames.settings(settings or {}) + frames.SETTINGS_ACK)

    def _more(self) -> None:
        part = self.sock.recv(65536)
        if not part:
            raise EOFError
        self.buffer += part

    def next_request(self) -> int:
        """The stream of the next HEADERS frame."""
        while True:
            whole, self.buffer = frames.split(self.buffer)
            for index, (kind, _, stream_id, _) in enumerate(whole):
                if kind == frames.HEADERS:
                    rest = b"".join(frames.frame(*frame) for frame in whole[index + 1 :])
                    self.buffer = rest + self.buffer
                    return stream_id
            self._more()

    def answer(self, stream_id: int) -> None:
        self.sock.sendall(frames.headers_frames(stream_id, _OK_BLOCK, end_stream=True))


def http2_flood(frame: bytes) -> Behaviour:
    """After the first request: this frame, forever."""

    def behaviour(sock: socket.socket) -> None:
        Http2Peer(sock).next_request()
        while True:
            sock.sendall(frame * 100)

    return behaviour


ping_flood = http2_flood(frames.ping())
settings_flood = http2_flood(frames.settings({frames.MAX_CONCURRENT_STREAMS: 100}))
window_update_flood = http2_flood(frames.window_update(0, 1))
empty_data_flood = http2_flood(frames.frame(frames.DATA, 0, 1))
unknown_frame_flood = http2_flood(frames.frame(0xBB, 0, 0, bytes(64)))


def continuation_flood(sock: socket.socket) -> None:
    stream_id = Http2Peer(sock).next_request()
    sock.sendall(frames.frame(frames.HEADERS, 0, stream_id, _OK_BLOCK))
    while True:
        sock.sendall(frames.frame(frames.CONTINUATION, 0, stream_id, b"\x00\x01a\x01b" * 100))


def http2_then(after_answers: int, last: Callable[[int], bytes], *, close: bool = True) -> Behaviour:
    """That many right answers, then `last(stream id)`; then closed, or open and silent."""

    def behaviour(sock: socket.socket) -> None:
        peer = Http2Peer(sock)
        for _ in range(after_answers):
            peer.answer(peer.next_request())
        sock.sendall(last(peer.next_request()))
        if not close:
            _read_forever(sock)
        sock.shutdown(socket.SHUT_WR)
        _read_forever(sock)

    return behaviour


def goaway_after(answers: int) -> Behaviour:
    """GOAWAY that leaves the request behind it undone (last stream: the one before)."""
    return http2_then(answers, lambda stream_id: frames.goaway(max(0, stream_id - 2), frames.NO_ERROR))


def rst_after(answers: int, code: int = frames.REFUSED_STREAM) -> Behaviour:
    return http2_then(answers, lambda stream_id: frames.rst_stream(stream_id, code), close=False)


bad_block = http2_then(
    0,
    lambda stream_id: frames.headers_frames(stream_id, b"\xff\xff\xff\xff\xff\xff", end_stream=True),
    close=False,
)
huge_frame = http2_then(0, lambda stream_id: frames.head(1 << 20, frames.DATA, 0, stream_id), close=False)
interrupted_block = http2_then(
    0, lambda stream_id: frames.frame(frames.HEADERS, 0, stream_id, _OK_BLOCK) + frames.ping(), close=False
)
stray_data = http2_then(
    0, lambda stream_id: frames.data_frames(stream_id + 100, b"x", end_stream=True), close=False
)
zero_increment = http2_then(0, lambda _: frames.window_update(0, 0), close=False)


def allows_later(first: dict[int, int], then: dict[int, int], after_s: float) -> Behaviour:
    """Settings that allow nothing at first; everything is answered once its body has come."""

    def behaviour(sock: socket.socket) -> None:
        peer = Http2Peer(sock, first)

        def allow() -> None:
            with contextlib.suppress(OSError):
                sock.sendall(frames.settings(then))

        timer = threading.Timer(after_s, allow)
        timer.start()
        try:
            while True:
                whole, peer.buffer = frames.split(peer.buffer)
                for kind, flags, stream_id, _ in whole:
                    if kind in (frames.HEADERS, frames.DATA) and flags & frames.END_STREAM:
                        peer.answer(stream_id)
                peer._more()
        finally:
            timer.join()

    return behaviour


def http2_refuses_bodies(sock: socket.socket) -> None:
    """As `refuses_bodies`: the answer, and the connection closed with the body unread."""
    peer = Http2Peer(sock, {frames.INITIAL_WINDOW_SIZE: 2**31 - 1})
    sock.sendall(frames.window_update(0, 2**31 - 1 - 65535))
    block = encode_block([(":status", "413")])
    sock.sendall(frames.headers_frames(peer.next_request(), block, end_stream=True))
    sock.close()


def goaway_at_once(sock: socket.socket) -> None:
    Http2Peer(sock)
    sock.sendall(frames.goaway(0, frames.NO_ERROR))
    _read_forever(sock)


def zero_window(sock: socket.socket) -> None:
    """No DATA is ever allowed; requests with a body cannot end."""
    Http2Peer(sock, {frames.INITIAL_WINDOW_SIZE: 0})
    _read_forever(sock)


def http2_always(answer: Callable[[int], bytes]) -> Behaviour:
    """Every request is answered like that; the connection stays."""

    def behaviour(sock: socket.socket) -> None:
        peer = Http2Peer(sock)
        while True:
            sock.sendall(answer(peer.next_request()))

    return behaviour


_TEN_BLOCK = encode_block([(":status", "200"), ("content-length", "10")])
_GRPC_BLOCK = encode_block([(":status", "200"), ("content-type", "application/grpc")])
_GRPC_OK = encode_block([("grpc-status", "0")])


def _grpc_answer(stream_id: int, body: bytes, trailers: bytes = _GRPC_OK) -> bytes:
    return (
        frames.headers_frames(stream_id, _GRPC_BLOCK, end_stream=False)
        + frames.data_frames(stream_id, body, end_stream=False)
        + frames.headers_frames(stream_id, trailers, end_stream=True)
    )


short_body = http2_always(
    lambda stream_id: (
        frames.headers_frames(stream_id, _TEN_BLOCK, end_stream=False)
        + frames.data_frames(stream_id, b"ok", end_stream=True)
    )
)
no_body = http2_always(lambda stream_id: frames.headers_frames(stream_id, _TEN_BLOCK, end_stream=True))
no_status = http2_always(
    lambda stream_id: frames.headers_frames(stream_id, encode_block([("x", "y")]), end_stream=False)
)
data_first = http2_always(lambda stream_id: frames.data_frames(stream_id, b"x", end_stream=False))
cut_message = http2_always(lambda stream_id: _grpc_answer(stream_id, b"\0\0\0\3\xe8"))
two_messages = http2_always(lambda stream_id: _grpc_answer(stream_id, bytes(10)))
no_trailers = http2_always(
    lambda stream_id: (
        frames.headers_frames(stream_id, _GRPC_BLOCK, end_stream=False)
        + frames.data_frames(stream_id, bytes(5), end_stream=True)
    )
)

MALFORMED: dict[str, Behaviour] = {
    "short_body": short_body, "no_body": no_body, "no_status": no_status, "data_first": data_first,
}  # fmt: skip
"""HTTP/2: every request fails of kind `protocol`, and the connections live."""

MALFORMED_GRPC: dict[str, Behaviour] = {
    "cut_message": cut_message, "two_messages": two_messages, "no_trailers": no_trailers,
}  # fmt: skip

HTTP1: tuple[Behaviour, ...] = (
    never_answers, closes_at_once, resets_at_once, resets_after_request, garbage, closes_mid_head,
    closes_mid_body, closes_mid_chunk, bad_chunk_size, two_lengths, endless_head, endless_interim,
)  # fmt: skip
"""With each of these every request must end as an error, in time."""

HTTP2: dict[str, Behaviour] = {
    "never_answers": never_answers, "closes_at_once": closes_at_once, "resets_at_once": resets_at_once,
    "resets_after_request": resets_after_request, "garbage": garbage, "ping_flood": ping_flood,
    "settings_flood": settings_flood, "window_update_flood": window_update_flood,
    "empty_data_flood": empty_data_flood, "unknown_frame_flood": unknown_frame_flood,
    "continuation_flood": continuation_flood, "goaway": goaway_after(0),
    "rst": rst_after(0, frames.INTERNAL_ERROR), "bad_block": bad_block, "huge_frame": huge_frame,
    "interrupted_block": interrupted_block, "stray_data": stray_data, "zero_increment": zero_increment,
}  # fmt: skip
"""As HTTP1."""
