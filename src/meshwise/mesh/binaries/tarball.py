"""One named member out of a layer or release archive.

Members are never unpacked by their own names: the one that is wanted is copied into a file of ours. So a
hostile archive has no path to traverse and no link to follow.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, Literal, cast

import pyarrow as pa

from meshwise.core import messages

MEMBER_LIMIT_BYTES = 1 << 30
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

Outcome = Literal["extracted", "removed", "absent"]


def extract_member(archive: Path, path: str, target: Path) -> Outcome:
    """Copy the regular file `path` into `target` (mode 0755).

    `removed`: the layer holds a whiteout for it or for a folder above it (image-spec layer.md), so layers
    below do not count. Raises MW807 for an unreadable archive, MW805 for an oversized member.
    """
    removed = False
    whiteouts = _whiteouts(path)
    try:
        with archive.open("rb") as raw, tarfile.open(fileobj=_decompressed(raw), mode="r|") as members:
            for member in members:
                name = os.path.normpath(member.name).lstrip("/")
                if name == path and member.isreg():
                    _copy(members, member, target, archive)
                    return "extracted"
                removed = removed or name in whiteouts
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        target.unlink(missing_ok=True)
        raise messages.BAD_MANIFEST.error(
            where=str(archive), reason=f"an archive cannot be read: {error}"
        ) from error
    return "removed" if removed else "absent"


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


def _copy(members: tarfile.TarFile, member: tarfile.TarInfo, target: Path, archive: Path) -> None:
    if member.size > MEMBER_LIMIT_BYTES:
        raise messages.DOWNLOAD_TOO_LARGE.error(where=str(archive), limit=MEMBER_LIMIT_BYTES)
    content = members.extractfile(member)
    assert content is not None  # a regular file has content
    left = member.size
    with target.open("wb") as out:
        while left and (chunk := content.read(min(left, 1 << 18))):
            out.write(chunk)
            left -= len(chunk)
    if left:
        raise EOFError(f"{member.name} ends {left} bytes early")
    target.chmod(0o755)
