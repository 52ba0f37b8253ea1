"""The raw record of every request: a file of int64 columns that the engine writes and others may watch.

Layout of a records file (native byte order): a header of 4096 bytes (`_HEADER`, the rest zero), then five
int64 columns of `capacity` rows each (intended, sent, first byte, done, outcome), where the header says so a
sixth (messages of a gRPC stream), then one uint8 column (what it waited for: `load.waits.Waited`). Times in
the file are CLOCK_MONOTONIC; 0 = has not happened. Rows below `count` exist. A run of n processes writes
`records`, `records.1`, ... `records.<n-1>`.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from meshwise.core import messages
from meshwise.load.files import RunFiles, free_bytes
from meshwise.load.waits import CAUSES, Waited
from meshwise.load.wire.seam import (
    BYTES_SHIFT,
    CONNECTION_MASK,
    CONNECTION_SHIFT,
    ERROR_MASK,
    ERROR_SHIFT,
    STATUS_MASK,
    ErrorKind,
)

MAGIC = b"meshwise records 1\n".ljust(24, b"\0")
_HEADER = struct.Struct("@24sqqqqqq")  # magic, capacity, count, start_ns, warmup_ns, finished, messages
_HEADER_BYTES = 4096
_COLUMNS = 5
_ROW_BYTES = _COLUMNS * 8 + 1
_COUNT_OFFSET = 24 + 8

ANSWERED = (ErrorKind.NONE, ErrorKind.HTTP_STATUS, ErrorKind.GRPC_STATUS)
SCHEMA = pa.schema(
    [
        pa.field("intended_ns", pa.int64(), nullable=False),
        pa.field("sent_ns", pa.int64()),
        pa.field("first_byte_ns", pa.int64()),
        pa.field("done_ns", pa.int64()),
        pa.field("status", pa.int32(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("error", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("connection", pa.int32(), nullable=False),
        pa.field("queued", pa.bool_(), nullable=False),
        pa.field("waited_for", pa.dictionary(pa.int8(), pa.string()), nullable=False),
    ]
)
"""Times are nanoseconds from the end of the warm-up (warm-up requests: intended_ns < 0). `done_ns` is null
unless an answer came whole. `status`: HTTP status; gRPC calls 1000 + gRPC status; 0 = none. `error`: empty
or a kind. `queued`: no slot was free at the intended time, so the wait until then is not
the instrument's. `waited_for`: empty, or why it was not sent in time (`load.waits`)."""
STREAM_SCHEMA = SCHEMA.append(pa.field("messages", pa.int32(), nullable=False))
"""Of runs with gRPC streams: messages that went up (client streaming) or came down (the others)."""


PEAK_ROW_BYTES = 150
"""Of memory for each request: its row and its intended time (up to 57), and what the report takes in the end
(90, measured)."""


def rows_for(path: Path, wanted: int) -> int:
    """Rows of the sparse file `path` for which there is room, at most `wanted`."""
    return min(wanted, free_bytes(path) // PEAK_ROW_BYTES)


class RecordFile:
    """The writing side, preallocated and memory-mapped. Columns are memoryviews of format `q`."""

    def __init__(self, path: Path, capacity: int, *, reserve: bool = False, messages: bool = False) -> None:
        """`reserve`: take the space now, so that a full disk is an OSError here and not a SIGBUS later.
        `messages`: with a column for the messages of streams."""
        self.capacity = max(capacity, 1)
        size = _HEADER_BYTES + self.capacity * (_ROW_BYTES + 8 * messages)
        with path.open("w+b") as file:
            os.ftruncate(file.fileno(), size)
            if reserve:
                os.posix_fallocate(file.fileno(), 0, size)
            self._map = mmap.mmap(file.fileno(), size)
        self._view = memoryview(self._map)
        start = _HEADER_BYTES
        columns = []
        for _ in range(_COLUMNS + messages):
            columns.append(self._view[start : start + 8 * self.capacity].cast("q"))
            start += 8 * self.capacity
        self.intended, self.sent, self.first, self.done, self.outcome = columns[:_COLUMNS]
        self.messages = columns[_COLUMNS] if messages else None
        self._columns = columns
        self.waited = self._view[start:]
        self._write_header(0, 0, 0, False)

    def begin(self, intended_ns: npt.NDArray[np.int64] | None, start_ns: int, warmup_ns: int) -> None:
        """Fills in the intended times (relative to the start) and says when the run starts."""
        if intended_ns is not None:
            np.frombuffer(self.intended, np.int64)[: intended_ns.size] = intended_ns + start_ns
        self._start_ns, self._warmup_ns = start_ns, warmup_ns
        self._write_header(0, start_ns, warmup_ns, False)

    def note_count(self, count: int) -> None:
        """Rows that exist by now; cheap, for those who watch."""
        struct.pack_into("@q", self._map, _COUNT_OFFSET, count)

    def finish(self, count: int) -> None:
        self._write_header(count, self._start_ns, self._warmup_ns, True)

    def _write_header(self, count: int, start_ns: int, warmup_ns: int, finished: bool) -> None:
        facts = (self.capacity, count, start_ns, warmup_ns, finished, self.messages is not None)
        _HEADER.pack_into(self._map, 0, MAGIC, *facts)

    def close(self) -> None:
        for view in (*self._columns, self.waited, self._view):
            view.release()
        self._map.close()


@dataclass(frozen=True)
class Columns:
    """What a records file holds, as arrays of `count` rows. Times as in the file."""

    start_ns: int
    warmup_ns: int
    finished: bool
    intended: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    done: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.int64]
    waited: npt.NDArray[np.uint8]
    """`Waited`."""
    messages: npt.NDArray[np.int64] | None = None
    """Of streams: those that went up (client streaming) or came down (the others)."""

    @property
    def zero_ns(self) -> int:
        """The end of the warm-up."""
        return self.start_ns + self.warmup_ns

    @property
    def error(self) -> npt.NDArray[np.int64]:
        return self.outcome >> ERROR_SHIFT & ERROR_MASK

    @property
    def queued(self) -> npt.NDArray[np.bool_]:
        """No slot was free at the intended time."""
        return np.isin(self.waited, (Waited.SLOT, Waited.CONNECTION))

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        whole: npt.NDArray[np.bool_] = (self.done != 0) & np.isin(self.error, ANSWERED)
        return whole


Source = Path | RunFiles
"""Of a run: its directory, or its files."""


def record_paths(source: Source) -> list[Path]:
    """The records files of a run, in order. Raises MW311 when there is none."""
    if isinstance(source, RunFiles):
        return list(source.records)
    directory = source
    paths = [directory / "records"]
    while (directory / f"records.{len(paths)}").exists():
        paths.append(directory / f"records.{len(paths)}")
    if not paths[0].exists():
        raise messages.NO_RECORDS.error(where=str(directory))
    return paths


def open_columns(path: Path) -> Columns:
    """Maps one records file, running or finished. Raises MW312 for a file that is not whole."""
    size = path.stat().st_size
    if size < _HEADER_BYTES:
        raise messages.BROKEN_RECORDS.error(where=str(path), why=f"it has only {size} bytes")
    data = np.memmap(path, np.uint8, "r")
    header = _HEADER.unpack(data[: _HEADER.size].tobytes())
    magic, capacity, count, start_ns, warmup_ns, finished, counts_messages = header
    if magic != MAGIC:
        raise messages.BROKEN_RECORDS.error(where=str(path), why="it does not begin as a records file does")
    row_bytes = _ROW_BYTES + 8 * bool(counts_messages)
    if not 0 <= count <= capacity or size != _HEADER_BYTES + capacity * row_bytes:
        raise messages.BROKEN_RECORDS.error(where=str(path), why="its size does not fit its header")
    columns = []
    for index in range(_COLUMNS + bool(counts_messages)):
        start = _HEADER_BYTES + index * 8 * capacity
        columns.append(data[start : start + 8 * count].view(np.int64))
    intended, sent, first, done, outcome = columns[:_COLUMNS]
    waited = data[_HEADER_BYTES + 8 * len(columns) * capacity :][:count]
    streamed = columns[_COLUMNS] if counts_messages else None
    times = (intended, sent, first, done)
    return Columns(start_ns, warmup_ns, bool(finished), *times, outcome, waited, streamed)


def read_records(source: Source) -> pa.Table:
    """All requests of a run, by intended time, in the columns of SCHEMA."""
    tables = [_table(open_columns(path)) for path in record_paths(source)]
    if len(tables) == 1:
        return tables[0]
    return pa.concat_tables(tables).sort_by("intended_ns").combine_chunks()


def _table(columns: Columns) -> pa.Table:
    zero = columns.zero_ns
    kinds = pa.array([kind.label for kind in ErrorKind])
    causes = pa.array(["", *CAUSES])
    waited = np.where(columns.waited == Waited.SETUP, Waited.CONNECTION, columns.waited)
    answered = columns.answered
    arrays = [
        pa.array(columns.intended - zero),
        pa.array(columns.sent - zero, mask=columns.sent == 0),
        pa.array(columns.first - zero, mask=columns.first == 0),
        pa.array(columns.done - zero, mask=~answered),
        pa.array((columns.outcome & STATUS_MASK).astype(np.int32)),
        pa.array(columns.outcome >> BYTES_SHIFT),
        pa.DictionaryArray.from_arrays(pa.array(columns.error.astype(np.int8)), kinds),
        pa.array((columns.outcome >> CONNECTION_SHIFT & CONNECTION_MASK).astype(np.int32)),
        pa.array(columns.queued),
        pa.DictionaryArray.from_arrays(pa.array(waited.astype(np.int8)), causes),
    ]
    if columns.messages is None:
        return pa.Table.from_arrays(arrays, schema=SCHEMA)
    return pa.Table.from_arrays([*arrays, pa.array(columns.messages.astype(np.int32))], schema=STREAM_SCHEMA)


def peek(source: Source) -> tuple[int, float | None]:
    """(answers so far, median response time in us over the last second or None), while a run goes on."""
    completed = 0
    recent: list[npt.NDArray[np.int64]] = []
    now_ns = time.monotonic_ns()
    for path in record_paths(source):
        columns = open_columns(path)
        completed += int(np.count_nonzero(columns.done))
        last_second = columns.done > now_ns - 10**9
        recent.append((columns.done - columns.intended)[last_second])
    times = np.concatenate(recent)
    return completed, float(np.median(times)) / 1000 if times.size else None
