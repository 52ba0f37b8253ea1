"""One counting trial's windows -> one number per metric. Nothing later sees a window but what they vary by.

Rules of this file:
- Warm-up windows are never used.
- What a process does while nothing is asked goes on while something is: the idle window's count per time is
  taken off every window by its length.
- A handshake's cost is what a window of new connections has beside the requests in it, of the sidecar that
  they are opened to: that of the entry. Their requests come straight from a client, without what a sidecar
  adds to them, so they cost somewhat less than those on kept connections, which are subtracted: beside a
  handshake this is a per cent or so, beside a connection without one it would be all there is.
- The sum over sidecars exists where all of them were counted, else none, rather than one over the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from meshwise.findings.flag import TELEMETRY_INCOMPLETE, Flag
from meshwise.findings.metric import CALLS, CALLS_BY_NAME, HANDSHAKE, INSTRUCTIONS, RESUMED, MetricKey
from meshwise.measure.functions import attributed, by_group
from meshwise.measure.trial import TrialResult
from meshwise.stats.arrays import FloatArray
from meshwise.study.counting import WindowKind
from meshwise.study.model import MtlsMode, Trial
from meshwise.telemetry.counting.seam import Function
from meshwise.telemetry.source import Source

_PER_REQUEST = {"instructions": INSTRUCTIONS, "system_calls": CALLS}
"""What the archive counts -> the metric."""
_HANDSHAKING = (MtlsMode.PERMISSIVE, MtlsMode.STRICT)
_OPENED = {WindowKind.FRESH: HANDSHAKE, WindowKind.RESUMED: RESUMED}


@dataclass(frozen=True)
class CountedTrial:
    result: TrialResult
    windows: Mapping[MetricKey, FloatArray]
    """Metric -> its value in every window of requests."""
    counter: str
    functions: Mapping[Function, float] | None = None
    """Instructions of all sidecars together per request, by function; None where they are not told apart."""


def measure_counts(
    trial: Trial, counts: pl.DataFrame, flags: tuple[Flag, ...] = (), functions: pl.DataFrame | None = None
) -> CountedTrial:
    """All metrics of one counting trial. `counts`, `functions`: its rows of `archive.schema.COUNTS` and
    `FUNCTIONS`."""
    windows, counted, counter = _read(counts)
    expected = [workload.name for workload in trial.cell.topology.workloads]
    found = list(flags)
    per_window: dict[MetricKey, FloatArray] = {}
    values: dict[MetricKey, float] = {}
    for metric, key in _PER_REQUEST.items():
        calls = counted.get(metric, {})
        own = {name: _sum(calls[name].values()) for name in expected if name in calls}
        known = {name: _per_request(_read_in(windows, each, metric), each) for name, each in own.items()}
        known = {name: each for name, each in known.items() if len(each)}
        per_window |= {MetricKey(key, name): each for name, each in known.items()}
        if list(known) == expected and len({len(each) for each in known.values()}) == 1:
            per_window[MetricKey(key)] = np.sum(list(known.values()), axis=0)
        elif known:
            missing = ", ".join(name for name in expected if name not in known)
            found.append(TELEMETRY_INCOMPLETE(what=metric.replace("_", " "), workloads=missing))
        entry = own.get(trial.cell.topology.entry.name)
        if metric == "instructions" and entry and trial.cell.posture.mtls in _HANDSHAKING:
            costs = {name: _per_connection(windows, entry, kind) for kind, name in _OPENED.items()}
            values |= {MetricKey(name): cost for name, cost in costs.items() if cost is not None}
    values |= {key: float(each.mean()) for key, each in per_window.items()}
    if MetricKey(CALLS) in values:
        values |= _calls_by_name(windows, counted["system_calls"])
    by_function = None if functions is None else attributed(trial, functions)
    if by_function is not None:
        values |= by_group(trial.cell.mesh, by_function)
    return CountedTrial(TrialResult(trial, values, flags=tuple(found)), per_window, counter, by_function)


class _CountedWindow(NamedTuple):
    kind: str
    requests: int
    connections: int
    duration_ns: int


_Windows = Mapping[int, _CountedWindow]
_Values = Counter[int]
"""By window; 0 where a call was not made."""


def _read(counts: pl.DataFrame) -> tuple[_Windows, Mapping[str, dict[str, dict[str, _Values]]], str]:
    """The windows, and what was counted in them: metric -> workload -> name -> values. Of sidecars only."""
    windows: dict[int, _CountedWindow] = {}
    counted: dict[str, dict[str, dict[str, _Values]]] = {}
    counter = ""
    columns = ("window", "kind", "source", "counter", "metric", "name", "value", *_CountedWindow._fields[1:])
    for window, kind, source, named, metric, name, value, *rest in counts.select(columns).iter_rows():
        counter = named
        place = Source.read(source)
        if place is not None and place.role == "proxy":
            windows[window] = _CountedWindow(kind, *rest)
            counted.setdefault(metric, {}).setdefault(place.workload, {}).setdefault(name, Counter())[
                window
            ] += value
    return dict(sorted(windows.items())), counted, counter


def _sum(values: Iterable[_Values]) -> _Values:
    found: _Values = Counter()
    for each in values:
        found.update(each)
    return found


def _read_in(windows: _Windows, values: _Values, metric: str) -> _Windows:
    """Those in which a process was read: one without instructions was not, one without calls made none."""
    return windows if metric == "system_calls" else {at: windows[at] for at in windows if at in values}


def _net(windows: _Windows, values: _Values, number: int) -> float:
    """Of one window, without what goes on all the time."""
    idle = [at for at, each in windows.items() if each.kind == WindowKind.IDLE]
    length = sum(windows[at].duration_ns for at in idle)
    per_ns = sum(values[at] for at in idle) / length if length else 0.0
    return values[number] - per_ns * windows[number].duration_ns


def _per_request(windows: _Windows, values: _Values) -> FloatArray:
    """In each window of requests."""
    asked = {at: each for at, each in windows.items() if each.kind == WindowKind.REQUESTS and each.requests}
    return np.array([_net(windows, values, at) / each.requests for at, each in asked.items()])


def _per_connection(windows: _Windows, values: _Values, kind: WindowKind) -> float | None:
    """Of a new connection, beside its requests; None where none was opened."""
    opened = {at: each for at, each in windows.items() if each.kind == kind and each.connections}
    per_request = _per_request(windows, values)
    if not opened or not len(per_request):
        return None
    asked = sum(each.requests for each in opened.values())
    net = sum(_net(windows, values, at) for at in opened) - float(per_request.mean()) * asked
    return net / sum(each.connections for each in opened.values())


def _calls_by_name(windows: _Windows, counted: Mapping[str, Mapping[str, _Values]]) -> dict[MetricKey, float]:
    """Name of a system call -> how many per request, of all sidecars."""
    names = dict.fromkeys(name for calls in counted.values() for name in calls)
    return {
        MetricKey(CALLS_BY_NAME, name): float(
            sum(_per_request(windows, calls[name]).mean() for calls in counted.values() if name in calls)
        )
        for name in names
    }
