"""What is measured per trial: unit, scale of inference, and the words for it.

The scale is chosen here, before any trial: `LOG` for what is positive and varies in proportion (a finding has
a ratio and a difference), `DIFFERENCE` for what may be 0 (a finding has a difference only). A metric of one
workload's proxy is written `name@workload`; a finding carries the workload in its scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scale(StrEnum):
    LOG = "log"
    DIFFERENCE = "difference"


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    words: str
    """As it stands in a sentence: "adds 12 us to <words>"."""
    scale: Scale = Scale.LOG
    compared: bool = True
    """Whether differences of it are findings; if not, only its level is."""
    more_is_worse: bool = True


PERCENTILES: dict[str, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def _percentiles(kind: str, words: str, *, compared: bool = True) -> list[Metric]:
    spoken = {"p50": "median", "p90": "P90", "p99": "P99", "p999": "P99.9"}
    return [
        Metric(f"{kind}_{p}_us", "us", f"the {spoken[p]} {words}", compared=compared) for p in PERCENTILES
    ]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in [
        *_percentiles("response", "response time"),
        *_percentiles("service", "service time"),
        Metric("response_mean_us", "us", "the mean response time of what was answered"),
        Metric("service_mean_us", "us", "the mean service time of what was answered"),
        *_percentiles("outside_response", "response time of clients outside the mesh", compared=False),
        Metric("throughput_rps", "1/s", "the throughput", more_is_worse=False),
        Metric("throughput_cv", "ratio", "the variation of throughput from second to second", compared=False),
        Metric(
            "offered_cv", "ratio", "the variation of what was offered from second to second", compared=False
        ),
        Metric("response_p99_cv", "ratio", "the variation of the P99 from window to window", compared=False),
        Metric("error_ratio", "ratio", "the share of failed requests", Scale.DIFFERENCE),
        Metric("cpu_us_per_request", "us", "the CPU time of all sidecars per request"),
        Metric("pod_cpu_us_per_request", "us", "the CPU time of sidecars and services per request"),
        Metric("service_cpu_us_per_request", "us", "the CPU time of the services per request"),
        Metric(
            "instrument_cpu_us_per_request",
            "us",
            "the CPU time of the instrument per request",
            compared=False,
        ),
        Metric(
            "controller_cpu_share",
            "ratio",
            "the CPU share of the control plane",
            Scale.DIFFERENCE,
            compared=False,
        ),
        Metric("proxy_cpu_us_per_request", "us", "the CPU time of this sidecar per request"),
        Metric("place_cpu_us_per_request", "us", "the CPU time of a sidecar per request, on average"),
        Metric("place_memory_bytes", "bytes", "the resident memory of a sidecar, on average"),
        Metric("memory_bytes", "bytes", "the resident memory of all sidecars"),
        Metric("memory_pss_bytes", "bytes", "the proportional memory of all sidecars", compared=False),
        Metric("proxy_memory_bytes", "bytes", "the resident memory of this sidecar"),
        Metric("saturation_rps", "1/s", "the highest rate that holds the objective", more_is_worse=False),
        Metric(
            "saturation_again_rps",
            "1/s",
            "the first rate that holds it coming down rested",
            compared=False,
            more_is_worse=False,
        ),
        Metric(
            "saturation_down_rps",
            "1/s",
            "the first rate that holds it again after overload",
            more_is_worse=False,
        ),
        Metric(
            "requests_per_cpu_s",
            "1/s",
            "the requests per CPU-second of sidecars and services",
            more_is_worse=False,
        ),
        Metric("operation_response_p50_us", "us", "the median response time of this operation"),
        Metric("operation_response_p99_us", "us", "the P99 response time of this operation"),
        Metric("operation_rps", "1/s", "the rate of this operation", compared=False, more_is_worse=False),
        Metric(
            "operation_error_ratio",
            "ratio",
            "the share of failed requests of this operation",
            Scale.DIFFERENCE,
            compared=False,
        ),
        Metric("store_cpu_us_per_request", "us", "the CPU time of database and cache per request"),
        Metric("lateness_p50_us", "us", "the median lateness of sends", compared=False),
        Metric("lateness_p99_us", "us", "the P99 lateness of sends", compared=False),
    ]
}


def split(name: str) -> tuple[Metric, str]:
    """`proxy_memory_bytes@client` -> the metric and `client`; without a workload the second is empty."""
    base, _, workload = name.partition("@")
    return METRICS[base], workload


def workload_scope(name: str) -> dict[str, str]:
    """Of a metric by its full name. A metric of a place, or of an operation, has that in both keys, so that
    who looks for what is of everything leaves all kinds out by one."""
    metric, workload = split(name)
    if not workload:
        return {}
    kinds = {kind: workload for kind in ("place", "operation") if metric.name.startswith(f"{kind}_")}
    return {"workload": workload} | kinds


def percentile_of(name: str) -> float | None:
    """The p of a percentile metric, else None."""
    for word, p in PERCENTILES.items():
        if f"_{word}_" in name:
            return p
    return None
