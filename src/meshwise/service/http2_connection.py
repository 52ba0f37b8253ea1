"""What both sides of an HTTP/2 connection share (RFC 9113): frames in, frames out, flow control. No socket.

Rules of this file:
- `receive` returns all that must be sent now; what becomes ready later goes to `emit`.
- The windows we grant are large and refilled at half; the windows we are granted are kept exactly, and
  what does not fit waits in its stream.
- An error of the connection is answered with GOAWAY and ends it; an error of a stream with RST_STREAM.
"""

from __future__ import annotations

import struct
from abc import abstractmethod

from meshwise.load.wire import frames
from meshwise.load.wire.frames import FramingError
from meshwise.service.http2_blocks import PeerBlocks
from meshwise.service.http2_sending import STREAM_WINDOW_BYTES, ServerStream, StreamSender

CONNECTION_WINDOW_BYTES = 1 << 24
MAX_BLOCK_BYTES = 64 << 10
MAX_CONTINUATIONS = 32

_unpack_head = struct.Struct(">BHBBL").unpack_from
_PLAIN = frames.PADDED | frames.HAS_PRIORITY | frames.END_HEADERS


class Http2Connection(StreamSender):
    """Base of both sides; a side says what headers, data and resets mean."""

    __slots__ = (
        "_block", "_block_end", "_block_frames", "_block_stream", "_blocks", "_buffer", "_granted",
        "_preface", "_told_goaway", "closing",
    )  # fmt: skip

    def __init__(self, preface: bytes) -> None:
        super().__init__()
        self._preface = preface
        """What the peer must send first; empty once it has."""
        self._buffer = b""
        self._blocks = PeerBlocks()
        self._block: bytes | None = None
        """A header block that CONTINUATION frames complete."""
        self._block_stream = 0
        self._block_end = False
        self._block_frames = 0
        self._granted = CONNECTION_WINDOW_BYTES
        self._told_goaway = False
        self.closing = False
        """No more will be read; close when all is sent and `idle`."""

    # --- the owner's side ----------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        return not (self._streams or self._out)

    @property
    def waiting_bytes(self) -> int:
        return 0

    def receive(self, data: bytes) -> bytes:
        if self.closing and self._told_goaway and not self._streams:
            return b""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        try:
            self._frames(data)
        except FramingError as error:
            self._fail(error)
        return self.take()

    def _fail(self, error: FramingError) -> None:
        self._out.append(frames.goaway(self._highest_peer_stream(), error.code, str(error).encode()[:200]))
        self._told_goaway = True
        self.closing = True
        self._drop_all(str(error))

    # --- what a side says ----------------------------------------------------------------------

    @abstractmethod
    def _highest_peer_stream(self) -> int:
        """The last stream of the peer that was begun."""

    @abstractmethod
    def _on_block(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """A whole block of fields has come."""

    @abstractmethod
    def _on_end(self, stream_id: int, stream: ServerStream) -> None:
        """The peer has sent all of a stream whose DATA we take."""

    @abstractmethod
    def _wants_data(self, stream: ServerStream) -> bool:
        """Keep the payload (in `pieces`), or only count it?"""

    def _on_piece(self, stream_id: int, stream: ServerStream) -> None:
        """Of a piecemeal stream: `pieces` has grown; takes them."""

    @abstractmethod
    def _on_goaway(self, last_stream_id: int, code: int) -> None:
        """The peer begins no stream any more, and has seen none of ours beyond `last_stream_id`."""

    @abstractmethod
    def _is_idle_stream(self, stream_id: int) -> bool:
        """Has this stream never been opened?"""

    def _on_settings(self, key: int, value: int) -> None:
        """A setting that only one side cares about."""

    def _drop_all(self, reason: str) -> None:
        self._streams.clear()
        self._blocked.clear()

    # --- reading -------------------------------------------------------------------------------

    def _frames(self, data: bytes) -> None:
        offset, end = 0, len(data)
        if self._preface:
            known = min(end, len(self._preface))
            if data[:known] != self._preface[:known]:
                raise FramingError(frames.PROTOCOL_ERROR, "not the HTTP/2 connection preface")
            if end < len(self._preface):
                self._buffer = data
                return
            offset = len(self._preface)
            self._preface = b""
        while end - offset >= 9:
            high, length, kind, flags, stream_id = _unpack_head(data, offset)
            if high or length > frames.DEFAULT_FRAME_BYTES:
                raise FramingError(frames.FRAME_SIZE_ERROR, "frame longer than allowed")
            start = offset + 9
            stop = start + length
            if stop > end:
                break
            offset = stop
            stream_id &= frames.MAX_STREAM_ID
            if self._block is not None and (kind != frames.CONTINUATION or stream_id != self._block_stream):
                raise FramingError(frames.PROTOCOL_ERROR, "a header block was interrupted")
            if kind == frames.HEADERS and flags & _PLAIN == frames.END_HEADERS and stream_id:
                self._on_block(stream_id, data[start:stop], bool(flags & frames.END_STREAM))
            elif kind == frames.DATA:
                self._data(flags, stream_id, data[start:stop])
            else:
                self._other(kind, flags, stream_id, data[start:stop])
        if offset < end:
            self._buffer = data[offset:]

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        length = len(payload)
        self._granted -= length
        if self._granted < CONNECTION_WINDOW_BYTES >> 1:
            if self._granted < 0:
                raise FramingError(frames.FLOW_CONTROL_ERROR, "more data than the connection's window")
            self._out.append(frames.window_update(0, CONNECTION_WINDOW_BYTES - self._granted))
            self._granted = CONNECTION_WINDOW_BYTES
        stream = self._streams.get(stream_id)
        if stream is None or stream.remote_closed:
            self._stray(stream_id, "DATA")
            return
        if flags & frames.PADDED:
            payload = frames.unpad(frames.DATA, flags, payload)
        stream.received += len(payload)
        if self._wants_data(stream):
            stream.pieces.append(payload)
            if stream.piecemeal:
                self._on_piece(stream_id, stream)
        if flags & frames.END_STREAM:
            stream.remote_closed = True
            self._on_end(stream_id, stream)
            return
        stream.granted -= length
        if stream.granted < STREAM_WINDOW_BYTES >> 1:
            if stream.granted < 0:
                self._reset(stream_id, frames.FLOW_CONTROL_ERROR)
                return
            self._out.append(frames.window_update(stream_id, STREAM_WINDOW_BYTES - stream.granted))
            stream.granted = STREAM_WINDOW_BYTES

    def _stray(self, stream_id: int, what: str) -> None:
        """A frame for a stream that is not open: an error, unless we have just reset it."""
        if self._is_idle_stream(stream_id):
            raise FramingError(frames.PROTOCOL_ERROR, f"{what} on a stream that was never opened")
        if stream_id not in self._reset_by_us:
            raise FramingError(frames.STREAM_CLOSED, f"{what} on a stream that has ended")

    def _other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            self._begin_block(flags, stream_id, payload)
        elif kind == frames.CONTINUATION:
            self._continue_block(flags, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._window_update(stream_id, frames.parse_increment(payload))
        elif kind == frames.SETTINGS:
            self._settings(flags, stream_id, payload)
        elif kind == frames.PING:
            if len(payload) != 8:
                raise FramingError(frames.FRAME_SIZE_ERROR, "PING that is not 8 bytes long")
            if stream_id:
                raise FramingError(frames.PROTOCOL_ERROR, "PING on a stream")
            if not flags & frames.ACK:
                self._out.append(frames.ping(payload, ack=True))
        elif kind == frames.RST_STREAM:
            self._rst_stream(stream_id, frames.parse_code(payload))
        elif kind == frames.GOAWAY:
            if stream_id:
                raise FramingError(frames.PROTOCOL_ERROR, "GOAWAY on a stream")
            self._on_goaway(*frames.parse_goaway(payload))
        elif kind == frames.PRIORITY:
            if len(payload) != 5:
                raise FramingError(frames.FRAME_SIZE_ERROR, "PRIORITY that is not 5 bytes long")
            if not stream_id:
                raise FramingError(frames.PROTOCOL_ERROR, "PRIORITY without a stream")
        elif kind == frames.PUSH_PROMISE:
            raise FramingError(frames.PROTOCOL_ERROR, "PUSH_PROMISE, which we have switched off")

    def _begin_block(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise FramingError(frames.PROTOCOL_ERROR, "HEADERS without a stream")
        block = frames.unpad(frames.HEADERS, flags, payload)
        if flags & frames.END_HEADERS:
            self._on_block(stream_id, block, bool(flags & frames.END_STREAM))
            return
        self._block, self._block_stream, self._block_frames = block, stream_id, 0
        self._block_end = bool(flags & frames.END_STREAM)

    def _continue_block(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise FramingError(frames.PROTOCOL_ERROR, "CONTINUATION without a header block")
        self._block += payload
        self._block_frames += 1
        if len(self._block) > MAX_BLOCK_BYTES or self._block_frames > MAX_CONTINUATIONS:
            raise FramingError(frames.ENHANCE_YOUR_CALM, "header block too long")
        if flags & frames.END_HEADERS:
            block, self._block = self._block, None
            self._on_block(self._block_stream, block, self._block_end)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise FramingError(frames.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise FramingError(frames.FRAME_SIZE_ERROR, "SETTINGS acknowledgement with a payload")
            return
        for key, value in frames.parse_settings(payload):
            if key == frames.INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._initial_window
                self._initial_window = value
            elif key == frames.MAX_FRAME_SIZE:
                self._peer_frame_bytes = value
            else:
                self._on_settings(key, value)
        self._out.append(frames.SETTINGS_ACK)
        self._pump()

    def _window_update(self, stream_id: int, increment: int) -> None:
        if not stream_id:
            self._send_window += increment
            if not increment:
                raise FramingError(frames.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            if self._send_window > frames.MAX_WINDOW_BYTES:
                raise FramingError(frames.FLOW_CONTROL_ERROR, "connection window above 2^31-1")
        else:
            stream = self._streams.get(stream_id)
            if stream is None:
                if self._is_idle_stream(stream_id):
                    raise FramingError(frames.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
                return  # it ended while this was on its way
            stream.window += increment
            if not increment:
                self._reset(stream_id, frames.PROTOCOL_ERROR)
            elif stream.window > frames.MAX_WINDOW_BYTES:
                self._reset(stream_id, frames.FLOW_CONTROL_ERROR)
        if self._blocked:
            self._pump()

    def _rst_stream(self, stream_id: int, code: int) -> None:
        if not stream_id or self._is_idle_stream(stream_id):
            raise FramingError(frames.PROTOCOL_ERROR, "RST_STREAM on a stream that was never opened")
        stream = self._streams.pop(stream_id, None)
        self._blocked.pop(stream_id, None)
        if stream is not None:
            self._on_reset(stream_id, stream, code)


def first_frames(preface: bytes, settings: dict[int, int]) -> bytes:
    """What a side sends first: its settings and the connection's window."""
    common = {
        frames.HEADER_TABLE_SIZE: 0,
        frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
        frames.MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
    }
    return (
        preface
        + frames.settings({**common, **settings})
        + frames.window_update(0, CONNECTION_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES)
    )
