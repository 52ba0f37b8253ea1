"""One named member out of a layer or release archive.

Members are never unpacked by their own names: the one that is wanted is copied into a file of ours. So a
hostile archive has no path to traverse and no link to follow.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal, cast

import pyarrow as pa

from meshwise.core import messages
from meshwise.mesh.binaries.limits import BINARY_BYTES, UNPACKED_BYTES, Deadline
from meshwise.mesh.binaries.tar import Member, members
from meshwise.mesh.binaries.transfer import own_files

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_CHUNK_BYTES = 1 << 18

Outcome = Literal["extracted", "removed", "absent"]


def extract_member(archive: Path, path: str, target: Path, deadline: Deadline, source: str) -> Outcome:
    """Copy the regular file `path` into `target` (mode 0755).

    `removed`: the layer holds a whiteout for it or for a folder above it (image-spec layer.md), so layers
    below do not count. `source` says in errors where the archive is from. Raises MW807 for an unreadable
    archive, MW805 for what is too large, MW815.
    """
    removed = False
    whiteouts = _whiteouts(path)

    def check(unpacked: int) -> None:
        deadline.left_s(source)
        if unpacked > UNPACKED_BYTES:
            raise messages.DOWNLOAD_TOO_LARGE.error(where=source, limit=UNPACKED_BYTES)

    try:
        with archive.open("rb") as raw:
            for member in members(cast(BinaryIO, _Unpacked(_decompressed(raw), check))):
                name = os.path.normpath(member.name).lstrip("/")
                if name == path and member.regular:
                    if member.size_bytes > BINARY_BYTES:
                        raise messages.DOWNLOAD_TOO_LARGE.error(where=source, limit=BINARY_BYTES)
                    _copy(member, target)
                    return "extracted"
                removed = removed or name in whiteouts
    except (ValueError, zlib.error, EOFError, OSError) as error:
        target.unlink(missing_ok=True)
        raise messages.BAD_MANIFEST.error(
            where=source, reason=f"an archive cannot be read: {error}"
        ) from error
    return "removed" if removed else "absent"


class _Unpacked:
    """A stream that says how much of it has been read."""

    def __init__(self, stream: BinaryIO, check: Callable[[int], None]) -> None:
        self._stream, self._check, self._read = stream, check, 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(min(size, _CHUNK_BYTES))
        self._read += len(chunk)
        self._check(self._read)
        return chunk


def _whiteouts(path: str) -> set[str]:
    folders = path.split("/")
    marks = set()
    for depth, part in enumerate(folders):
        above = "/".join(folders[:depth])
        marks.add(f"{above}/.wh.{part}".lstrip("/"))
        marks.add(f"{above}/.wh..wh..opq".lstrip("/"))
    return marks


def _decompressed(raw: BinaryIO) -> BinaryIO:
    magic = raw.read(4)
    raw.seek(0)
    if magic.startswith(_GZIP):
        return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "gzip"))
    if magic == _ZSTD:
        return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))
    return raw


def _copy(member: Member, target: Path) -> None:
    with own_files(target):
        out = target.open("wb", buffering=0)
    with out:
        while chunk := member.read(_CHUNK_BYTES):
            with own_files(target):
                out.write(chunk)
    target.chmod(0o755)
