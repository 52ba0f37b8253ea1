"""An HTTP/2 answer under way, and what its header blocks say of it (RFC 9113 sections 8.1 to 8.3).

What is wrong with one answer is a `StreamError`: it ends that request, and the connection goes on.
"""

from __future__ import annotations

import re

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import FieldList
from meshwise.load.wire.grpc_messages import MessageReader

NO_STATUS, NOT_A_STATUS = -1, -2
"""Of gRPC: none was given; one was given that is no number."""
ANY_LENGTH = -1
MOST_INTERIM = 256
"""Interim responses of one answer."""

_NAME = re.compile(rb":?[!-9;-@\[-~]+")
_BAD_VALUE = re.compile(rb"[\0\r\n]")
_OF_CONNECTIONS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)


class StreamError(Exception):
    """One answer is malformed; `code` is the error code for RST_STREAM (section 5.4.2)."""

    def __init__(self, what: str, code: int = frames.PROTOCOL_ERROR) -> None:
        super().__init__(what)
        self.code = code


class ResponseStream:
    """An answer that is under way."""

    __slots__ = (
        "body_bytes", "encoded", "expected_bytes", "first_ns", "grpc_status", "interim", "reader", "status",
        "unacknowledged",
    )  # fmt: skip

    def __init__(self, first_ns: int) -> None:
        self.first_ns = first_ns
        self.status = 0
        self.grpc_status = NO_STATUS
        self.body_bytes = 0
        self.encoded = False
        """Messages of gRPC may be compressed."""
        self.expected_bytes = ANY_LENGTH
        """Of the body, as the answer's head says."""
        self.interim = 0
        self.unacknowledged = 0
        self.reader: MessageReader | None = None


Meaning = tuple[int, int, int, str, bool]
"""Of a header block: HTTP status or 0, gRPC status, content length or ANY_LENGTH, what is malformed or '',
whether it names an encoding of gRPC's messages"""


def meaning_of(fields: FieldList) -> Meaning:
    """What a header block says, wherever it stands. gRPC's fields are judged by those who speak gRPC."""
    status, grpc_status, length, problem = 0, NO_STATUS, ANY_LENGTH, ""
    regular = encoded = False
    for name, value in fields:
        if not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            problem = problem or f"a field that HTTP/2 does not allow: {name[:40]!r}"
        elif name[0] == 0x3A:
            number = int(value) if len(value) == 3 and value.isdigit() else 0
            if regular or name != b":status" or status or number < 100:
                problem = problem or f"the pseudo-header field {name[:20]!r} of {value[:20]!r}"
            status = status or number
            continue
        elif name == b"grpc-status":
            grpc_status = int(value) if len(value) <= 3 and value.isdigit() else NOT_A_STATUS
        elif name == b"grpc-encoding":
            encoded = value != b"identity"
        elif name == b"content-length":
            said = _content_length(value)
            if said < 0 or length not in (ANY_LENGTH, said):
                problem = problem or f"a content-length of {value[:20]!r}"
            length = said
        elif name in _OF_CONNECTIONS:
            problem = problem or f"the field {name.decode()}, which HTTP/2 forbids"
        regular = True
    return status, grpc_status, length, problem, encoded


def _content_length(value: bytes) -> int:
    """-1: it is none. A list of equal numbers is one number (RFC 9110 section 8.6)."""
    texts = {text.strip() for text in value.split(b",")}
    text = texts.pop()
    return int(text) if not texts and text.isdigit() and len(text) <= 18 else -1


def begin(stream: ResponseStream, meaning: Meaning, *, ends: bool, bodiless: bool) -> None:
    """Takes a header block before the body. Raises StreamError. `bodiless`: the method was HEAD."""
    status, grpc_status, length, _, stream.encoded = meaning
    if not status:
        raise StreamError("response HEADERS without a status")
    if status == 101:
        raise StreamError("status 101, which HTTP/2 does not have")
    if status < 200:
        stream.interim += 1
        if ends:
            raise StreamError("an interim response that ends the stream")
        if stream.interim > MOST_INTERIM:
            raise StreamError(f"more than {MOST_INTERIM} interim responses", frames.ENHANCE_YOUR_CALM)
        return
    stream.status = status
    stream.expected_bytes = 0 if bodiless or status in (204, 304) else length
    if ends:  # gRPC: trailers only
        stream.grpc_status = grpc_status


def end(stream: ResponseStream, meaning: Meaning, *, ends: bool) -> None:
    """Takes a header block behind the body. Raises StreamError."""
    status, grpc_status, _, _, _ = meaning
    if status:
        raise StreamError("a status in trailers")
    if not ends:
        raise StreamError("trailers that do not end the stream")
    stream.grpc_status = grpc_status


def wrong_length(stream: ResponseStream) -> str:
    """Of an answer that has ended, or whose body has gone too far; empty: all is well."""
    came, expected = stream.body_bytes, stream.expected_bytes
    if expected in (ANY_LENGTH, came):
        return ""
    if not expected:
        return f"a body with a status of {stream.status} that has none, or in answer to HEAD, or of length 0"
    return f"{came} bytes of body where the content-length is {expected}"
