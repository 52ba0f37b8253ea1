"""The times of a trace as the instrument takes them: a checked binary file, mapped and never read as text.

Layout (native byte order): magic of 24 bytes, count, window in ns, then `count` int64: ascending times in
[0, window). `write_trace` makes one from the CSV file of a study; `open_trace` checks all of it.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.load.schedule import Times
from meshwise.study.load.profile import TraceFile
from meshwise.study.load.trace import read_trace

MAGIC = b"meshwise trace 1\n".ljust(24, b"\0")
_HEADER = struct.Struct("@24sqq")
_CHECKED_AT_ONCE = 1 << 20


def write_trace(source: TraceFile, duration_ns: int, path: Path) -> None:
    """The times of a CSV file within the window. Raises MW113 when it is not what was read for the study."""
    count = 0
    with path.open("wb") as out:
        out.write(_HEADER.pack(MAGIC, 0, duration_ns))

        def keep(times: Times) -> None:
            nonlocal count
            count += times.size
            out.write(times.astype(np.int64).tobytes())

        found = read_trace(Path(source.path), duration_ns, keep, source.form)
        if found.sha256 != source.sha256:
            raise messages.BAD_TRACE.error(
                source.path, what="it was changed since the study was read", remedy="run the study again"
            )
        out.seek(0)
        out.write(_HEADER.pack(MAGIC, count, duration_ns))


def open_trace(path: Path) -> tuple[Times, int]:
    """The mapped times and their window. Raises MW314 for a file that is not whole."""
    try:
        size = path.stat().st_size
        data = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    except OSError as error:
        raise _broken(path, error.strerror or str(error)) from error
    if size < _HEADER.size:
        raise _broken(path, f"it has only {size} bytes")
    magic, count, duration_ns = _HEADER.unpack(data[: _HEADER.size].tobytes())
    if magic != MAGIC:
        raise _broken(path, "it does not begin as a trace does")
    if count < 0 or size != _HEADER.size + 8 * count:
        raise _broken(path, "its size does not fit its header")
    times = data[_HEADER.size :].view(np.int64)
    last = 0
    for start in range(0, count, _CHECKED_AT_ONCE):
        part = times[start : start + _CHECKED_AT_ONCE]
        if int(np.diff(part, prepend=last).min()) < 0:
            raise _broken(path, "its times are not in order")
        last = int(part[-1])
    if last >= duration_ns:
        raise _broken(path, "it has a time beyond its window")
    return times, duration_ns


def _broken(path: Path, why: str) -> MeshwiseError:
    return messages.BROKEN_TRACE.error(str(path), why=why)
