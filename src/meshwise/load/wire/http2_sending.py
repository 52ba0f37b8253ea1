"""The sending half of an HTTP/2 connection: requests, and bodies that wait for the peer's windows.

Everything but the stream id of a request is assembled once: a request is `key.join(pieces)`, its key the four
bytes of its stream id. A body that a window does not take at once is held back and goes up as windows allow.
"""

from __future__ import annotations

from meshwise.load.wire import frames
from meshwise.load.wire.frames import DEFAULT_WINDOW_BYTES, MAX_STREAM_ID, MAX_WINDOW_BYTES, FramingError
from meshwise.load.wire.http2_request import EncodedRequest
from meshwise.load.wire.http2_stream import StreamError

_CONNECTION = b"\0\0\0\0"


class Sending:
    """See the head of the file. The receiving half is `http2.Http2`, which owns all of it."""

    def __init__(self, request: EncodedRequest, streams: int) -> None:
        self.ready = False
        self.closing = False
        self.limit = 0  # until the peer's SETTINGS have come
        self.attention = False
        self._streams_wanted, self._streams_allowed = streams, streams
        self._request = request
        self._body_bytes = len(request.body)
        self._open: dict[bytes, int] = {}
        self._held_back: dict[bytes, int] = {}  # key -> bytes of the body already sent
        self._stream_windows: dict[bytes, int] = {}
        self._next_id = 1
        self._send_window = DEFAULT_WINDOW_BYTES
        self._initial_window = DEFAULT_WINDOW_BYTES
        self._control: list[bytes] = []

    def start(self, tag: int) -> bytes:
        if len(self._open) >= self.limit:
            return b""
        stream_id = self._next_id
        if stream_id >= MAX_STREAM_ID - 2:
            self._end()  # ids are used up after a thousand million requests
        self._next_id = stream_id + 2
        key = stream_id.to_bytes(4, "big")
        self._open[key] = tag
        size = self._body_bytes
        if size:
            if size > self._send_window or size > self._initial_window:
                return self._start_held_back(key)
            self._send_window -= size
        return key.join(self._request.pieces)

    def take_control(self) -> bytes:
        control = b"".join(self._control)
        self._control.clear()
        return control

    def _end(self) -> None:
        self.closing = True
        self.limit = 0
        self.attention = True

    def _send(self, data: bytes) -> None:
        self._control.append(data)
        self.attention = True

    def _start_held_back(self, key: bytes) -> bytes:
        self._held_back[key] = 0
        self._stream_windows[key] = self._initial_window
        return key.join(self._request.head_pieces) + self._more_body(key)

    def _more_body(self, key: bytes) -> bytes:
        """As much of the body as both windows allow."""
        sent, body = self._held_back[key], self._request.body
        size = min(self._sendable_bytes(key) - sent, self._send_window, self._stream_windows[key])
        if size <= 0:
            return b""
        self._send_window -= size
        self._stream_windows[key] -= size
        last = sent + size == len(body)
        if last:
            del self._held_back[key], self._stream_windows[key]
        else:
            self._held_back[key] = sent + size
        return frames.data_frames(int.from_bytes(key, "big"), body[sent : sent + size], end_stream=last)

    def _sendable_bytes(self, key: bytes) -> int:
        """How much of the body may go up by now, whatever the windows allow."""
        return len(self._request.body)

    def _send_held_back(self) -> None:
        for key in list(self._held_back):
            more = self._more_body(key)
            if more:
                self._send(more)
            if self._send_window <= 0:
                break

    def _on_settings(self, flags: int, key: bytes, payload: bytes) -> None:
        if key != _CONNECTION:
            raise FramingError(frames.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise FramingError(frames.FRAME_SIZE_ERROR, "SETTINGS acknowledgement with a payload")
            if not self.ready:
                raise FramingError(frames.PROTOCOL_ERROR, "an acknowledgement before the peer's own SETTINGS")
            return
        for setting, value in frames.parse_settings(payload):
            if setting == frames.MAX_CONCURRENT_STREAMS:
                self._streams_allowed = value
            elif setting == frames.INITIAL_WINDOW_SIZE:
                change, self._initial_window = value - self._initial_window, value
                for stream in self._stream_windows:
                    self._stream_windows[stream] += change
                    if self._stream_windows[stream] > MAX_WINDOW_BYTES:
                        raise FramingError(frames.FLOW_CONTROL_ERROR, f"an initial window of {value}")
            elif setting == frames.ENABLE_PUSH and value:
                raise FramingError(frames.PROTOCOL_ERROR, "a server that enables push")
        self.ready = True
        self.limit = 0 if self.closing else min(self._streams_wanted, self._streams_allowed)
        self._send(frames.SETTINGS_ACK)
        self._send_held_back()

    def _on_window_update(self, key: bytes, payload: bytes) -> None:
        increment = frames.parse_increment(payload)
        if key == _CONNECTION:
            self._send_window += increment
            if not increment or self._send_window > MAX_WINDOW_BYTES:
                raise FramingError(frames.FLOW_CONTROL_ERROR, f"WINDOW_UPDATE of {increment}")
        elif key in self._open:
            if not increment:
                raise StreamError("WINDOW_UPDATE of 0")
            if key in self._stream_windows:  # else the body is sent, and the window of no more use
                self._stream_windows[key] += increment
                if self._stream_windows[key] > MAX_WINDOW_BYTES:
                    raise StreamError(f"WINDOW_UPDATE of {increment}", frames.FLOW_CONTROL_ERROR)
        else:
            self._check_closed(key)
        if self._held_back:
            self._send_held_back()

    def _check_closed(self, key: bytes) -> None:
        """A frame on a stream that is not open: late on one that has ended, or plainly wrong."""
        stream_id = int.from_bytes(key, "big")
        if stream_id >= self._next_id or not stream_id & 1:
            raise FramingError(
                frames.PROTOCOL_ERROR, f"a frame on stream {stream_id}, which was never opened"
            )
