"""HTTP/2 frames (RFC 9113 sections 4 and 6): constants, building, minimal parsing. For both sides.

Rules of this file: values in, bytes out and back; nothing is kept between calls; nothing here knows
which side of the connection we are. A violation of the framing raises `FramingError` with the
connection error code that RFC 9113 demands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Frame types (section 6). Unknown types are ignored (section 4.1).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

# Flags.
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

# Settings (section 6.5.2).
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

# Error codes (section 7).
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11

DEFAULT_WINDOW_BYTES = 65_535
DEFAULT_FRAME_BYTES = 16_384
MAX_WINDOW_BYTES = 2**31 - 1
MAX_STREAM_ID = 2**31 - 1
HEAD_BYTES = 9

Frame = tuple[int, int, int, bytes]
"""(type, flags, stream id, payload)"""

_HEAD = struct.Struct(">BHBBL")
_SETTING = struct.Struct(">HL")


_CODE_NAMES = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip


def code_name(code: int) -> str:
    """Of an error code (RFC 9113 section 7)."""
    return _CODE_NAMES[code] if code < len(_CODE_NAMES) else f"error code {code}"


class FramingError(Exception):
    """The peer broke the framing; `code` is the error code for GOAWAY."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(what)
        self.code = code


# --- building ----------------------------------------------------------------------------------


def head(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine bytes before a payload of `length` bytes."""
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return head(len(payload), kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values.items()))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def ping(payload: bytes = bytes(8), *, ack: bool = False) -> bytes:
    """`payload`: 8 opaque bytes; an answer carries those that were received."""
    return frame(PING, ACK if ack else 0, 0, payload)


def window_update(stream_id: int, increment_bytes: int) -> bytes:
    """`stream_id` 0 is the connection; the increment is 1 .. 2^31-1."""
    return frame(WINDOW_UPDATE, 0, stream_id, increment_bytes.to_bytes(4, "big"))


def rst_stream(stream_id: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">LL", last_stream_id, code) + debug)


def headers_frames(
    stream_id: int, block: bytes, *, end_stream: bool, frame_bytes: int = DEFAULT_FRAME_BYTES
) -> bytes:
    """HEADERS, continued by CONTINUATION when the block is longer than the peer's frame size."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= frame_bytes:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [block[start : start + frame_bytes] for start in range(0, len(block), frame_bytes)]
    frames = [frame(HEADERS, flags, stream_id, parts[0])]
    frames += [frame(CONTINUATION, 0, stream_id, part) for part in parts[1:-1]]
    return b"".join([*frames, frame(CONTINUATION, END_HEADERS, stream_id, parts[-1])])


def data_frames(
    stream_id: int, body: bytes, *, end_stream: bool, frame_bytes: int = DEFAULT_FRAME_BYTES
) -> bytes:
    """DATA frames; an empty body gives one empty frame. Flow control is the caller's."""
    starts = range(0, len(body), frame_bytes) or (0,)
    last = starts[-1]
    return b"".join(
        frame(
            DATA,
            END_STREAM if end_stream and start == last else 0,
            stream_id,
            body[start : start + frame_bytes],
        )
        for start in starts
    )


# --- parsing -----------------------------------------------------------------------------------


def parse_head(data: bytes, offset: int = 0) -> tuple[int, int, int, int]:
    """(length, type, flags, stream id) of the frame that starts at `offset`; needs nine bytes there."""
    high, low, kind, flags, stream_id = _HEAD.unpack_from(data, offset)
    return high << 16 | low, kind, flags, stream_id & MAX_STREAM_ID


def split(data: bytes, frame_bytes: int = DEFAULT_FRAME_BYTES) -> tuple[list[Frame], bytes]:
    """All whole frames of `data`, and the bytes of the frame that is not whole yet."""
    frames: list[Frame] = []
    offset, end = 0, len(data)
    while end - offset >= HEAD_BYTES:
        length, kind, flags, stream_id = parse_head(data, offset)
        if length > frame_bytes:
            raise FramingError(FRAME_SIZE_ERROR, f"frame of {length} bytes, allowed are {frame_bytes}")
        start = offset + HEAD_BYTES
        if end - start < length:
            break
        offset = start + length
        frames.append((kind, flags, stream_id, data[start:offset]))
    return frames, data[offset:]


def unpad(kind: int, flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without padding and priority fields."""
    start, stop = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise FramingError(FRAME_SIZE_ERROR, "padded frame without a padding length")
        start, stop = 1, stop - payload[0]
    if kind == HEADERS and flags & HAS_PRIORITY:
        start += 5
    if start > stop:
        raise FramingError(PROTOCOL_ERROR, "padding longer than the frame")
    return payload[start:stop]


def parse_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """(setting, value) pairs, checked as section 6.5.2 demands."""
    if len(payload) % 6:
        raise FramingError(FRAME_SIZE_ERROR, "SETTINGS whose length is not a multiple of 6")
    for key, value in _SETTING.iter_unpack(payload):
        if key == INITIAL_WINDOW_SIZE and value > MAX_WINDOW_BYTES:
            raise FramingError(FLOW_CONTROL_ERROR, "initial window above 2^31-1")
        if key == ENABLE_PUSH and value > 1:
            raise FramingError(PROTOCOL_ERROR, f"a setting of push of {value}")
        if key == MAX_FRAME_SIZE and not DEFAULT_FRAME_BYTES <= value < 2**24:
            raise FramingError(PROTOCOL_ERROR, f"frame size setting of {value}")
        yield key, value


def parse_increment(payload: bytes) -> int:
    """The increment of a WINDOW_UPDATE; 0 is an error that the caller scopes to stream or connection."""
    if len(payload) != 4:
        raise FramingError(FRAME_SIZE_ERROR, "WINDOW_UPDATE that is not 4 bytes long")
    return int.from_bytes(payload, "big") & MAX_WINDOW_BYTES


def parse_code(payload: bytes) -> int:
    """The error code of a RST_STREAM."""
    if len(payload) != 4:
        raise FramingError(FRAME_SIZE_ERROR, "RST_STREAM that is not 4 bytes long")
    return int.from_bytes(payload, "big")


def parse_goaway(payload: bytes) -> tuple[int, int]:
    """(last stream id, error code)"""
    if len(payload) < 8:
        raise FramingError(FRAME_SIZE_ERROR, "GOAWAY shorter than 8 bytes")
    last, code = struct.unpack_from(">LL", payload)
    return last & MAX_STREAM_ID, code
