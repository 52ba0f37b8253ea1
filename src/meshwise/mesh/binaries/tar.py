"""A tar archive, read as a stream with bounds: names, sizes and contents of its regular members.

The standard library's reader takes every extension header into memory whole, whatever its size says, keeps
each member that went by, and follows chains of headers by recursion; a layer of an image is not trusted that
far. Needed here is little: ustar, GNU long names, pax `path` and `size`.

Sources: POSIX.1-2017 `pax` (ustar and pax formats); GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from meshwise.mesh.binaries.limits import TAR_HEADER_BYTES

_BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE = b"L", b"K", b"x", b"g", b"S"
_SKIP_BYTES = 1 << 18


class NotTar(ValueError):
    """Why this is not an archive that can be read."""


@dataclass
class Member:
    """One member; its content must be read before the next is asked for, or is skipped."""

    name: str
    regular: bool
    size_bytes: int
    _stream: BinaryIO
    _left: int

    def read(self, limit_bytes: int) -> bytes:
        """The next part of its content, empty at the end. Raises NotTar when the archive ends first."""
        chunk = self._stream.read(min(limit_bytes, self._left))
        if not chunk and self._left:
            raise NotTar(f"it ends {self._left} bytes before its member does")
        self._left -= len(chunk)
        return chunk

    def skip(self) -> None:
        while self.read(_SKIP_BYTES):
            pass


def members(stream: BinaryIO) -> Iterator[Member]:
    """All members in their order. Raises NotTar; and what `stream` raises."""
    name, size = None, None
    while (header := _header(stream)) is not None:
        kind = header[156:157]
        here = Member(_name(header), kind in _REGULAR, _number(header[124:136]), stream, 0)
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            content = _extension(here.size_bytes, stream)
            if kind == _LONG_NAME:
                name = _text(content)
            elif kind == _PAX:
                records = _pax(content)
                name, size = records.get("path", name), _pax_size(records, size)
            continue
        if kind == _SPARSE:
            raise NotTar("it has a sparse member")
        here.name = here.name if name is None else name
        here.size_bytes = here._left = here.size_bytes if size is None else size
        name, size = None, None
        yield here
        here.skip()
        _padding(here.size_bytes, stream)


def _header(stream: BinaryIO) -> bytes | None:
    """The next header; None at the end, which is a block of zeros or, as some leave it, nothing."""
    header = _exactly(stream, _BLOCK, may_end=True)
    if not header or not any(header):
        return None
    # POSIX: the sum of all bytes, the field of the sum itself counted as spaces.
    if _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise NotTar("a header's checksum is wrong")
    return header


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    is_posix = header[257:263] == b"ustar\0"  # GNU's older format has other things in the prefix
    return f"{prefix}/{name}" if is_posix and prefix else name


def _number(text: bytes) -> int:
    """Octal digits; or, where the highest bit is set, the rest of the bytes (GNU, star)."""
    if text[0] & 0x80:
        number = int.from_bytes(bytes([text[0] & 0x7F]) + text[1:], "big")
        if text[0] & 0x40:
            raise NotTar("a number is negative")
        return number
    digits = text.replace(b"\0", b" ").strip()
    if digits.strip(b"01234567"):
        raise NotTar("a number is not one")
    return int(digits or b"0", 8)


def _extension(size_bytes: int, stream: BinaryIO) -> bytes:
    if size_bytes > TAR_HEADER_BYTES:
        raise NotTar(f"a header is larger than {TAR_HEADER_BYTES} bytes")
    content = _exactly(stream, size_bytes)
    _padding(size_bytes, stream)
    return content


def _pax(content: bytes) -> dict[str, str]:
    """`LENGTH KEY=VALUE\\n` again and again; LENGTH counts all of it."""
    records, at = {}, 0
    while at < len(content):
        length, separator, _ = content[at : at + 20].partition(b" ")
        end = at + int(length) if separator and length.isdigit() else at
        if not at + len(length) + 1 < end <= len(content) or content[end - 1 : end] != b"\n":
            raise NotTar("a pax header is broken")
        key, _, value = content[at + len(length) + 1 : end - 1].partition(b"=")
        records[_text(key)] = _text(value)
        at = end
    if any(key.startswith("GNU.sparse.") for key in records):
        raise NotTar("it has a sparse member")
    return records


def _pax_size(records: dict[str, str], before: int | None) -> int | None:
    text = records.get("size")
    if text is None:
        return before
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise NotTar("a size is not a number")
    return int(text)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _padding(size_bytes: int, stream: BinaryIO) -> None:
    _exactly(stream, -size_bytes % _BLOCK)


def _exactly(stream: BinaryIO, wanted: int, *, may_end: bool = False) -> bytes:
    parts, left = [], wanted
    while left and (part := stream.read(left)):
        parts.append(part)
        left -= len(part)
    if left and not (may_end and left == wanted):
        raise NotTar("it ends within a header")
    return b"".join(parts)
