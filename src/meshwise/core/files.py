"""Files in a directory that somebody else may have prepared.

A directory is opened once and held; whatever is in it is reached through that handle by its own name, so
that nothing on the way can be exchanged. What is opened there is a plain file or a directory, never what a
link points to, a FIFO, a device or a socket. A file is written under a second name that is made anew, forced
to the disk and renamed, and the rename forced too: after a crash or a loss of power at any moment the name
holds the old content or the new one.

The path of the directory itself, and the name of an output that the user gives (`--html FILE`), are the
user's own words: their links are followed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Self

from meshwise.core import messages
from meshwise.core.units import format_size

ASIDE = ".aside"
"""Suffix of a file being written; whatever bears it is left over from a run that was killed."""

_BLOCK_BYTES = 1 << 20
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Without O_NONBLOCK a FIFO that took a file's place would hang the open."""
_KINDS = (
    (stat.S_ISLNK, "it is a symbolic link"),
    (stat.S_ISDIR, "it is a directory"),
    (stat.S_ISFIFO, "it is a FIFO"),
    (stat.S_ISSOCK, "it is a socket"),
    (stat.S_ISBLK, "it is a device"),
    (stat.S_ISCHR, "it is a device"),
)


class NotPlain(OSError):
    """Something else is where a plain file or a directory should be; `strerror` says what."""


class Folder:
    """An open directory. A context manager; `close` gives the handle back.

    Everything raises OSError, with the whole path as `filename`.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._fd = descriptor
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """By the user's own name for it, so links are followed."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), path)

    def folder(self, name: str, *, make: bool = False) -> Folder:
        """A directory in this one; with `make` it is made if nothing has its name."""
        if make:
            try:
                os.mkdir(name, dir_fd=self._fd)
            except FileExistsError:
                pass
            except OSError as error:
                raise self._placed(error, name) from error
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _FLAGS, dir_fd=self._fd)
        except OSError as error:
            self._require(name, stat.S_ISDIR)
            raise self._placed(error, name) from error
        return Folder(inner, self.path / name)

    def exists(self, name: str) -> bool:
        """Whether anything has this name, a link that leads nowhere included."""
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        return sorted(os.listdir(self._fd))  # noqa: PTH208  of the handle

    def opened(self, name: str, at_most: int | None = None) -> BufferedReader:
        """A plain file for reading; refused if it has more than `at_most` bytes."""
        self._require(name, stat.S_ISREG)  # before the open, because opening a device may do something
        try:
            descriptor = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=self._fd)
        except OSError as error:
            raise self._placed(error, name) from error
        stream = os.fdopen(descriptor, "rb")
        try:
            found = os.fstat(descriptor)
            self._plain(found, name, stat.S_ISREG)
            if at_most is not None and found.st_size > at_most:
                words = f"it has {found.st_size:,} bytes, where at most {at_most:,} are expected"
                raise NotPlain(errno.EFBIG, words, str(self.path / name))
        except BaseException:
            stream.close()
            raise
        return stream

    def read(self, name: str, at_most: int) -> bytes:
        with self.opened(name, at_most) as stream:
            return stream.read(at_most)

    def sha256(self, name: str, at_most: int | None = None) -> str:
        with self.opened(name, at_most) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def own(self, name: str) -> int:
        """A file that is changed in place, made if absent: descriptor for reading and writing. One that has a
        second name elsewhere is refused."""
        if self.exists(name):
            self._require(name, stat.S_ISREG)
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644, dir_fd=self._fd)
        except OSError as error:
            raise self._placed(error, name) from error
        try:
            found = os.fstat(descriptor)
            self._plain(found, name, stat.S_ISREG)
            if found.st_nlink > 1:
                raise NotPlain(errno.EMLINK, "it has another name elsewhere", str(self.path / name))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A stream whose content takes the name, durably, when the block ends well; if not, the name keeps
        what it had. What has the second name is removed, never written to."""
        aside = name + ASIDE
        try:
            self.remove(aside, absent=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
            descriptor = os.open(aside, flags, 0o644, dir_fd=self._fd)
        except OSError as error:
            raise self._placed(error, aside) from error
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.replace(aside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError as error:
                raise self._placed(error, name) from error
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                self.remove(aside, absent=True)
            raise
        os.fsync(self._fd)

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Replace the file's content, durably."""
        with self.writing(name) as stream:
            stream.write(content)

    def copy(self, source: BinaryIO, name: str) -> str:
        """Write what the stream has left, however much, as durably; returns its SHA-256."""
        digest = hashlib.sha256()
        with self.writing(name) as stream:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                stream.write(block)
        return digest.hexdigest()

    def remove(self, name: str, *, absent: bool = False) -> None:
        """The name goes; with `absent` it need not be there. What a link points to stays."""
        try:
            os.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            if not absent:
                raise
        except OSError as error:
            raise self._placed(error, name) from error

    def remove_tree(self, name: str) -> None:
        """A directory with all that is in it, links not followed; nothing if nothing has the name. Refused if
        it is no directory."""
        if self.exists(name):
            self._require(name, stat.S_ISDIR)
            shutil.rmtree(name, dir_fd=self._fd)

    def close(self) -> None:
        """A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _require(self, name: str, wanted: object) -> None:
        try:
            found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            raise self._placed(error, name) from error
        self._plain(found, name, wanted)

    def _plain(self, found: os.stat_result, name: str, wanted: object) -> None:
        for is_kind, words in _KINDS:
            if is_kind(found.st_mode) and is_kind is not wanted:
                raise NotPlain(errno.EINVAL, words, str(self.path / name))
        if wanted is stat.S_ISDIR and not stat.S_ISDIR(found.st_mode):
            raise NotPlain(errno.ENOTDIR, "it is a file, not a directory", str(self.path / name))

    def _placed(self, error: OSError, name: str) -> OSError:
        """The same error with the whole path in it."""
        if isinstance(error, NotPlain):
            return error
        return type(error)(error.errno, error.strerror, str(self.path / name))


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """The stream of an output that the user named. A file is replaced whole, where the user's links lead;
    what is no file (`/dev/stdout`, a FIFO) is written to as it is. Raises OSError."""
    if path.exists() and not path.is_file():  # not by its resolved name: that of a pipe leads nowhere
        with path.open("wb") as stream:
            yield stream
        return
    real = Path(os.path.realpath(path))
    with Folder.open(real.parent) as folder, folder.writing(real.name) as stream:
        yield stream


@contextmanager
def reading(path: Path, *, piped: bool = False) -> Iterator[BinaryIO]:
    """The stream of an input that the user named: a regular file, or with `piped` also the pipe of a shell
    (`<(...)`, `/dev/stdin`). Anything else is refused: a FIFO may wait for ever for one who writes, and a
    device never ends. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not (piped and _of_a_shell(descriptor)):
            kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "it is something else")
            raise NotPlain(errno.EINVAL, f"{kind}, not a regular file", str(path))
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            yield stream
    finally:
        os.close(descriptor)


def _of_a_shell(descriptor: int) -> bool:
    """A pipe without a name: whoever made it holds its other end."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("pipe:")


def require_regular(path: Path) -> None:
    """For what a library opens by its name. Raises OSError as `reading` does."""
    with reading(path):
        pass


@contextmanager
def disk_troubles(directory: Path) -> Iterator[None]:
    """Turns OSErrors of the block into MW606, MW607, or MW614 (something strange is in the way)."""
    try:
        yield
    except NotPlain as error:
        raise messages.STRANGE_FILE.error(str(error.filename), reason=error.strerror) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = format_size(free_bytes(directory))
            raise messages.NO_SPACE.error(str(directory), free=free, needed="more") from error
        raise messages.UNWRITABLE.error(
            str(error.filename or directory), reason=error.strerror or str(error)
        ) from error


def free_bytes(directory: Path) -> int:
    """Free to an ordinary user, on the file system that holds the directory or its nearest parent."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free
