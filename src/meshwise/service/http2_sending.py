"""The sending half of an HTTP/2 connection (RFC 9113), for either side.

Frames that are ready, bodies that wait for the peer's windows, streams that we end. No socket: `resume`
returns what must be sent now, what becomes ready later goes to `emit`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from meshwise.load.wire import frames
from meshwise.service.buffered import discard

STREAM_WINDOW_BYTES = 1 << 20
SENT_AT_ONCE_BYTES = 256 << 10
"""With more than this ready, further DATA waits until it is sent, however large the peer's windows are."""
MAX_REMEMBERED_RESETS = 1024


class ServerStream:
    """One stream that is open: being received, waiting for its answer, or being sent."""

    __slots__ = (
        "context", "granted", "open_ended", "piecemeal", "pieces", "received", "remote_closed", "sending",
        "sent", "step_bytes", "tail", "window",
    )  # fmt: skip

    def __init__(self, context: Any, window: int) -> None:
        self.context = context
        """What the side that made it needs to know of it."""
        self.window = window
        """Bytes of DATA that the peer still takes on this stream."""
        self.granted = STREAM_WINDOW_BYTES
        """Bytes of DATA that the peer may still send on this stream."""
        self.received = 0
        self.pieces: list[bytes] = []
        self.remote_closed = False
        self.sending = b""
        self.sent = 0
        self.tail = b""
        """Frames that follow the body and end the stream; empty: the body's last frame ends it."""
        self.open_ended = False
        """What is being sent is not all: nothing ends the stream yet."""
        self.step_bytes = 0
        """What is being sent is cut into frames at multiples of this, too; 0: anywhere."""
        self.piecemeal = False
        """Each piece of what is received is passed on at once (`_on_piece`)."""


class StreamSender(ABC):
    """See the head of the file. The receiving half is `Http2Connection`."""

    __slots__ = (
        "_blocked", "_flush_due", "_initial_window", "_out", "_peer_frame_bytes", "_reset_by_us",
        "_send_window", "_streams", "emit", "later", "stalled",
    )  # fmt: skip

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self._streams: dict[int, ServerStream] = {}
        self._blocked: dict[int, ServerStream] = {}
        """Streams that have more to send than their windows allow."""
        self._initial_window = frames.DEFAULT_WINDOW_BYTES
        self._peer_frame_bytes = frames.DEFAULT_FRAME_BYTES
        self._send_window = frames.DEFAULT_WINDOW_BYTES
        self._reset_by_us: set[int] = set()
        self.emit: Callable[[bytes], None] = discard
        self.later: Callable[[Callable[[], None]], None] = _at_once
        self._flush_due = False
        self.stalled = False
        """DATA that the windows allow waits because enough is ready that is not sent yet."""

    def resume(self) -> bytes:
        """What was ready is sent: go on with what is `stalled`. Returns what to send."""
        self.stalled = False
        self._pump()
        return self.take()

    def take(self) -> bytes:
        """All that is ready to be sent."""
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)

    def flush(self) -> None:
        """Hand over what became ready outside of `receive`, once for all that becomes ready until `later`."""
        if not self._flush_due:
            self._flush_due = True
            self.later(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_due = False
        data = self.take()
        if data:
            self.emit(data)

    def _reset(self, stream_id: int, code: int) -> None:
        """End a stream from our side."""
        self._out.append(frames.rst_stream(stream_id, code))
        if len(self._reset_by_us) >= MAX_REMEMBERED_RESETS:
            self._reset_by_us.clear()
        self._reset_by_us.add(stream_id)
        stream = self._streams.pop(stream_id, None)
        self._blocked.pop(stream_id, None)
        if stream is not None:
            self._on_reset(stream_id, stream, code)

    def _send_body(self, stream_id: int, stream: ServerStream, body: bytes, tail: bytes) -> None:
        """Send `body`, then `tail` (or END_STREAM with the last of the body), as the windows allow."""
        stream.sending, stream.sent, stream.tail = body, 0, tail
        self._blocked[stream_id] = stream
        self._pump()

    def _send_more(self, stream_id: int, stream: ServerStream, data: bytes) -> None:
        """Sends `data` behind what is being sent, and leaves the stream open."""
        stream.sending, stream.sent = stream.sending[stream.sent :] + data, 0
        stream.open_ended = True
        self._blocked[stream_id] = stream
        self._pump()

    def _pump(self) -> None:
        ready = 0
        if self.stalled:
            return
        for stream_id, stream in list(self._blocked.items()):
            size = len(stream.sending)
            while True:
                left = size - stream.sent
                part = min(left, self._peer_frame_bytes, self._send_window, stream.window)
                if stream.step_bytes:
                    part = min(part, stream.step_bytes - stream.sent % stream.step_bytes)
                if part <= 0 and left:
                    break
                last = part == left
                piece = stream.sending[stream.sent : stream.sent + part]
                stream.sent += part
                stream.window -= part
                self._send_window -= part
                ends = last and not (stream.tail or stream.open_ended)
                ready += part
                if ready > SENT_AT_ONCE_BYTES and not last:
                    self.stalled = True
                if piece or ends:
                    self._out.append(frames.frame(0, frames.END_STREAM if ends else 0, stream_id, piece))
                if last:
                    del self._blocked[stream_id]
                    if not stream.open_ended:
                        self._out.append(stream.tail)
                        self._on_sent(stream_id, stream)
                    break
                if self.stalled:
                    return

    def _on_sent(self, stream_id: int, stream: ServerStream) -> None:  # noqa: B027 - a side may have nothing to do
        """Our side of the stream has ended."""

    @abstractmethod
    def _on_reset(self, stream_id: int, stream: ServerStream, code: int) -> None:
        """The peer has given the stream up."""


def _at_once(call: Callable[[], None]) -> None:
    call()
