"""Files of a sidecar: private, memory-backed (the placement's directory is), swapped in atomically.

Rules of this file:
- A reader sees the old file or the new one, never half of it: write aside, then rename.
- Mode 0600, directories 0700, from the first byte on. As root they are handed to the proxy's uid;
  in a user namespace that maps a single uid there is no other owner.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from meshwise.core.modes import PRIVATE_DIRECTORY, PRIVATE_FILE, make_directory

_ONE_UID = {errno.EPERM, errno.EINVAL}
"""What chown says when the uid is not ours to give (ordinary user) or not mapped (user namespace)."""


def private_directory(path: Path, uid: int | None = None) -> Path:
    """Makes `path` (mode 0700) and hands it to `uid` where that is possible."""
    make_directory(path, PRIVATE_DIRECTORY).chmod(PRIVATE_DIRECTORY)
    hand_over(path, uid)
    return path


def write_private(path: Path, content: str | bytes, uid: int | None = None) -> None:
    """Replaces `path` atomically; mode 0600 before anything is in it. Raises OSError as writing does."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, PRIVATE_FILE)  # a umask may have taken even the owner's right to read
        file.write(content.encode() if isinstance(content, str) else content)
    hand_over(aside, uid)
    aside.replace(path)


def hand_over(path: Path, uid: int | None) -> None:
    """Makes `uid` the owner; nothing happens where only one uid exists."""
    if uid is None or path.stat().st_uid == uid:
        return
    try:
        os.chown(path, uid, uid)
    except OSError as error:
        if error.errno not in _ONE_UID:
            raise
