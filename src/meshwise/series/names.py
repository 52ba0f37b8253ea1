"""What a series is called: Prometheus's and OpenMetrics' conventions applied to the archive's metrics.

`cpu_ns` is `meshwise_cpu_seconds_total`: base units (seconds, bytes, ratio), the unit last, `_total` behind
the name of a counter. Sources: prometheus.io/docs/practices/naming, and the OpenMetrics specification 1.0,
sections 4.2 to 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from meshwise.telemetry.counters import is_counter

PREFIX = "meshwise_"


class MetricKind(StrEnum):
    """As a `# TYPE` line names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True)
class MetricFamily:
    """All series of one name."""

    name: str
    """Without `_total`, `_bucket`, `_info`."""
    kind: MetricKind
    unit: str
    """`seconds`, `bytes`, `ratio`; empty where there is none. The name ends with it."""
    help: str

    @property
    def sample_name(self) -> str:
        """Of a counter, gauge or info."""
        endings = {MetricKind.COUNTER: "_total", MetricKind.INFO: "_info"}
        return self.name + endings.get(self.kind, "")


_BASE = (
    ("_unix_s", "_timestamp_seconds", "seconds", 1.0),
    ("_ns", "_seconds", "seconds", 1e-9),
    ("_us", "_seconds", "seconds", 1e-6),
    ("_ms", "_seconds", "seconds", 1e-3),
    ("_s", "_seconds", "seconds", 1.0),
    ("_bytes", "_bytes", "bytes", 1.0),
    ("_ratio", "_ratio", "ratio", 1.0),
    ("_rps", "_per_second", "", 1.0),
)
"""Ending, base ending, unit, and what a value is multiplied by."""
_NOW = frozenset(
    {"downstream_connections", "upstream_connections", "downstream_requests", "upstream_requests"}
)
"""Gauges whose name, with `_total`, is a counter of its own: what is open now."""


def base_unit(name: str) -> tuple[str, str, float]:
    """Name in base units, the unit, and the factor: `cpu_us_per_request` is `cpu_seconds_per_request`."""
    if name.startswith("ns_per_"):
        return "seconds_" + name.removeprefix("ns_"), "", 1e-9
    stem, per, rest = name.partition("_per_request")
    for ending, base, unit, factor in _BASE:
        if stem.endswith(ending):
            full = stem.removesuffix(ending) + base + per + rest
            return full, "" if per else unit, factor
    return name, "", 1.0


@lru_cache(maxsize=4096)
def family_of(metric: str) -> tuple[MetricFamily, float]:
    """Of a metric of telemetry, and the factor to its base unit."""
    counts = is_counter(metric)
    stem = metric.removesuffix("_total")
    name, unit, factor = base_unit(f"{metric}_active" if metric in _NOW else stem)
    kind = MetricKind.COUNTER if counts else MetricKind.GAUGE
    words = f"{metric} of telemetry (docs/archive.md)"
    return MetricFamily(PREFIX + cleaned(name), kind, unit, words), factor


def cleaned(name: str) -> str:
    """Only what a name may have."""
    found = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{found}" if found[:1].isdigit() else found


@lru_cache(maxsize=4096)
def label_name(name: str) -> str:
    """Only what a label's name may have; two underscores at the beginning are Prometheus's own."""
    return cleaned(name.lstrip("_")) or "label"
