"""The rows of a recorded load, block by block: times, rates, and words for what is neither. Untrusted input.

Two ways to a row: `Rows` is meshwise's own form, numbers alone under a heading that says what they are;
`ColumnRows` takes one column of a table as others publish it (a CSV with further columns, quoted cells,
dates, or a server's log).
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.study.load.profile import TraceForm

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_ROWS = 20_000_000
MOST_INTERVALS = 100_000
_BLOCK_BYTES = 1 << 20
_UNITS_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
_DATE_UNIT_NS = 1e3
"""Dates are read to a microsecond."""
_RATE = "rate_rps"
_HEADER_REMEDY = (
    "begin with a line that names the columns: `time_s` (or `time_ms`, `time_us`, `time_ns`) for one request"
    " per row, `time_s,rate_rps` for a rate from each time on; of another table say which column has the"
    " times (`time_column` in a study, `--time-column`)"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LOG_DATE = re.compile(r"\[?(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\]?")
"""As Apache and nginx write it: `10/Oct/2024:13:55:36 +0200`."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LOG_CELL = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|\S+')


def open_rows(name: str, stream: BinaryIO, form: TraceForm) -> Rows:
    """Reads the heading. Raises MW113."""
    if form.column is None and form.unit is None:
        return Rows(name, stream, form)
    return ColumnRows(name, stream, form)


def cannot_replay(where: str, what: str, remedy: str) -> MeshwiseError:
    return messages.BAD_TRACE.error(where, what=what, remedy=remedy)


class Rows:
    """The numbers of a file, block by block, and words for what is none."""

    def __init__(self, name: str, stream: BinaryIO, form: TraceForm) -> None:
        """Reads the header."""
        self.name, self._form = name, form
        self._stream, self._hash, self._rest = stream, hashlib.sha256(), b""
        self._line = 1
        self._base: float | None = None
        self._columns, self._unit_ns = self._heading(self._first_line())

    def _heading(self, first: str) -> tuple[int, float]:
        """How many columns there are, and the unit of the first in ns."""
        names = [each.strip().strip('"') for each in first.split(",")]
        unit_ns = _UNITS_NS.get(names[0].removeprefix("time_"))
        if not names[0].startswith("time_") or unit_ns is None or names[1:] not in ([], [_RATE]):
            raise self.cannot(1, f"`{first.strip()[:60]}` is not the header of a trace", _HEADER_REMEDY)
        return len(names), unit_ns

    @property
    def are_rates(self) -> bool:
        return self._columns == 2

    @property
    def sha256(self) -> str:
        """Of what was read so far: of the file, after the last block."""
        return self._hash.hexdigest()

    def cannot(self, line: int, what: str, remedy: str) -> MeshwiseError:
        return cannot_replay(f"{self.name}:{line}", what, remedy)

    def blocks(self) -> Iterator[tuple[Ints, Floats]]:
        """Times in ns from the first row on, in order, and the rates (empty in a trace of times)."""
        last_ns, total = -1 if self.are_rates else 0, 0
        for line, text, found in self._sorted() if self._form.sort else self._read():
            if self._base is None:
                self._base = float(found[0, 0])
            times = np.rint((found[:, 0] - self._base) * self._unit_ns).astype(np.int64)
            steps = np.diff(times, prepend=last_ns)
            wrong = np.flatnonzero(steps < (1 if self.are_rates else 0))
            if wrong.size:
                where, shown = _line_of(line, text, int(wrong[0])), f"{found[wrong[0], 0]:.15g}"
                what = f"the time {shown} is not after the one in the row above it"
                remedy = "sort the rows by their time, or ask for it (`sort: true` in a study, `--sort`)"
                raise self.cannot(where, what, remedy)
            last_ns, total = int(times[-1]), total + len(times)
            yield times, found[:, 1] if self.are_rates else np.empty(0)
        if not total:
            raise cannot_replay(self.name, "it has no row", "put a row for each request below the header")

    def _read(self) -> Iterator[tuple[int, bytes, Floats]]:
        """Line, text and rows of each block that has some."""
        total, most = 0, MOST_INTERVALS if self.are_rates else MOST_ROWS
        for line, text in self._texts():
            found = self._numbers(line, text)
            if (total := total + len(found)) > most:
                what, remedy = f"it has more than {most:,} rows", "cut it to the part that a trial replays"
                raise cannot_replay(self.name, what, remedy)
            if len(found):
                yield line, text, found

    def _sorted(self) -> Iterator[tuple[int, bytes, Floats]]:
        """All rows at once in the order of their times; two rates at one time are reported without a line."""
        if read := [found for _, _, found in self._read()]:
            found = np.concatenate(read)
            found = found[np.argsort(found[:, 0], kind="stable")]
            if self.are_rates and (same := np.flatnonzero(np.diff(found[:, 0]) <= 0)).size:
                what = f"two rates at the time {found[same[0], 0]:.15g}"
                raise cannot_replay(self.name, what, "one rate for each time")
            for start in range(0, len(found), _BLOCK_BYTES):
                yield 0, b"", found[start : start + _BLOCK_BYTES]

    def _first_line(self) -> str:
        for line, text in self._texts():
            first, _, rest = text.partition(b"\n")
            self._rest, self._line = rest + self._rest, line + 1
            return first.decode("utf-8-sig", "replace")
        raise cannot_replay(self.name, "it is empty", _HEADER_REMEDY)

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
            found = np.loadtxt(
                io.BytesIO(text), np.float64, delimiter=",", ndmin=2, comments=None, quotechar='"'
            )
        except ValueError as error:
            raise self._blame(line, text) from error
        if found.shape[1] != self._columns:
            raise self._blame(line, text)
        good = (np.isfinite(found) & (found >= 0)).all(axis=1)
        if not good.all():
            row = int(np.argmin(good))
            shown = ",".join(f"{number:g}" for number in found[row])
            what = f"`{shown}`: times and rates are finite and not negative"
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
                    float(cell.strip().strip('"'))
                except ValueError:
                    what = f"`{cell.strip()[:40]}` is not a number"
                    return self.cannot(number, what, "correct the row, or leave it out")
        return self.cannot(line, "from here on it is not a table of numbers", "write one number per cell")


class ColumnRows(Rows):
    """The times in one column of a table."""

    def _heading(self, first: str) -> tuple[int, float]:
        self._separator = _separator_of(first)
        cells = self._cells([first])[0] if first.strip() else []
        column = self._form.column or "1"
        number = cells.index(column) + 1 if column in cells else int(column) if column.isdecimal() else 0
        if not 0 < number <= len(cells):
            known = ", ".join(f"`{cell[:40]}`" for cell in cells[:20])
            raise self.cannot(1, f"there is no column `{column[:40]}`", f"a heading or a number: {known}")
        self._index = number - 1
        heading = cells[self._index]
        unit = self._form.unit or (
            heading.rpartition("_")[2] if heading.rpartition("_")[2] in _UNITS_NS else None
        )
        if column in cells or _time_of(heading) is None:
            self._dates = unit == "date" if unit else None
        else:  # without a heading: it is the first row
            self._line, self._rest = 1, first.encode() + b"\n" + self._rest
            self._dates = unit == "date" if unit else None
        return 1, _UNITS_NS.get(unit or "", _DATE_UNIT_NS)

    def _numbers(self, line: int, text: bytes) -> Floats:
        lines = text.decode("utf-8-sig", "replace").split("\n")
        kept = [(number, each) for number, each in enumerate(lines, start=line) if each.strip()]
        if not kept:
            return np.empty((0, 1))
        try:
            cells = [row[self._index] for row in self._cells([each for _, each in kept])]
            if self._dates is None:
                self._dates = self._are_dates(kept[0][0], cells[0])
            of = _date_us if self._dates else float
            found = np.fromiter(map(of, cells), np.float64, len(cells))
        except (ValueError, IndexError, csv.Error) as error:
            raise self._blame_cell(kept) from error
        good = np.isfinite(found)
        if not good.all():
            number, cell = kept[int(np.argmin(good))][0], cells[int(np.argmin(good))]
            raise self.cannot(number, f"`{cell[:40]}`: times are finite", "correct the row, or leave it out")
        return found.reshape(-1, 1)

    def _are_dates(self, line: int, cell: str) -> bool:
        """Of a column whose unit was not said."""
        try:
            float(cell)
        except ValueError:
            return True
        what = f"`{cell[:40]}` has no unit"
        units = ", ".join(f"`{unit}`" for unit in _UNITS_NS)
        raise self.cannot(line, what, f"say it (`unit` in a study, `--unit`): {units}")

    def _cells(self, lines: Sequence[str]) -> list[list[str]]:
        """Raises csv.Error for a quote that does not end in its line."""
        if self._separator is None:
            return [[cell.strip('"') for cell in _LOG_CELL.findall(line)] for line in lines]
        found = list(csv.reader(lines, delimiter=self._separator, skipinitialspace=True, strict=True))
        if len(found) != len(lines):
            raise csv.Error
        return [[cell.strip() for cell in row] for row in found]

    def _blame_cell(self, kept: Sequence[tuple[int, str]]) -> MeshwiseError:
        """The first line without a time in the column."""
        remedy = "correct the row, or leave it out"
        if self._dates:
            remedy += "; a date is ISO 8601 (`2024-10-10T13:55:36+02:00`) or a server log's"
        for number, text in kept:
            try:
                (row,) = self._cells([text])
            except csv.Error:
                return self.cannot(number, "a quote that does not end in its line", remedy)
            if len(row) <= self._index:
                return self.cannot(number, f"a row of {len(row)} without column {self._index + 1}", remedy)
            try:
                _date_us(row[self._index]) if self._dates else float(row[self._index])
            except ValueError:
                what = f"`{row[self._index][:40]}` is not a {'date' if self._dates else 'number'}"
                return self.cannot(number, what, remedy)
        return self.cannot(kept[0][0], "from here on it is not a table", remedy)


def _separator_of(line: str) -> str | None:
    """Between the cells of a table; None: blanks, as in a server's log."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", line)
    return next((each for each in "\t,;" if each in bare), None if " " in bare.strip() else ",")


def _time_of(cell: str) -> float | None:
    for read in (float, _date_us):
        try:
            return float(read(cell))
        except ValueError:
            continue
    return None


def _date_us(cell: str) -> float:
    """Microseconds since 1970 of an ISO 8601 date or a server log's; UTC where it says no zone.
    Raises ValueError."""
    if (found := _LOG_DATE.fullmatch(cell)) and found[2] in _MONTHS:
        shift = timedelta(hours=int(found[8]), minutes=int(found[9]))
        when = datetime(
            int(found[3]), _MONTHS.index(found[2]) + 1, int(found[1]), int(found[4]), int(found[5]),
            int(found[6]), tzinfo=timezone(-shift if found[7] == "-" else shift),
        )  # fmt: skip
    else:
        when = datetime.fromisoformat(cell)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return float((when - _EPOCH) // _MICROSECOND)


def _line_of(line: int, text: bytes, row: int) -> int:
    """The line of the row with this index in a text that begins at `line`: blank ones are no rows."""
    numbers = [line + index for index, each in enumerate(text.split(b"\n")) if each.strip()]
    return numbers[row]
