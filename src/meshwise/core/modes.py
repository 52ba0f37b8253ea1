"""Directories and files whose modes are said and not left to the user's umask.

What a study keeps for itself is read by processes with other uids (a sidecar, a database), so its modes
decide whether a study runs at all. What the user asked for (an archive, a report) stays with the user's
umask.
"""

from __future__ import annotations

import os
from pathlib import Path

PUBLIC_DIRECTORY, PRIVATE_DIRECTORY = 0o755, 0o700
PRIVATE_FILE = 0o600


def make_directory(path: Path, mode: int = PUBLIC_DIRECTORY) -> Path:
    """Makes `path` with this mode, and the parents that it lacks with PUBLIC_DIRECTORY.

    A directory that is there keeps its mode. Raises OSError as mkdir does.
    """
    if not path.parent.exists():
        make_directory(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(mode)
    return path


def write_private_text(path: Path, text: str) -> None:
    """A file for its owner only, from the first byte on; one that is there is replaced."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), PRIVATE_FILE)
        file.write(text)
