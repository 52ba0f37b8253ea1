"""OTLP metrics as JSON: what an OpenTelemetry collector takes at /v1/metrics, and its file receiver in a file
with one request a line.

Source: opentelemetry-proto v1, metrics.proto, and "OTLP/JSON" of the OTLP specification 1.x: names in
lowerCamelCase, 64-bit integers as text, enumerations as numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from meshwise import __version__
from meshwise.series.http import Endpoint, Retries
from meshwise.series.lines import AnySeries, HistogramSeries
from meshwise.series.names import MetricFamily, MetricKind
from meshwise.series.sending import sent

MOST_POINTS = 5000
"""Of one request."""
_CUMULATIVE = 2
_UNITS = {"seconds": "s", "bytes": "By", "ratio": "1", "": ""}
"""UCUM, as OpenTelemetry has them."""


def requests_of(lines: Sequence[AnySeries]) -> Iterator[tuple[dict[str, Any], int]]:
    """`ExportMetricsServiceRequest`s as JSON values, with how many points each has."""
    metrics: dict[MetricFamily, dict[str, Any]] = {}
    count = 0
    for line in lines:
        for points in _chunks(_points(line), MOST_POINTS):
            if count and count + len(points) > MOST_POINTS:
                yield _request(metrics), count
                metrics, count = {}, 0
            metric = metrics.setdefault(line.family, _metric(line.family))
            metric[_data(line.family.kind)]["dataPoints"] += points
            count += len(points)
    if count:
        yield _request(metrics), count


def _request(metrics: dict[MetricFamily, dict[str, Any]]) -> dict[str, Any]:
    resource = {
        "attributes": [_attribute("service.name", "meshwise"), _attribute("service.version", __version__)]
    }
    scope = {"name": "meshwise", "version": __version__}
    return {
        "resourceMetrics": [
            {"resource": resource, "scopeMetrics": [{"scope": scope, "metrics": list(metrics.values())}]}
        ]
    }


def _data(kind: MetricKind) -> str:
    return {MetricKind.COUNTER: "sum", MetricKind.HISTOGRAM: "histogram"}.get(kind, "gauge")


def _metric(family: MetricFamily) -> dict[str, Any]:
    data: dict[str, Any] = {"dataPoints": []}
    if family.kind is MetricKind.COUNTER:
        data |= {"aggregationTemporality": _CUMULATIVE, "isMonotonic": True}
    if family.kind is MetricKind.HISTOGRAM:
        data |= {"aggregationTemporality": _CUMULATIVE}
    return {
        "name": family.sample_name if family.kind is MetricKind.INFO else family.name,
        "description": family.help,
        "unit": _UNITS[family.unit],
        _data(family.kind): data,
    }


def _points(line: AnySeries) -> list[dict[str, Any]]:
    attributes = [_attribute(name, value) for name, value in line.labels]
    times = line.t_ns.tolist()
    start = {"startTimeUnixNano": str(times[0])} if times and line.family.kind is not MetricKind.GAUGE else {}
    if isinstance(line, HistogramSeries):
        return [
            {
                "attributes": attributes,
                **start,
                "timeUnixNano": str(t_ns),
                "count": str(counts[-1]),
                "sum": total,
                "bucketCounts": [str(b - a) for a, b in zip([0, *counts], counts, strict=False)],
                "explicitBounds": list(line.bounds),
            }
            for t_ns, counts, total in zip(times, line.counts.tolist(), line.sums.tolist(), strict=True)
        ]
    return [
        {"attributes": attributes, **start, "timeUnixNano": str(t_ns), "asDouble": _double(value)}
        for t_ns, value in zip(times, line.values.tolist(), strict=True)
    ]


def _double(value: float) -> float | str:
    """Protobuf's JSON writes what JSON has no number for as text."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _attribute(name: str, value: str) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value}}


def _chunks(points: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    for at in range(0, len(points), size):
        yield points[at : at + size]


def write_otlp(batches: Iterable[Sequence[AnySeries]], out: BinaryIO) -> int:
    """One request a line; returns the number of points."""
    written = 0
    for batch in batches:
        for request, count in requests_of(batch):
            out.write(json.dumps(request, separators=(",", ":")).encode() + b"\n")
            written += count
    return written


def send_otlp(batches: Iterable[Sequence[AnySeries]], to: Endpoint, retries: Retries | None = None) -> int:
    """Send all; returns the number of points. Raises MW022 (no answer), MW023 (refused)."""
    bodies = (
        (json.dumps(request, separators=(",", ":")).encode(), count)
        for batch in batches
        for request, count in requests_of(batch)
    )
    return sent(bodies, to, {"Content-Type": "application/json"}, retries or Retries())
