"""The head of an HTTP/1.1 response, as a user agent reads it (RFC 9112 sections 2.2, 4, 5 and 6.3).

Taken beyond the grammar: a line that ends with LF alone (section 2.2), no reason phrase, a minor version
above 1 (read as 1.1), folded lines (section 5.2), white space before the colon of a field that has nothing to
do with framing, a list of equal content lengths, empty elements of lists, a transfer coding with HTTP/1.0
(the connection is not used again). What else is malformed is refused; docs/load.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from meshwise.load.wire.foreign import foreign

HEAD_END = re.compile(rb"\n\r?\n")
"""Behind the last line of a head."""
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: |$)")
_NOT_HERE = "the server does not answer in HTTP/1 here"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})


@dataclass(frozen=True)
class ResponseHead:
    """What the head of a response says about its framing."""

    status: int
    length: int | None
    chunked: bool
    keep_alive: bool


class Malformed(Exception):
    """This is no response, or not all of one."""


def check_beginning(data: bytes) -> None:
    """Of a head that may not be whole yet. Raises Malformed for what cannot become one."""
    if not b"HTTP/1.".startswith(data[:7]):
        who = foreign(data)
        raise Malformed(speaks_another(who) if who else f"{_NOT_HERE}, but {data[:24]!r}")


def speaks_another(protocol: str) -> str:
    """What is wrong with a server whose first bytes are of `protocol`."""
    return f"{_NOT_HERE}, it speaks {protocol}"


def parse_head(head: bytes, *, is_head_method: bool) -> ResponseHead:
    """`head` ends before the line end of its last line. Raises Malformed."""
    check_beginning(head)
    lines = _lines(head)
    match = _STATUS_LINE.match(lines[0])
    if not match:
        raise Malformed(f"not an HTTP/1 status line: {lines[0][:40]!r}")
    status, old = int(match[2]), match[1] == b"0"
    lengths: set[bytes] = set()
    codings: list[bytes] = []
    connection: list[bytes] = []
    for name, value in _fields(lines[1:]):
        if name == b"content-length":
            lengths.update(part.strip() for part in value.split(b","))
        elif name == b"transfer-encoding":
            codings += _elements(value)
        elif name == b"connection":
            connection += _elements(value)
    if len(lengths) > 1 or any(not text.isdigit() or len(text) > 18 for text in lengths):
        raise Malformed(f"content-length {b', '.join(sorted(lengths))[:40]!r}")
    keep_alive = b"close" not in connection and (not old or b"keep-alive" in connection)
    if status < 200 or status in (204, 304) or is_head_method:
        return ResponseHead(status, 0, False, keep_alive)
    if codings:
        return _coded(status, codings, keep_alive=keep_alive, faulty=bool(lengths) or old)
    if lengths:
        return ResponseHead(status, int(lengths.pop()), False, keep_alive)
    return ResponseHead(status, None, False, False)


def _coded(status: int, codings: list[bytes], *, keep_alive: bool, faulty: bool) -> ResponseHead:
    """Section 6.3. `faulty`: the framing is not to be trusted behind this response."""
    if b"chunked" in codings[:-1]:
        raise Malformed("a body that was chunked before its last transfer coding")
    if codings[-1] == b"chunked":
        return ResponseHead(status, None, True, keep_alive and not faulty)
    if keep_alive:
        # Until the connection ends, says section 6.3; but this server says that it goes on.
        raise Malformed(f"the transfer coding {codings[-1][:40]!r}, which was not asked for")
    return ResponseHead(status, None, False, False)


def check_trailers(trailers: bytes) -> None:
    """They end before the line end of their last line. Raises Malformed."""
    for _ in _fields(_lines(b"0\n" + trailers)[1:]):
        pass


def _fields(lines: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(name in lower case, value)"""
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise Malformed(f"a header line without a colon: {line[:40]!r}")
        plain = name.rstrip(b" \t").lower()
        if not _NAME.fullmatch(plain) or (plain in _FRAMING and len(plain) != len(name)):
            raise Malformed(f"not the name of a header field: {name[:40]!r}")
        yield plain, value


def _lines(head: bytes) -> list[bytes]:
    """The status line and the field lines, without their ends, folded ones joined."""
    lines: list[bytes] = []
    for raw in head.split(b"\n"):
        line = raw.removesuffix(b"\r")
        if b"\0" in line or b"\r" in line:
            raise Malformed(f"a head with a NUL or a bare CR: {line[:40]!r}")
        if line[:1] in (b" ", b"\t"):
            if len(lines) < 2:
                raise Malformed("white space before the first header field")
            lines[-1] += b" " + line.lstrip(b" \t")
        else:
            lines.append(line)
    return lines


def _elements(value: bytes) -> list[bytes]:
    """Of a list, empty ones left out (RFC 9110 section 5.6.1)."""
    return [text for part in value.split(b",") if (text := part.strip().lower())]
