"""One writer per archive, also after a crash.

Two guards, because neither is enough alone. A POSIX record lock ends with its process however that ends and
is not inherited by a fork, so that a helper that outlives a killed run does not keep the archive locked; but
it does not hold within one process. The owner's pid with its start time (a pid alone is reused) does, and
is what the message names; but it means nothing in another PID namespace, which is therefore recorded too.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Self

from meshwise.core import messages
from meshwise.core.files import Folder

LOCK_NAME = ".lock"


def _start_ticks(pid: int) -> int | None:
    """Start of a process in clock ticks since boot (proc(5), field 22 of `stat`); None if it is not there."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def _me() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "start_ticks": _start_ticks(os.getpid()),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pid_namespace": os.readlink("/proc/self/ns/pid"),  # noqa: PTH115  not a path
    }


def _lives(owner: dict[str, object]) -> bool:
    me = _me()
    if owner.get("boot_id") != me["boot_id"] or owner.get("pid_namespace") != me["pid_namespace"]:
        return False
    pid, start = owner.get("pid"), owner.get("start_ticks")
    return isinstance(pid, int) and isinstance(start, int) and _start_ticks(pid) == start


class ArchiveLock:
    """Held from construction until `close`. Raises MW602 while another live run has it, OSError if something
    else than a plain file has its name."""

    def __init__(self, folder: Folder) -> None:
        directory = folder.path
        self._fd = folder.own(LOCK_NAME)
        try:
            owner = self._owner()
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise messages.ARCHIVE_BUSY.error(str(directory), pid=owner.get("pid", "unknown")) from None
            if _lives(owner):
                raise messages.ARCHIVE_BUSY.error(str(directory), pid=owner["pid"])
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(_me()).encode(), 0)
        except BaseException:
            os.close(self._fd)
            raise

    def _owner(self) -> dict[str, object]:
        try:
            owner = json.loads(os.pread(self._fd, 4096, 0))
        except ValueError:  # empty after an orderly end, or cut short by a crash
            return {}
        return owner if isinstance(owner, dict) else {}

    def close(self) -> None:
        """Release it. A second call does nothing."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
