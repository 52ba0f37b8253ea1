"""HTTP/1.1 message syntax for both sides (RFC 9112): heads and bodies. Values in, values out.

Strict where leniency would be a security hole: bare CR or LF, spaces before a colon, folded lines, repeated
or mixed framing fields are errors, as a message that two parties read differently can be smuggled past one
of them.
"""

from __future__ import annotations

import re

MAX_HEAD_BYTES = 64 << 10
MAX_CHUNK_LINE_BYTES = 4 << 10

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

Fields = list[tuple[str, str]]


class Http1SyntaxError(ValueError):
    """The peer's bytes are not HTTP/1.1; `status` is what a server answers."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


def split_head(head: bytes) -> tuple[str, Fields]:
    """First line and fields (names in lower case) of a whole head that ends in an empty line."""
    lines = head.decode("latin-1")[:-4].split("\r\n")
    fields: Fields = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise Http1SyntaxError(400, f"not a header field: {line[:60]!r}")
        value = value.strip(" \t")
        if _BAD_VALUE.search(value):
            raise Http1SyntaxError(400, f"control character in field {name}")
        fields.append((name.lower(), value))
    return lines[0], fields


def values_of(fields: Fields, name: str) -> list[str]:
    """All members of a list field, in lower case."""
    joined = ",".join(value for field, value in fields if field == name)
    return [member.strip().lower() for member in joined.split(",") if member.strip()]


def body_length(fields: Fields) -> int | None:
    """Content-length; -1 for chunked; None when neither is given. Raises Http1SyntaxError."""
    codings = values_of(fields, "transfer-encoding")
    lengths = [value for name, value in fields if name == "content-length"]
    if codings:
        if lengths:
            raise Http1SyntaxError(400, "content-length beside transfer-encoding")
        if codings != ["chunked"]:
            raise Http1SyntaxError(501, "no transfer coding but chunked is known")
        return -1
    if not lengths:
        return None
    if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) < 19):
        raise Http1SyntaxError(400, "content-length is not one number")
    return int(lengths[0])


class LengthBody:
    """A body of known length."""

    __slots__ = ("_remaining", "pieces", "size")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.pieces: list[bytes] = []
        self.size = length

    def feed(self, data: bytes) -> bytes | None:
        """What is left behind the body, or None when the body is not whole yet."""
        part = data[: self._remaining]
        self.pieces.append(part)
        self._remaining -= len(part)
        return None if self._remaining else data[len(part) :]


class ChunkedBody:
    """A chunked body (RFC 9112 section 7.1); extensions and trailers are read and dropped."""

    __slots__ = ("_left", "_state", "_text", "_trailer_bytes", "pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self._text = b""
        """Bytes of a line that is not whole yet."""
        self._left = 0
        self._state = "size"
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes | None:
        """As LengthBody.feed. Raises Http1SyntaxError."""
        data = self._text + data
        self._text = b""
        offset = 0
        while True:
            if self._state == "data":
                part = data[offset : offset + self._left]
                self.pieces.append(part)
                self.size += len(part)
                self._left -= len(part)
                offset += len(part)
                if self._left:
                    return None
                self._state = "data-end"
            end = data.find(b"\r\n", offset)
            if end < 0:
                self._text = data[offset:]
                if len(self._text) > MAX_CHUNK_LINE_BYTES:
                    raise Http1SyntaxError(400, "chunk line too long")
                return None
            line, offset = data[offset:end], end + 2
            if self._line(line):
                return data[offset:]

    def _line(self, line: bytes) -> bool:
        """Take a line in; True when it was the last of the body."""
        if self._state == "data-end":
            if line:
                raise Http1SyntaxError(400, "chunk longer than its size")
            self._state = "size"
            return False
        if self._state == "trailers":
            self._trailer_bytes += len(line)
            if self._trailer_bytes > MAX_HEAD_BYTES:
                raise Http1SyntaxError(431, "trailers too long")
            return not line
        match = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?", line)
        if not match:
            raise Http1SyntaxError(400, f"not a chunk size: {line[:40]!r}")
        self._left = int(match[1], 16)
        self._state = "data" if self._left else "trailers"
        return False


class UntilCloseBody:
    """The body of a response without framing: it lasts as long as the connection."""

    __slots__ = ("pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0

    def feed(self, data: bytes) -> bytes | None:
        self.size += len(data)
        return None


Body = LengthBody | ChunkedBody | UntilCloseBody
