"""Reading a recorded load: a CSV of times, or of rates per interval. Untrusted input, read as a stream.

    time_s            time_s,rate_rps
    0.000             0,250
    0.0013            60,310

Laws of this file:
- The header says what the file is and its unit: `time_s`, `time_ms`, `time_us` or `time_ns`. The first row is
  the trial's time 0, so that clock times (since 1970; kept to a microsecond) serve as well as relative ones.
- A time is one request. A rate holds from its row's time to the next row's; the last as long as the one
  before.
- Memory is bounded by a block of the file, whatever its size; more than MOST_ROWS rows are refused.
- Disorder is refused with its line. A gap is legal, because load has gaps, and noted for the plan, because a
  gap in a log may be the log's.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.units import format_duration
from meshwise.study.load_shape import TENTH_NS, Rates, Times

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TRACES = "traces"
"""Where an archive keeps them, beside its study.yaml."""
MOST_ROWS = 20_000_000
MOST_INTERVALS = 100_000
_BLOCK_BYTES = 1 << 20
_UNITS_NS = {"time_s": 1e9, "time_ms": 1e6, "time_us": 1e3, "time_ns": 1.0}
_RATE = "rate_rps"
_SAID_GAP_NS, _SAID_GAP_MEANS = 10**9, 20
"""A gap is noted from a second and so many mean gaps on."""
_LONG_INTERVAL = 1.5
"""Times the usual interval of a trace of rates: it is noted."""
_HEADER_REMEDY = (
    "begin with a line that names the columns: `time_s` (or `time_ms`, `time_us`, `time_ns`) for one request"
    " per row, `time_s,rate_rps` for a rate from each time on"
)


@dataclass(frozen=True)
class Trace:
    """What a file holds for the measured window: `times` or `rates`."""

    rate_rps: float
    """Mean over the window."""
    times: Times | None
    rates: Rates | None
    sha256: str
    notes: tuple[str, ...]


def read_trace(path: Path, duration_ns: int, keep: Callable[[Ints], None] | None = None) -> Trace:
    """Reads and checks the whole file. `keep` gets the times within the window, block by block; it is not
    called for a trace of rates. Raises MW113 with file and line."""
    try:
        with path.open("rb") as stream:
            rows = _Rows(str(path), stream)
            if rows.are_rates:
                return _read_rates(rows, duration_ns)
            return _read_times(rows, duration_ns, keep or (lambda _: None))
    except OSError as error:
        raise _cannot(str(path), f"cannot be read: {error.strerror}", "check the path") from error


def _cannot(where: str, what: str, remedy: str) -> MeshwiseError:
    return messages.BAD_TRACE.error(where, what=what, remedy=remedy)


class _Rows:
    """The numbers of a file, block by block, and words for what is none."""

    def __init__(self, name: str, stream: BinaryIO) -> None:
        """Reads the header."""
        self.name = name
        self._stream, self._hash, self._rest = stream, hashlib.sha256(), b""
        self._line = 1
        self._base: float | None = None
        first = self._read_header()
        names = [each.strip() for each in first.decode("utf-8-sig", "replace").split(",")]
        if names[0] not in _UNITS_NS or names[1:] not in ([], [_RATE]):
            shown = first.decode("utf-8-sig", "replace").strip()[:60]
            raise self.cannot(1, f"`{shown}` is not the header of a trace", _HEADER_REMEDY)
        self._unit_ns = _UNITS_NS[names[0]]
        self._columns = len(names)

    @property
    def are_rates(self) -> bool:
        return self._columns == 2

    @property
    def sha256(self) -> str:
        """Of what was read so far: of the file, after the last block."""
        return self._hash.hexdigest()

    def cannot(self, line: int, what: str, remedy: str) -> MeshwiseError:
        return _cannot(f"{self.name}:{line}", what, remedy)

    def blocks(self) -> Iterator[tuple[Ints, Floats]]:
        """Times in ns from the first row on, in order, and the rates (empty in a trace of times)."""
        last_ns, total = -1 if self.are_rates else 0, 0
        for line, text in self._texts():
            found = self._numbers(line, text)
            if not len(found):
                continue
            if self._base is None:
                self._base = float(found[0, 0])
            times = np.rint((found[:, 0] - self._base) * self._unit_ns).astype(np.int64)
            steps = np.diff(times, prepend=last_ns)
            wrong = np.flatnonzero(steps < (1 if self.are_rates else 0))
            if wrong.size:
                where, told = _line_of(line, text, int(wrong[0])), f"{found[wrong[0], 0]:.15g}"
                what = f"the time {told} is not after the one in the row above it"
                raise self.cannot(where, what, "sort the rows by their time")
            last_ns, total = int(times[-1]), total + len(times)
            if total > (most := MOST_INTERVALS if self.are_rates else MOST_ROWS):
                what, remedy = f"it has more than {most:,} rows", "cut it to the part that a trial replays"
                raise _cannot(self.name, what, remedy)
            yield times, found[:, 1] if self.are_rates else np.empty(0)
        if not total:
            raise _cannot(self.name, "it has no row", "put a row for each request below the header")

    def _read_header(self) -> bytes:
        for line, text in self._texts():
            first, _, rest = text.partition(b"\n")
            self._rest, self._line = rest + self._rest, line + 1
            return first
        raise _cannot(self.name, "it is empty", _HEADER_REMEDY)

    def _texts(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines, and the number of the first."""
        while True:
            data = self._stream.read(_BLOCK_BYTES)
            self._hash.update(data)
            text = self._rest + data
            cut = text.rfind(b"\n") + 1 if data else len(text)
            self._rest, text = text[cut:], text[:cut]
            if len(self._rest) > _BLOCK_BYTES:
                raise self.cannot(self._line, "a line of more than a megabyte", "write one number per line")
            line = self._line
            self._line += text.count(b"\n")
            if text:
                yield line, text
            if not data:
                return

    def _numbers(self, line: int, text: bytes) -> Floats:
        if not text.strip():
            return np.empty((0, self._columns))
        try:
            found = np.loadtxt(io.BytesIO(text), np.float64, delimiter=",", ndmin=2, comments=None)
        except ValueError as error:
            raise self._blame(line, text) from error
        if found.shape[1] != self._columns:
            raise self._blame(line, text)
        good = (np.isfinite(found) & (found >= 0)).all(axis=1)
        if not good.all():
            row = int(np.argmin(good))
            told = ",".join(f"{number:g}" for number in found[row])
            what = f"`{told}`: times and rates are finite and not negative"
            raise self.cannot(_line_of(line, text, row), what, "correct the row, or leave it out")
        return np.asarray(found)

    def _blame(self, line: int, text: bytes) -> MeshwiseError:
        """The first line that is not as the header says."""
        for number, row in enumerate(text.split(b"\n"), start=line):
            cells = row.decode("utf-8", "replace").strip().split(",")
            if cells == [""]:
                continue
            if len(cells) != self._columns:
                what = f"a row of {len(cells)} where the header names {self._columns}"
                return self.cannot(number, what, "only times, or times and rates, are replayed")
            for cell in cells:
                try:
                    float(cell)
                except ValueError:
                    what = f"`{cell.strip()[:40]}` is not a number"
                    return self.cannot(number, what, "correct the row, or leave it out")
        return self.cannot(line, "from here on it is not a table of numbers", "write one number per cell")


def _line_of(line: int, text: bytes, row: int) -> int:
    """The line of the row with this index in a text that begins at `line`: blank ones are no rows."""
    numbers = [line + index for index, each in enumerate(text.split(b"\n")) if each.strip()]
    return numbers[row]


# --- times -------------------------------------------------------------------------------------------------


def _read_times(rows: _Rows, duration_ns: int, keep: Callable[[Ints], None]) -> Trace:
    tenths = np.zeros(-(-duration_ns // TENTH_NS), np.int64)
    total, last_ns, gap_ns, gap_at_ns = 0, 0, 0, 0
    for times, _ in rows.blocks():
        total += times.size
        inside = times[: np.searchsorted(times, duration_ns)]
        if not inside.size:
            continue
        steps = np.diff(inside, prepend=last_ns)
        longest = int(np.argmax(steps))
        if steps[longest] > gap_ns:
            gap_ns = int(steps[longest])
            gap_at_ns = int(inside[longest]) - gap_ns
        last_ns = int(inside[-1])
        tenths += np.bincount(inside // TENTH_NS, minlength=tenths.size)
        keep(inside)
    count = int(tenths.sum())
    notes, name = [], Path(rows.name).name
    if total > count:
        first = format_duration(duration_ns)
        notes.append(f"a trial replays the first {first} of {name}: {count:,} of its {total:,} requests")
    said_ns = max(_SAID_GAP_NS, _SAID_GAP_MEANS * duration_ns / count)
    if gap_ns >= said_ns:
        gap, at = format_duration(gap_ns), format_duration(gap_at_ns)
        notes.append(f"{name} has a gap of {gap} at {at}: nothing is sent in it")
    if duration_ns - last_ns >= said_ns:
        rest = f"nothing is sent in the last {format_duration(duration_ns - last_ns)} of a trial"
        notes.append(_ends(name, last_ns, duration_ns) if total == count else rest)
    rate = _rounded(count / (duration_ns / 1e9))
    return Trace(rate, Times(count, tuple(tenths.tolist())), None, rows.sha256, tuple(notes))


def _ends(name: str, end_ns: int, duration_ns: int) -> str:
    end, rest = format_duration(end_ns), format_duration(duration_ns - end_ns)
    return f"{name} ends at {end}: nothing is sent in the last {rest} of a trial"


def _rounded(rate_rps: float) -> float:
    """As a person reads it, in names and tables."""
    return float(f"{rate_rps:.6g}")


# --- rates -------------------------------------------------------------------------------------------------


def _read_rates(rows: _Rows, duration_ns: int) -> Trace:
    blocks = list(rows.blocks())  # MOST_INTERVALS at most
    starts = np.concatenate([times for times, _ in blocks])
    rates = np.concatenate([own for _, own in blocks])
    lengths = np.diff(starts)
    end_ns = int(starts[-1] + lengths[-1]) if lengths.size else duration_ns
    notes, name = [], Path(rows.name).name
    if end_ns > duration_ns:
        first, all_of_it = format_duration(duration_ns), format_duration(end_ns)
        notes.append(f"a trial replays the first {first} of {name}, which has {all_of_it}")
    usual = float(np.median(lengths)) if lengths.size else 0.0
    long = np.flatnonzero((lengths > _LONG_INTERVAL * usual) & (starts[:-1] < duration_ns))
    if long.size:
        worst = int(long[np.argmax(lengths[long])])
        longest, at = format_duration(lengths[worst]), format_duration(starts[worst])
        notes.append(
            f"longer than the usual {format_duration(usual)}: {long.size} of {lengths.size} intervals of"
            f" {name}, the longest {longest} at {at}; their rates hold on"
        )
    inside = starts < duration_ns
    starts, rates = starts[inside], rates[inside]
    if end_ns < duration_ns:
        notes.append(_ends(name, end_ns, duration_ns))
        starts, rates = np.append(starts, end_ns), np.append(rates, 0.0)
    requests = float(np.sum(rates * np.diff(starts, append=duration_ns))) / 1e9
    if requests < 1:
        what = f"it sends less than one request in the {format_duration(duration_ns)} of a trial"
        raise _cannot(rows.name, what, "higher rates, or longer trials")
    rate = _rounded(requests / (duration_ns / 1e9))
    levels = tuple((rates / rate).tolist())
    return Trace(rate, None, Rates(tuple(starts.tolist()), levels), rows.sha256, tuple(notes))
