"""A study's archive as time series on the wall clock, one trial at a time.

What becomes of which table (docs/prometheus.md has the list):
- `telemetry`: every reading as it was taken, under a name in base units.
- `requests`: counted up over the measured window every `step`, by status and error, and two histograms
  (response time, service time) of those that were answered. A request counts when it was done, one that was
  never answered when it was sent.
- `events`: 1 from its beginning to its end. `counts`, `findings`: one point each, of the time when they were
  stored. `trials`: a series of value 1 with all factors as labels.

The wall clock of a trial is `started_unix_ns` at its time 0; trials without it were not measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from meshwise.archive.findings import FINDINGS_NAME, read_findings
from meshwise.archive.read import ArchiveReader
from meshwise.core import messages
from meshwise.series.lines import AnySeries, HistogramSeries, TimeLine, Times, labels_of
from meshwise.series.names import PREFIX, MetricFamily, MetricKind, base_unit, cleaned, family_of
from meshwise.study.factors import FACTORS
from meshwise.study.model import Role
from meshwise.telemetry.labels import read_labels
from meshwise.telemetry.source import Source

STEP_NS = 10**9
BOUNDS_S = (
    *(round(step * 10.0**power, 9) for power in range(-5, 1) for step in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
    10.0,
)
"""Upper bounds of the histograms: six to a factor of ten, from 10 us to 10 s."""

REQUESTS = MetricFamily(
    f"{PREFIX}requests", MetricKind.COUNTER, "", "requests of the measured window by status and error"
)
RESPONSE = MetricFamily(
    f"{PREFIX}response_duration_seconds", MetricKind.HISTOGRAM, "seconds",
    "from the intended time of a request to its whole answer",
)  # fmt: skip
SERVICE = MetricFamily(
    f"{PREFIX}service_duration_seconds", MetricKind.HISTOGRAM, "seconds",
    "from the actual send of a request to its whole answer",
)  # fmt: skip
TRIAL = MetricFamily(
    f"{PREFIX}trial", MetricKind.INFO, "", "a trial with all its factors, from its time 0 to its end"
)
EVENT = MetricFamily(f"{PREFIX}event_active", MetricKind.GAUGE, "", "1 while something is done to a trial")
COUNTED_REQUESTS = MetricFamily(
    f"{PREFIX}counted_requests", MetricKind.GAUGE, "", "requests answered while instructions were counted"
)
_POINT_NS = 1_000_000
"""Prometheus keeps no two points of one millisecond."""
_ENDS = ("mesh", "posture", "protocol")


def lines_of(reader: ArchiveReader, step_ns: int = STEP_NS) -> Iterator[Sequence[AnySeries]]:
    """The lines of every trial in the order of time, then those of the findings. Raises MW011 where no trial
    has a wall-clock time; MW608, MW609."""
    trials = reader.trials()
    study = str(reader.about.get("study") or "study")
    timed = trials.filter(pl.col("started_unix_ns").is_not_null()).sort("started_unix_ns")
    if timed.is_empty():
        raise messages.NOTHING_TO_EXPORT.error(str(reader.directory))
    events, counts = _by_trial(reader.events()), _by_trial(reader.counts())
    for row in timed.to_dicts():
        trial_id = str(row["trial_id"])
        yield _Trial(study, row).lines(reader, events.get(trial_id), counts.get(trial_id), step_ns)
    if (reader.directory / FINDINGS_NAME).exists():
        stored_ns = int(timed["stored_unix_ns"].max() or 0)  # type: ignore[arg-type]  # a column of integers
        yield list(_findings(read_findings(reader.directory), study, stored_ns))


def _by_trial(table: pl.DataFrame) -> dict[str, pl.DataFrame]:
    parts = table.with_columns(pl.col("trial_id").cast(pl.String)).partition_by("trial_id", as_dict=True)
    return {str(trial_id): part for (trial_id,), part in parts.items()}


class _Trial:
    """One trial's rows to lines."""

    def __init__(self, study: str, row: Mapping[str, Any]) -> None:
        self._row = row
        self._id = str(row["trial_id"])
        self._zero_ns = int(row["started_unix_ns"])
        self._own = {
            "study": study,
            "trial": self._id,
            **{name: row[name] for name in _ENDS},
            "role": row["role"],
        }

    def lines(
        self,
        reader: ArchiveReader,
        events: pl.DataFrame | None,
        counts: pl.DataFrame | None,
        step_ns: int,
    ) -> list[AnySeries]:
        found: list[AnySeries] = []
        if self._row["telemetry_rows"] is not None:
            found += self._telemetry(reader.scan_telemetry([self._id]).collect())
        end_ns = step_ns
        if self._row["requests_rows"] is not None and self._row["role"] != Role.COUNT:
            requests = reader.scan_requests([self._id]).filter(pl.col("intended_ns") >= 0).collect()
            counted, end_ns = self._requests(requests, step_ns)
            found += counted
        if events is not None:
            found += self._events(events, end_ns)
        if counts is not None:
            found += self._counts(counts)
        found.append(self._info(end_ns))
        return found

    def _at(self, t_ns: Times) -> Times:
        return np.asarray(t_ns, np.int64) + self._zero_ns

    def _info(self, end_ns: int) -> TimeLine:
        row = self._row
        factors = {column.name: row[column.name] for factor in FACTORS for column in factor.columns}
        place = {
            name: row[name]
            for name in ("cell", "block", "execution", "round", "arm", "process_set", "status")
        }
        doubts = {"flags": ",".join(row["flags"] or ())}
        labels = labels_of({**factors, **place, **doubts, **self._own})
        return TimeLine(TRIAL, labels, self._at(np.array([0, end_ns])), np.ones(2))

    def _telemetry(self, table: pl.DataFrame) -> Iterator[TimeLine]:
        keys = [pl.col(name).cast(pl.String) for name in ("source", "metric", "labels")]
        grouped = (
            table.sort("t_ns", maintain_order=True)
            .group_by(keys, maintain_order=True)
            .agg(pl.col("t_ns"), pl.col("value"))
        )
        for source, metric, labels, t_ns, values in grouped.iter_rows():
            family, factor = family_of(metric)
            told = {
                f"of_{name}" if name in self._own else name: each
                for name, each in read_labels(labels).items()
            }
            yield TimeLine(
                family,
                labels_of({**told, **_source(source), **self._own}),
                self._at(np.array(t_ns, np.int64)),
                np.array(values, np.float64) * factor,
            )

    def _requests(self, table: pl.DataFrame, step_ns: int) -> tuple[list[AnySeries], int]:
        """The lines, and the time of the last point."""
        done = table["done_ns"].to_numpy()
        ended_ns = table.select(
            pl.coalesce("done_ns", "first_byte_ns", "sent_ns", "intended_ns").alias("ended")
        )["ended"].to_numpy()
        last = int(ended_ns.max()) if len(ended_ns) else 0
        times = np.arange(0, last + 2 * step_ns, step_ns, dtype=np.int64)
        step = np.minimum(np.searchsorted(times, ended_ns, side="left"), len(times) - 1)
        found: list[AnySeries] = []
        by = [
            "status",
            "error",
            *(name for name in ("operation", "client", "forbidden") if name in table.columns),
        ]
        if "forbidden" in by:  # whoever alerts on errors has to tell refusals that had to come
            said = pl.when(pl.col("forbidden").fill_null(False)).then(pl.lit("true")).otherwise(pl.lit(""))
            table = table.with_columns(said.alias("forbidden"))
        keyed = table.select(*(pl.col(name).cast(pl.String) for name in by)).with_columns(
            pl.Series("step", step)
        )
        for key, group in keyed.group_by(by, maintain_order=True):
            per_step = np.bincount(group["step"].to_numpy(), minlength=len(times))
            labels = labels_of({**dict(zip(by, key, strict=True)), **self._own})
            found.append(TimeLine(REQUESTS, labels, self._at(times), np.cumsum(per_step).astype(np.float64)))
        answered = ~np.isnan(done.astype(np.float64)) & (table["error"].cast(pl.String).to_numpy() == "")
        for family, since in ((RESPONSE, "intended_ns"), (SERVICE, "sent_ns")):
            begun = table[since].to_numpy().astype(np.float64)
            whole = answered & ~np.isnan(begun)
            seconds = (done.astype(np.float64)[whole] - begun[whole]) / 1e9
            found.append(self._histogram(family, times, step[whole], seconds))
        return found, int(times[-1])

    def _histogram(self, family: MetricFamily, times: Times, step: Times, seconds: Any) -> HistogramSeries:
        width = len(BOUNDS_S) + 1
        bucket = np.searchsorted(np.array(BOUNDS_S), seconds, side="left")
        grid = np.bincount(step * width + bucket, minlength=len(times) * width).reshape(len(times), width)
        counts = np.cumsum(np.cumsum(grid, axis=1), axis=0)
        sums = np.cumsum(np.bincount(step, weights=seconds, minlength=len(times))).astype(np.float64)
        return HistogramSeries(family, labels_of(self._own), self._at(times), BOUNDS_S, counts, sums)

    def _events(self, table: pl.DataFrame, end_ns: int) -> Iterator[TimeLine]:
        """1 from its beginning to its end; one that was never done lasts to the trial's end, one that never
        began has no line."""
        for row in table.to_dicts():
            begun, done = (
                (row["t_ns"], row["t_ns"] + row["duration_ns"])
                if row["event"] is None
                else (row["begun_ns"], row["done_ns"])
            )
            if begun is None:
                continue
            ends = end_ns if done is None else done
            times = np.array([min(0, begun - _POINT_NS), begun, max(ends, begun + _POINT_NS)], np.int64)
            values = np.array([0.0, 1.0, 1.0 if done is None else 0.0])
            told = {name: row[name] for name in ("target", "entry", "occurrence")}
            labels = labels_of({"event": row["event"] or row["kind"], **told, **self._own})
            yield TimeLine(EVENT, labels, self._at(times), values)

    def _counts(self, table: pl.DataFrame) -> Iterator[TimeLine]:
        """Sums over the windows of a kind, and the requests that were answered in them."""
        at = np.array([int(self._row["stored_unix_ns"])], np.int64)
        keys = ("kind", "source", "counter", "metric", "name")
        sums = table.group_by(*(pl.col(key).cast(pl.String) for key in keys), maintain_order=True).agg(
            pl.col("value").sum(), pl.col("requests").sum()
        )
        for kind, source, counter, metric, name, value, requests in sums.iter_rows():
            told = {"kind": kind, "counter": counter, **_source(source), **self._own}
            of_all = {COUNTED_REQUESTS: requests} if metric == "instructions" else {}
            for family, number in ({counted_family(metric): value} | of_all).items():
                labels = labels_of(told if family is COUNTED_REQUESTS else {**told, "name": name})
                yield TimeLine(family, labels, at, np.array([float(number)]))


def counted_family(metric: str) -> MetricFamily:
    """Of what was counted in a trial's windows of a kind."""
    words = f"{metric} of all windows of a kind, under a counter"
    return MetricFamily(f"{PREFIX}counted_{cleaned(metric)}", MetricKind.GAUGE, "", words)


def _source(text: str) -> dict[str, str]:
    """`istio/a/node-1/proxy` as labels; what is no process of an arm under `process` alone."""
    source = Source.read(text)
    if source is None:
        return {"process": text}
    return {"process_set": source.arm, "workload": source.workload, "process": source.role}


def _findings(document: Mapping[str, Any], study: str, at_ns: int) -> Iterator[TimeLine]:
    """Estimate, low and high of every finding that has a number, in base units."""
    at = np.array([at_ns], np.int64)
    for entry in document["findings"]:
        name, _, factor = base_unit(str(entry["metric"]))
        family = MetricFamily(
            f"{PREFIX}finding_{cleaned(name)}",
            MetricKind.GAUGE,
            "",
            f"{entry['metric']} as findings.json has it",
        )
        scope = {key: _short(value) for key, value in (entry.get("scope") or {}).items()}
        told = {"kind": entry["kind"], "verdict": entry.get("verdict"), "provenance": entry.get("provenance")}
        for bound in ("estimate", "low", "high"):
            if isinstance(value := entry.get(bound), int | float):
                labels = labels_of({**scope, **told, "bound": bound, "finding": entry["id"], "study": study})
                yield TimeLine(family, labels, at, np.array([value * factor]))


def _short(value: object) -> str:
    """A level as a label; a service graph, which is a document, only by its beginning."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else text[:197] + "..."
