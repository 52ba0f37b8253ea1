"""Reading a recorded load: a CSV of times, or of rates per interval. Untrusted input, read as a stream.

    time_s            time_s,rate_rps
    0.000             0,250
    0.0013            60,310

Rules of this file:
- The header says what the file is and its unit: `time_s`, `time_ms`, `time_us` or `time_ns`; or a `TraceForm`
  says which column of another table has the times (`study.load.trace_rows`). The first row is the trial's
  time 0, so that clock times (since 1970; kept to a microsecond) serve as well as relative ones.
- A time is one request. A rate holds from its row's time to the next row's; the last as long as the one
  before.
- Memory is bounded by a block of the file, whatever its size; more than MOST_ROWS rows are refused.
- Disorder is refused with its line, unless the form asks for the order of times: then all times are held at
  once, 160 MB of them at most. A gap is legal, because load has gaps, and noted for the plan, because a
  gap in a log may be the log's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meshwise.core.files import reading
from meshwise.core.units import format_duration
from meshwise.study.load.profile import OWN_FORM, TENTH_NS, Rates, Times, TraceForm
from meshwise.study.load.trace_rows import Ints, Rows, cannot_replay, open_rows

TRACES = "traces"
"""Where an archive keeps them, beside its study.yaml."""
_SAID_GAP_NS, _SAID_GAP_MEANS = 10**9, 20
"""A gap is noted from a second and so many mean gaps on."""
_LONG_INTERVAL = 1.5
"""Times the usual interval of a trace of rates: it is noted."""


@dataclass(frozen=True)
class Trace:
    """What a file holds for the measured window: `times` or `rates`."""

    rate_rps: float
    """Mean over the window."""
    times: Times | None
    rates: Rates | None
    sha256: str
    notes: tuple[str, ...]


def read_trace(
    path: Path,
    duration_ns: int,
    keep: Callable[[Ints], None] | None = None,
    form: TraceForm = OWN_FORM,
) -> Trace:
    """Reads and checks the whole file. `keep` gets the times within the window, block by block; it is not
    called for a trace of rates. Raises MW113 with file and line."""
    try:
        with reading(path) as stream:
            rows = open_rows(str(path), stream, form)
            if rows.are_rates:
                return _read_rates(rows, duration_ns)
            return _read_times(rows, duration_ns, keep or (lambda _: None))
    except OSError as error:
        raise cannot_replay(str(path), f"cannot be read: {error.strerror}", "give a file") from error


# --- times -------------------------------------------------------------------------------------------------


def _read_times(rows: Rows, duration_ns: int, keep: Callable[[Ints], None]) -> Trace:
    tenths = np.zeros(-(-duration_ns // TENTH_NS), np.int64)
    total, last_ns, gap_ns, gap_at_ns, coarse = 0, 0, 0, 0, True
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
        coarse = coarse and not (inside % 10**9).any()
        tenths += np.bincount(inside // TENTH_NS, minlength=tenths.size)
        keep(inside)
    count = int(tenths.sum())
    notes, name = [], Path(rows.name).name
    if total > count:
        first = format_duration(duration_ns)
        notes.append(f"a trial replays the first {first} of {name}: {count:,} of its {total:,} requests")
    if coarse and count > np.count_nonzero(tenths):
        notes.append(f"the times of {name} are whole seconds: those of one second are sent at its beginning")
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


def _read_rates(rows: Rows, duration_ns: int) -> Trace:
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
        raise cannot_replay(rows.name, what, "higher rates, or longer trials")
    rate = _rounded(requests / (duration_ns / 1e9))
    levels = tuple((rates / rate).tolist())
    return Trace(rate, None, Rates(tuple(starts.tolist()), levels), rows.sha256, tuple(notes))
