"""Series as values: a line of points over wall-clock time, and a histogram that grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meshwise.series.names import MetricFamily, label_name

Labels = tuple[tuple[str, str], ...]
"""Sorted by name, without those that are empty: an empty label is no label."""
Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def labels_of(pairs: Mapping[str, object]) -> Labels:
    found = {label_name(name): str(value) for name, value in pairs.items() if value not in (None, "")}
    return tuple(sorted(found.items()))


@dataclass(frozen=True)
class TimeLine:
    """One series."""

    family: MetricFamily
    labels: Labels
    t_ns: Times
    """Since 1970, increasing."""
    values: Values
    """In the family's unit."""


@dataclass(frozen=True)
class HistogramSeries:
    """A histogram that counts up: at every time, how many were at most each bound so far."""

    family: MetricFamily
    labels: Labels
    t_ns: Times
    bounds: tuple[float, ...]
    """Without infinity."""
    counts: npt.NDArray[np.int64]
    """Time by bound, the last column at most infinity: all."""
    sums: Values


AnySeries = TimeLine | HistogramSeries


@dataclass(frozen=True)
class PlainSeries:
    """One plain series: a line, or one of those that a histogram is made of."""

    name: str
    labels: Labels
    t_ns: Times
    values: Values


def plain(line: AnySeries) -> Iterator[PlainSeries]:
    """The plain series of a line, a histogram's as `_bucket` (with `le`), `_sum` and `_count`."""
    if isinstance(line, TimeLine):
        yield PlainSeries(line.family.sample_name, line.labels, line.t_ns, line.values)
        return
    name = line.family.name
    for place, bound in enumerate([*map(number, line.bounds), "+Inf"]):
        labels = tuple(sorted((*line.labels, ("le", bound))))
        yield PlainSeries(f"{name}_bucket", labels, line.t_ns, line.counts[:, place].astype(np.float64))
    yield PlainSeries(f"{name}_sum", line.labels, line.t_ns, line.sums)
    yield PlainSeries(f"{name}_count", line.labels, line.t_ns, line.counts[:, -1].astype(np.float64))


def number(value: float) -> str:
    """As OpenMetrics writes it: `1.0`, `0.005`, `+Inf`, `NaN`."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))


def to_ms(sample: PlainSeries) -> tuple[Times, Values]:
    """Times in milliseconds, as Prometheus keeps them; of several points in one millisecond the last."""
    t_ms = sample.t_ns // 1_000_000
    kept = np.append(t_ms[1:] != t_ms[:-1], True) if len(t_ms) else np.zeros(0, bool)
    return t_ms[kept], sample.values[kept]
