"""A directory for as long as a block lasts, of which nothing is left even after a SIGKILL.

Nothing of a process runs when it is killed, so the next one that makes a directory of the same kind in the
same place removes what dead ones left. Whose owner lives is told by a lock on the directory itself, which
the kernel gives back however a process ends; those of another user are left alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def scratch_directory(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new directory `PREFIX........` in `parent`, by default where temporary files go; removed at the end
    unless the block has renamed it. Raises OSError where none can be made."""
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    _remove_dead(parent, prefix)
    place, held = _locked(parent, prefix)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(held)


def _locked(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        held = os.open(place, _FLAGS)
        if _lock(held) is not False and place.exists():
            return place, held
        os.close(held)  # another process took it for a dead one's before it was locked


def _remove_dead(parent: Path, prefix: str) -> None:
    for place in parent.glob(f"{prefix}????????"):
        held = _opened(place)
        if held is None:
            continue
        try:
            if os.fstat(held).st_uid == os.geteuid() and _lock(held) is True:
                shutil.rmtree(place, ignore_errors=True)
        finally:
            os.close(held)


def _opened(place: Path) -> int | None:
    """The directory's descriptor; None if it is gone, a link, no directory, or not ours to read."""
    with suppress(OSError):
        return os.open(place, _FLAGS)
    return None


def _lock(held: int) -> bool | None:
    """Whether it is ours now; None where the file system has no locks, so that nobody takes it for dead."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
