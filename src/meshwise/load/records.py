"""The raw record of every request: a file of int64 columns that the engine writes and others may watch.

Layout of a records file (native byte order): a header of 4096 bytes (`_HEADER`, the rest zero), then five
int64 columns of `capacity` rows each (intended, sent, first byte, done, outcome), where the header says so a
sixth (messages of a gRPC stream), then one uint8 column (what it waited for: `load.waits.Waited`), where the
header says so another (the address that it went to, counted from 1 in the JSON list at `_NAMES_OFFSET` of the
header; 0: not sent). Times in the file are CLOCK_MONOTONIC; 0 = has not happened. Rows below `count` exist. A
run of n processes writes `records`, `records.1`, ... `records.<n-1>`.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from collections.abc import Callable, Sequence
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
_HEADER = struct.Struct("@24sqqqqqq")
# magic, capacity, count, start_ns, warmup_ns, finished, further columns
_MESSAGES, _ADDRESSES = 1, 2
_NAMES_OFFSET = 128
MOST_ADDRESSES = 64
"""Their names have room in the header."""
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

ADDRESS = pa.field("address", pa.dictionary(pa.int32(), pa.string()))
"""Of runs against a name with several addresses: where the request went; null if it was not sent."""


PEAK_ROW_BYTES = 150
"""Of memory for each request: its row and its intended time (up to 57), and what the report takes in the end
(90, measured)."""


def rows_for(path: Path, wanted: int) -> int:
    """Rows of the sparse file `path` for which there is room, at most `wanted`."""
    return min(wanted, free_bytes(path) // PEAK_ROW_BYTES)


class RecordFile:
    """The writing side, preallocated and memory-mapped. Columns are memoryviews of format `q`."""

    def __init__(
        self,
        path: Path,
        capacity: int,
        *,
        reserve: bool = False,
        messages: bool = False,
        addresses: Sequence[str] = (),
    ) -> None:
        """`reserve`: take the space now, so that a full disk is an OSError here and not a SIGBUS later.
        `messages`: with a column for messages of streams. `addresses`: with a column for which of them."""
        self.rows = capacity
        """Requests that there are to be."""
        self.capacity = max(capacity, 1)
        several = len(addresses) > 1
        size = _HEADER_BYTES + self.capacity * (_ROW_BYTES + 8 * messages + several)
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
        self.waited = self._view[start : start + self.capacity]
        self._address = self._view[start + self.capacity :]
        self._further = _MESSAGES * messages | _ADDRESSES * several
        if several:
            names = json.dumps(addresses).encode()
            self._map[_NAMES_OFFSET : _NAMES_OFFSET + len(names)] = names
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

    def mark_due(self, row: int, marked: int, total: int, now_ns: int, cause: Callable[[int], int]) -> int:
        """Rows from `row` on that are due get what they wait for, `cause(how many before it)`, each once: the
        first of them is `marked` or `row`. Gives the new `marked`."""
        marked = max(marked, row)
        while marked < total and self.intended[marked] <= now_ns:
            self.waited[marked] = cause(marked - row)
            marked += 1
        return marked

    def oldest_open(self, first: int, stop: int) -> int:
        """The first row from `first` on that is sent and not ended; `stop` if there is none before it."""
        ended = (
            np.frombuffer(self.done, np.int64)[first:stop] | np.frombuffer(self.outcome, np.int64)[first:stop]
        )
        still_open = np.flatnonzero(ended == 0)
        return first + int(still_open[0]) if still_open.size else stop

    def note_addresses(self, attempts: Sequence[int], *, on_demand: bool) -> None:
        """After the end. `attempts` to connect, flat: when each began, its slot, the number of its address.
        A request went where the last attempt of its slot before it went. Where requests open connections
        (`on_demand`), that is the last before its answer, or before the slot's next request."""
        began, slots, numbers = np.array(attempts, np.int64).reshape(-1, 3).T
        sent, first = np.frombuffer(self.sent, np.int64), np.frombuffer(self.first, np.int64)
        connection = np.frombuffer(self.outcome, np.int64) >> CONNECTION_SHIFT & CONNECTION_MASK
        found = np.zeros(sent.size, np.uint8)
        for slot in np.unique(slots):
            own = np.flatnonzero((connection == slot) & (sent > 0))
            when = sent[own]
            if on_demand:
                following = np.append(when[1:], np.iinfo(np.int64).max) - 1
                when = np.where(first[own] > 0, first[own], following)
            at = np.searchsorted(began[slots == slot], when, side="right") - 1
            found[own] = np.where(at >= 0, numbers[slots == slot][np.maximum(at, 0)] + 1, 0)
        self._address[:] = found.tobytes()

    def finish(self, count: int) -> None:
        self._write_header(count, self._start_ns, self._warmup_ns, True)

    def _write_header(self, count: int, start_ns: int, warmup_ns: int, finished: bool) -> None:
        facts = (self.capacity, count, start_ns, warmup_ns, finished, self._further)
        _HEADER.pack_into(self._map, 0, MAGIC, *facts)

    def close(self) -> None:
        for view in (*self._columns, self.waited, self._address, self._view):
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
    address: npt.NDArray[np.uint8] | None = None
    """Of a name with several addresses: counted from 1 in `addresses`; 0: not sent."""
    addresses: tuple[str, ...] = ()

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
    magic, capacity, count, start_ns, warmup_ns, finished, further = header
    counts_messages, several = bool(further & _MESSAGES), bool(further & _ADDRESSES)
    if magic != MAGIC:
        raise messages.BROKEN_RECORDS.error(where=str(path), why="it does not begin as a records file does")
    row_bytes = _ROW_BYTES + 8 * counts_messages + several
    if not 0 <= count <= capacity or size != _HEADER_BYTES + capacity * row_bytes:
        raise messages.BROKEN_RECORDS.error(where=str(path), why="its size does not fit its header")
    columns = []
    for index in range(_COLUMNS + counts_messages):
        start = _HEADER_BYTES + index * 8 * capacity
        columns.append(data[start : start + 8 * count].view(np.int64))
    intended, sent, first, done, outcome = columns[:_COLUMNS]
    rest = data[_HEADER_BYTES + 8 * len(columns) * capacity :]
    waited, address = rest[:count], rest[capacity : capacity + count] if several else None
    names = data[_NAMES_OFFSET:_HEADER_BYTES].tobytes().rstrip(b"\0")
    addresses = tuple(json.loads(names)) if several else ()
    streamed = columns[_COLUMNS] if counts_messages else None
    times = (intended, sent, first, done)
    return Columns(start_ns, warmup_ns, bool(finished), *times, outcome, waited, streamed, address, addresses)


def read_records(source: Source) -> pa.Table:
    """All requests of a run by intended time, in the columns of SCHEMA (and ADDRESS, of several)."""
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
    schema = SCHEMA
    if columns.messages is not None:
        arrays.append(pa.array(columns.messages.astype(np.int32)))
        schema = STREAM_SCHEMA
    if columns.address is not None:
        codes = pa.array(columns.address.astype(np.int32) - 1, mask=columns.address == 0)
        arrays.append(pa.DictionaryArray.from_arrays(codes, pa.array(columns.addresses, pa.string())))
        schema = schema.append(ADDRESS)
    return pa.Table.from_arrays(arrays, schema=schema)


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
