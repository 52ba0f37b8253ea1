"""Levels of a production mesh from what was imported: findings of provenance `imported`, one per workload.

Each is of the whole imported time: what its counters counted, by the time that they were there. They have no
interval over executions, because nothing was repeated and nobody changed one thing at a time; `low` and
`high` of a percentile are the bounds of the histogram's bucket that it lies in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from meshwise.core.units import plural
from meshwise.findings.finding import Finding, Findings, Provenance
from meshwise.findings.flag import BEGAN_LATE, COUNTER_RESETS, ENDED_EARLY, SERIES_GAPS, Flag
from meshwise.findings.metric import MetricKey
from meshwise.findings.subject import CellLevel
from meshwise.series.meshes import SIDECARS, failed, over_mtls

CANNOT_TELL = (
    "what a security posture costs: nobody changed only the posture, so a difference between two workloads, "
    "or between two times, is one of workloads and times",
    "which posture was in force, and whether it held: nothing was proven; the share of requests over mutual "
    "TLS is what the proxies counted",
    "the response time of a single request: there are only counts per bucket, so a percentile lies somewhere "
    "between the bounds that stand with it",
    "what a client waited: durations are those of a proxy that had the request already, without any "
    "queue before it",
    "the CPU of a request: all CPU of a sidecar in this time, idling, scraping and configuration "
    "included, is "
    "divided by the requests that passed it",
    "what happened between two steps: a counter that fell and passed its former value within one is "
    "not seen, "
    "nor what a series counted before its first point, or between its last point and a reset",
    "how sure a number is: one time of one cluster is one observation",
)
"""In words, for whoever reads the numbers: in imported.json, in the report, with the findings."""
PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
_REQUESTS = {"istio": "istio_requests_total", "linkerd": "response_total"}
_PASSED = {"istio": "istio_requests_total", "linkerd": "request_total"}
_BUCKETS = {"istio": "istio_request_duration_milliseconds_bucket", "linkerd": "response_latency_ms_bucket"}
PRIMARY = (
    "throughput_rps", "error_ratio", "mtls_ratio", "reported_p50_us", "reported_p99_us",
    "proxy_cpu_us_per_request", "sidecar_working_set_bytes",
)  # fmt: skip


def imported_findings(series: pl.DataFrame, about: Mapping[str, Any]) -> Findings:
    """`series`: the table `imported_series`. `about`: imported.json."""
    found = list(_levels(series, about))
    study = {
        "name": f"imported from {about['source']}", "confidence": 1.0, "primary_metrics": list(PRIMARY),
        "blocks": 1, "executions": 1, "imported": {name: about[name] for name in _ABOUT if name in about},
    }  # fmt: skip
    return Findings(study, {"testbed": "imported", "source": about["source"]}, tuple(found))


_ABOUT = ("source", "from_unix_ns", "to_unix_ns", "step_ns", "cannot_tell", "notes")


def _levels(series: pl.DataFrame, about: Mapping[str, Any]) -> Iterator[Finding]:
    text = [
        name for name, kind in series.schema.items() if kind == pl.Categorical or isinstance(kind, pl.Enum)
    ]
    series = series.with_columns(pl.col(name).cast(pl.String) for name in text)
    for mesh in _REQUESTS:
        asked = series.filter((pl.col("mesh") == mesh) & (pl.col("metric") == _REQUESTS[mesh]))
        for namespace, workload in (
            asked.select("namespace", "workload").unique().sort("namespace", "workload").rows()
        ):
            whose = (pl.col("namespace") == namespace) & (pl.col("workload") == workload)
            yield from _Workload(mesh, namespace, workload, series.filter(whose), series).levels(about)


class _Workload:
    """One workload's series, and all of them (for what its proxy carried to others)."""

    def __init__(
        self, mesh: str, namespace: str, workload: str, own: pl.DataFrame, everything: pl.DataFrame
    ) -> None:
        self.mesh, self.name = mesh, f"{namespace}/{workload}"
        self._own, self._everything = own, everything
        requests = self._of(_REQUESTS[mesh])
        self.side = "server" if "server" in requests["side"].to_list() else "client"
        self._requests = requests.filter(pl.col("side") == self.side)

    def _of(self, metric: str) -> pl.DataFrame:
        return self._own.filter((pl.col("mesh") == self.mesh) & (pl.col("metric") == metric))

    def levels(self, about: Mapping[str, Any]) -> Iterator[Finding]:
        rows = [
            (json.loads(labels), increase or 0.0)
            for labels, increase in self._requests.select("labels", "increase").rows()
        ]
        total = sum(increase for _, increase in rows)
        seconds = self._seconds()
        flags = self._flags(about)
        if seconds:
            yield self._finding(
                "throughput_rps", total / seconds, "1/s", flags, "requests counted by the time that they were"
            )
        if not total:
            return
        bad = sum(increase for labels, increase in rows if failed(_REQUESTS[self.mesh], labels))
        yield self._finding(
            "error_ratio",
            bad / total,
            "ratio",
            flags,
            "HTTP 5xx, no answer, gRPC status other than 0, or Linkerd's classification",
        )
        told = [(over_mtls(self.mesh, labels), increase) for labels, increase in rows]
        if known := sum(increase for secured, increase in told if secured is not None):
            mutual = sum(increase for secured, increase in told if secured)
            yield self._finding("mtls_ratio", mutual / known, "ratio", flags, "as its proxies label requests")
        yield from self._durations(flags)
        yield from self._containers(flags)

    def _seconds(self) -> float:
        """The time in which its requests were counted."""
        if self._requests.is_empty():
            return 0.0
        first, last = self._requests["first_unix_ns"].min(), self._requests["last_unix_ns"].max()
        return (int(last) - int(first)) / 1e9  # type: ignore[arg-type]  # a column of integers

    def _durations(self, flags: tuple[Flag, ...]) -> Iterator[Finding]:
        buckets = self._of(_BUCKETS[self.mesh]).filter(pl.col("side") == self.side)
        counts: dict[float, float] = {}
        for labels, increase in buckets.select("labels", "increase").rows():
            try:
                bound = float(json.loads(labels).get("le", "nan").replace("+Inf", "inf"))
            except ValueError:
                continue
            if not math.isnan(bound):
                counts[bound] = counts.get(bound, 0.0) + (increase or 0.0)
        for name, share in PERCENTILES:
            if (found := quantile(sorted(counts.items()), share)) is not None:
                estimate, low, high = (None if each is None else each * 1e3 for each in found)
                yield self._finding(
                    f"reported_{name}_us", estimate, "us", flags,
                    f"between the bounds of a bucket, as histogram_quantile; by the {self.side}'s proxy",
                    low, high,
                )  # fmt: skip

    def _containers(self, flags: tuple[Flag, ...]) -> Iterator[Finding]:
        through = (pl.col("metric") == _PASSED[self.mesh]) & (pl.col("proxy_of") == self.name)
        passed = _sum(self._everything.filter(through))
        sidecar = pl.col("container").is_in([name for name, mesh in SIDECARS.items() if mesh == self.mesh])
        cpu = self._own.filter(pl.col("metric") == "container_cpu_usage_seconds_total")
        memory = self._own.filter((pl.col("metric") == "container_memory_working_set_bytes") & sidecar)
        if not cpu.filter(sidecar).is_empty() and passed:
            cost = _sum(cpu.filter(sidecar)) / passed * 1e6
            yield self._finding(
                "proxy_cpu_us_per_request",
                cost,
                "us",
                flags,
                "CPU of its sidecars by the requests that passed them, in and out",
            )
        others = cpu.filter(~sidecar)
        served = _sum(self._requests)
        if not others.is_empty() and served:
            cost = _sum(others) / served * 1e6
            yield self._finding(
                "service_cpu_us_per_request",
                cost,
                "us",
                flags,
                "CPU of its other containers by the requests that it answered",
            )
        if not memory.is_empty():
            mean = sum(memory["mean"].to_list()) / memory.height
            yield self._finding(
                "sidecar_working_set_bytes", mean, "bytes", flags, "mean over its pods and the time"
            )

    def _flags(self, about: Mapping[str, Any]) -> tuple[Flag, ...]:
        resets, gaps = int(self._requests["resets"].sum()), int(self._requests["gaps"].sum())
        began = self._requests["first_unix_ns"] > int(about["from_unix_ns"]) + 1.5 * int(about["step_ns"])
        ended = self._requests["last_unix_ns"] < int(about["to_unix_ns"]) - 1.5 * int(about["step_ns"])
        late, early = int(began.sum()), int(ended.sum())
        counted = (
            (resets, COUNTER_RESETS(times=plural(resets, "time"))),
            (gaps, SERIES_GAPS(times=plural(gaps, "gap"))),
            (late, BEGAN_LATE(times=late)),
            (early, ENDED_EARLY(times=early)),
        )
        return tuple(flag for times, flag in counted if times)

    def _finding(
        self, metric: str, estimate: float | None, unit: str, flags: tuple[Flag, ...], method: str,
        low: float | None = None, high: float | None = None,
    ) -> Finding:  # fmt: skip
        key = MetricKey(metric, self.name)
        value = "beyond the last bucket" if estimate is None else f"{estimate:.4g} {unit}"
        return Finding(
            id=f"level/imported/{self.mesh}/{key}", subject=CellLevel({"mesh": self.mesh}), key=key,
            estimate=estimate, low=low, high=high, confidence=1.0, unit=unit, n=1, method=method,
            provenance=Provenance.IMPORTED, flags=flags,
            sentence=f"{self.name} ({self.mesh}): {key.entry.words} is {value}, imported",
        )  # fmt: skip


def _sum(series: pl.DataFrame) -> float:
    """What they counted together."""
    return float(sum(each or 0.0 for each in series["increase"].to_list()))


def quantile(
    counts: Sequence[tuple[float, float]], share: float
) -> tuple[float | None, float, float | None] | None:
    """Estimate and bounds of a quantile from cumulative counts by upper bound, as Prometheus's
    `histogram_quantile` interpolates; None where nothing was counted, or the last bound is not infinite.
    Beyond the last finite bound there is no estimate and no upper bound."""
    if not counts or counts[-1][0] != math.inf or counts[-1][1] <= 0:
        return None
    rank, below, lower = share * counts[-1][1], 0.0, 0.0
    for bound, cumulative in _growing(counts):
        if cumulative >= rank:
            if bound == math.inf:
                return None, lower, None
            inside = cumulative - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0), lower, bound
        below, lower = cumulative, bound
    return None


def _growing(counts: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Never fewer than before: a reset seen in one bucket and not yet in another would make it so."""
    most = 0.0
    for bound, cumulative in counts:
        most = max(most, cumulative)
        yield bound, most
