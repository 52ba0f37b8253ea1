"""Writing so that a reader sees a file whole or not at all, and troubles of the disk in words.

A file is written aside, forced to the disk, renamed, and the rename forced too: after a crash or a loss
of power at any moment the name holds the old content or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshwise.core import messages
from meshwise.core.units import format_size

ASIDE = ".aside"
"""Suffix of a file being written; whatever bears it is left over from a run that was killed."""


@contextmanager
def disk_troubles(directory: Path) -> Iterator[None]:
    """Turns OSErrors of the block into MW606 or MW607."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = format_size(free_bytes(directory))
            raise messages.NO_SPACE.error(str(directory), free=free, needed="more") from error
        raise messages.UNWRITABLE.error(
            str(error.filename or directory), reason=error.strerror or str(error)
        ) from error


def write_aside(path: Path, content: bytes | memoryview) -> None:
    """Replace the file's content, durably."""
    aside = path.with_name(path.name + ASIDE)
    with aside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
    fsync_directory(path.parent)


def fsync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_bytes(directory: Path) -> int:
    """Free to an ordinary user, on the file system that holds the directory or its nearest parent."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def copy_aside(source: Path, path: Path) -> str:
    """Copy a file, however large, as durably; returns its SHA-256."""
    aside, digest = path.with_name(path.name + ASIDE), hashlib.sha256()
    with source.open("rb") as original, aside.open("wb") as stream:
        while block := original.read(1 << 20):
            digest.update(block)
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
    fsync_directory(path.parent)
    return digest.hexdigest()
