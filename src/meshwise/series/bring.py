"""Brings a production mesh's series out of a Prometheus: every point, and what disturbs it.

Every step asks for `last_over_time(metric[step])`: the newest reading within the step, and nothing where
there was none, so that a gap stays a gap (a plain range query fills up to five minutes with the last value).
The range is a millisecond shorter than the step, because before version 3 it has both of its ends.
What falls is a counter that began again: what it counted since is added, as Prometheus's `increase` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from meshwise.archive.imported import SAMPLES, SERIES, TROUBLES, ImportWriter
from meshwise.core import messages
from meshwise.series.meshes import CONTAINER_METRICS, MESH_METRICS, AskedMetric, Belonging, Pods, belonging
from meshwise.series.prometheus import PrometheusApi, RangeSeries

MOST_SERIES = 500_000
MOST_TROUBLES = 100_000
"""Rows; further ones are counted only."""
_LATE_STEPS = 1.5
_SPARSE_SHARE = 0.3
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

Say = Callable[[str], None]


@dataclass(frozen=True)
class ImportRange:
    """What is asked for."""

    begin_ns: int
    end_ns: int
    step_ns: int
    namespaces: tuple[str, ...] = ()
    most_samples: int = 20_000_000


@dataclass
class _Series:
    """One series while it is read, piece by piece."""

    number: int
    asked: AskedMetric
    of: Belonging
    labels: str
    first_ns: int = 0
    last_ns: int = 0
    last: float = 0.0
    samples: int = 0
    resets: int = 0
    gaps: int = 0
    increase: float = 0.0
    total: float = 0.0
    most: float = -np.inf


@dataclass(frozen=True)
class Brought:
    """What came, in counts."""

    series: int
    samples: int
    resets: int
    gaps: int
    late: int
    ended: int
    troubles_left_out: int
    sparse: bool
    """So many gaps that the step is likely shorter than what lies between two scrapes."""
    queries: tuple[str, ...]


@dataclass
class _Bringing:
    wanted: ImportRange
    writer: ImportWriter
    server: str
    pods: Pods = field(default_factory=Pods)
    series: dict[tuple[str, str], _Series] = field(default_factory=dict)
    samples: int = 0
    troubles: int = 0

    def piece(self, asked: AskedMetric, found: Iterable[RangeSeries]) -> None:
        for each in found:
            labels = json.dumps(dict(sorted(each.labels.items())))
            series = self.series.get((asked.metric, labels))
            if series is None:
                if len(self.series) >= MOST_SERIES:
                    most = f"{MOST_SERIES:,} series"
                    raise messages.TOO_MUCH.error(self.server, most=most, reason=f"at {asked.metric}")
                of = belonging(asked, each.labels, self.pods)
                series = _Series(len(self.series), asked, of, labels)
                self.series[asked.metric, labels] = series
            self._points(series, np.array(each.t_ns, np.int64), np.array(each.values, np.float64))

    def _points(self, series: _Series, t_ns: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
        usable = np.isfinite(values) & (values >= 0 if series.asked.counter else True)
        t_ns, values = t_ns[usable], values[usable]
        if not len(t_ns):
            return
        self.samples += len(t_ns)
        if self.samples > self.wanted.most_samples:
            most = f"{self.wanted.most_samples:,} samples"
            raise messages.TOO_MUCH.error(self.server, most=most, reason=f"at {series.asked.metric}")
        self.writer.add(
            SAMPLES,
            {"series": np.full(len(t_ns), series.number, np.int32), "t_unix_ns": t_ns, "value": values},
        )
        if series.samples:
            joined_t, joined = np.append(series.last_ns, t_ns), np.append(series.last, values)
        else:
            series.first_ns, joined_t, joined = int(t_ns[0]), t_ns, values
        self._disturbances(series, joined_t, joined)
        series.samples += len(t_ns)
        series.last_ns, series.last = int(t_ns[-1]), float(values[-1])
        series.total += float(values.sum())
        series.most = max(series.most, float(values.max()))

    def _disturbances(
        self, series: _Series, t_ns: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
    ) -> None:
        change = np.diff(values)
        if series.asked.counter:
            fell = change < 0
            series.increase += float(np.where(fell, values[1:], change).sum())
            series.resets += int(fell.sum())
            for at in np.flatnonzero(fell):
                what = f"fell from {values[at]:g} to {values[at + 1]:g}"
                self._trouble(series, "reset", int(t_ns[at]), int(t_ns[at + 1]), what)
        gap = np.diff(t_ns) > _LATE_STEPS * self.wanted.step_ns
        series.gaps += int(gap.sum())
        for at in np.flatnonzero(gap):
            missing = round((t_ns[at + 1] - t_ns[at]) / self.wanted.step_ns) - 1
            self._trouble(series, "gap", int(t_ns[at]), int(t_ns[at + 1]), f"{missing} steps without a point")

    def _trouble(self, series: _Series, kind: str, begin_ns: int, end_ns: int, detail: str) -> None:
        self.troubles += 1
        if self.troubles > MOST_TROUBLES:
            return
        row = {
            "series": [series.number],
            "kind": [kind],
            "begin_unix_ns": [begin_ns],
            "end_unix_ns": [end_ns],
            "detail": [detail],
        }
        self.writer.add(TROUBLES, row)

    def close(self) -> tuple[int, int]:
        """How many series began late and ended early; writes the table of series."""
        late = ended = 0
        slack = _LATE_STEPS * self.wanted.step_ns
        for each in self.series.values():
            if each.samples and each.first_ns > self.wanted.begin_ns + slack:
                late += 1
                self._trouble(
                    each,
                    "late",
                    self.wanted.begin_ns,
                    each.first_ns,
                    "no point before; what it counted until then is not known",
                )
            if each.samples and each.last_ns < self.wanted.end_ns - slack:
                ended += 1
                self._trouble(
                    each,
                    "ended",
                    each.last_ns,
                    self.wanted.end_ns,
                    "no point after: it was stale, or its pod was gone",
                )
        rows = [self._row(each) for each in self.series.values() if each.samples]
        columns = {column.name: [row[column.name] for row in rows] for column in SERIES.columns}
        self.writer.add(SERIES, columns)
        return late, ended

    def _row(self, each: _Series) -> dict[str, object]:
        of, counter = each.of, each.asked.counter
        return {
            "series": each.number, "metric": each.asked.metric, "kind": "counter" if counter else "gauge",
            "mesh": of.mesh, "namespace": of.namespace, "workload": of.workload, "side": of.side,
            "proxy_of": of.proxy_of, "pod": of.pod, "container": of.container, "labels": each.labels,
            "first_unix_ns": each.first_ns, "last_unix_ns": each.last_ns, "samples": each.samples,
            "resets": each.resets, "gaps": each.gaps, "increase": each.increase if counter else None,
            "mean": None if counter else each.total / each.samples, "most": None if counter else each.most,
        }  # fmt: skip


def bring(
    api: PrometheusApi, wanted: ImportRange, writer: ImportWriter, say: Say = lambda text: None
) -> Brought:
    """Read all that is wanted into the writer's tables. Raises MW022 to MW026."""
    bringing = _Bringing(wanted, writer, str(api.to))
    queries: list[str] = []

    def read(asked: AskedMetric, namespaces: tuple[str, ...]) -> None:
        query = f"last_over_time({asked.selector(namespaces)}[{wanted.step_ns // 1_000_000 - 1}ms])"
        queries.append(query)
        before = len(bringing.series), bringing.samples
        for piece in api.range(query, wanted.begin_ns, wanted.end_ns, wanted.step_ns):
            bringing.piece(asked, piece)
        came = len(bringing.series) - before[0], bringing.samples - before[1]
        say(f"{asked.metric}: {came[0]} series, {came[1]:,} samples")

    for asked in MESH_METRICS:
        read(asked, wanted.namespaces)
    if not bringing.samples:
        raise messages.NOTHING_FOUND.error(
            str(api.to), begin=moment(wanted.begin_ns), end=moment(wanted.end_ns)
        )
    for asked in CONTAINER_METRICS:
        read(asked, wanted.namespaces or _namespaces(bringing.series.values()))
    late, ended = bringing.close()
    found = [each for each in bringing.series.values() if each.samples]
    resets, gaps = sum(each.resets for each in found), sum(each.gaps for each in found)
    return Brought(
        series=len(found),
        samples=bringing.samples,
        resets=resets,
        gaps=gaps,
        late=late,
        ended=ended,
        troubles_left_out=max(0, bringing.troubles - MOST_TROUBLES),
        sparse=gaps > _SPARSE_SHARE * max(1, bringing.samples),
        queries=tuple(queries),
    )


def _namespaces(series: Iterable[_Series]) -> tuple[str, ...]:
    """Those of the mesh's workloads; what is no name of a namespace goes into no query."""
    named = {each.of.namespace for each in series}
    named |= {each.of.proxy_of.partition("/")[0] for each in series if each.of.proxy_of}
    return tuple(sorted(name for name in named if _NAMESPACE.fullmatch(name) and name != "unknown"))


def is_namespace(name: str) -> bool:
    return _NAMESPACE.fullmatch(name) is not None


def moment(t_ns: int) -> str:
    """In UTC, to a second."""
    return str(np.datetime64(t_ns // 10**9, "s")).replace("T", " ") + " UTC"
