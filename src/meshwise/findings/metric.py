"""What is measured per trial: every metric once, with its unit, its words, and how it is compared.

The scale is chosen here, before any trial: `LOG` for what is positive and varies in proportion (a finding has
a ratio and a difference), `DIFFERENCE` for what may be 0 (a finding has a difference only).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple


class Scale(StrEnum):
    LOG = "log"
    DIFFERENCE = "difference"


class Inference(StrEnum):
    """What stands behind one value of a trial."""

    SAMPLED = "sampled"
    """It varies from trial to trial: an interval over executions says how sure it is."""
    EXACT = "exact"
    """It is counted, and hardly depends on the machine: how far equal counts lie apart says what is a
    difference (`stats.exact`)."""


class PartOf(StrEnum):
    """What a part of a metric is: one sidecar or service, the sidecars of a place, one operation, one system
    call by its name, one group of functions, one part of a traced request's way."""

    WORKLOAD = "workload"
    PLACE = "place"
    OPERATION = "operation"
    CALL = "system_call"
    GROUP = "function_group"
    CONNECTION = "connection"
    SPAN = "span_part"


class PartsCompared(StrEnum):
    ALWAYS = "always"
    IN_SMALL = "in small topologies"
    """So that the number of comparisons does not grow with the number of services."""
    NEVER = "never"


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    words: str
    """As it stands in a sentence: "adds 12 us to <words>"."""
    title: str
    """As a heading."""
    short: str
    """As it stands beside others: "p50"."""
    scale: Scale = Scale.LOG
    compared: bool = True
    """Whether differences of it are findings; if not, only its level is."""
    more_is_worse: bool = True
    inference: Inference = Inference.SAMPLED
    parts: PartOf = PartOf.WORKLOAD
    parts_compared: PartsCompared = PartsCompared.ALWAYS
    percentile: float | None = None
    fails: bool = False
    """Whether failed requests move it."""
    late: bool = False
    """Whether late sends move it: what counts from the intended time."""
    per: str = ""
    """Per what it is, as its words, title and short name end: they stand without it where that varies."""
    slope_of: str = ""
    """The metric whose slope along a factor it is; empty: it is none."""

    def without_per(self, text: str) -> str:
        return text.removesuffix(f" {self.per}")


PERCENTILES: dict[str, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
_NUMBERED = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}
_SPOKEN = {"p50": "median", "p90": "P90", "p99": "P99", "p999": "P99.9"}
REQUEST = "per request"


def _times(kind: str, words: str, title: str, short: str, **more: Any) -> list[Metric]:
    return [
        Metric(
            f"{kind}_{p}_us", "us", f"the {_SPOKEN[p]} {words}", f"{title} {_NUMBERED[p]}",
            f"{short} {_NUMBERED[p]}".strip(), percentile=share, **more,
        )
        for p, share in PERCENTILES.items()
    ]  # fmt: skip


def _ratio(name: str, words: str, title: str, short: str, **more: Any) -> Metric:
    """A share that is shown and not compared."""
    return Metric(name, "ratio", words, title, short, compared=False, **more)


def _rate(name: str, words: str, title: str, short: str, **more: Any) -> Metric:
    """Of what more is better."""
    return Metric(name, "1/s", words, title, short, more_is_worse=False, **more)


def _cpu(name: str, whose: str, title: str, short: str, **more: Any) -> Metric:
    return Metric(
        f"{name}cpu_us_per_request", "us", f"the CPU time of {whose} {REQUEST}", f"CPU of {title} {REQUEST}",
        f"{short} CPU {REQUEST}", per=REQUEST, **more,
    )  # fmt: skip


def _counted(name: str, unit: str, title: str, short: str, **more: Any) -> Metric:
    """Of sidecars under a counter; one of them, or all of them together."""
    return Metric(
        name, unit, f"the {title}", title, short, inference=Inference.EXACT,
        parts_compared=PartsCompared.IN_SMALL, **more,
    )  # fmt: skip


def _events() -> list[Metric]:
    """What an event did, each time it was done."""

    def each(name: str, unit: str, words: str, title: str, **more: Any) -> Metric:
        return Metric(f"event_{name}", unit, words, title, title, Scale.DIFFERENCE, **more)

    return [
        each("disturbed_requests", "requests", "the number of disturbed requests", "disturbed requests"),
        each("added_area_ms", "ms", "the response time of all requests together", "added response time, sum"),
        each("p99_us", "us", "the P99 response time meanwhile", "response time p99 meanwhile"),
        each("peak_us", "us", "the longest response time", "longest response time"),
        each("lasts_ms", "ms", "the time until responses are as usual again", "lasts"),
        each("failures", "requests", "the number of failed requests", "failed requests", fails=True),
        each("handshakes", "handshakes", "the number of TLS handshakes of all sidecars", "TLS handshakes"),
        each("cpu_ms", "ms", "the CPU time of all sidecars", "CPU of all sidecars"),
        each("converge_ms", "ms", "the time from its beginning until every target had done it",
             "done by every target after"),
        each("last_old_ms", "ms", "the time after which nothing passed by the old rule any more",
             "last request under the old rule", parts=PartOf.CONNECTION),
        each("first_new_ms", "ms", "the time until a request first met the new rule",
             "first request under the new rule", parts=PartOf.CONNECTION),
    ]  # fmt: skip


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in [
        *_times("response", "response time", "response time", "", fails=True, late=True),
        *_times("service", "service time", "service time", "service", fails=True),
        Metric("response_mean_us", "us", "the mean response time of what was answered", "response mean",
               "response mean", fails=True, late=True),
        Metric("service_mean_us", "us", "the mean service time of what was answered", "service mean",
               "service mean", fails=True),
        *_times("outside_response", "response time of clients outside the mesh", "outside response",
                "outside response", compared=False, late=True),
        _rate("throughput_rps", "the throughput", "throughput", "throughput", fails=True, late=True),
        _ratio("throughput_cv", "the variation of throughput from second to second",
               "variation of throughput from second to second", "throughput variation", late=True),
        _ratio("offered_cv", "the variation of what was offered from second to second",
               "variation of what was offered from second to second", "offered variation"),
        _ratio("response_p99_cv", "the variation of the P99 from window to window",
               "variation of p99 from window to window", "p99 variation", fails=True, late=True),
        Metric("error_ratio", "ratio", "the share of failed requests", "failed requests", "failed requests",
               Scale.DIFFERENCE, fails=True),
        Metric("forbidden_passed_ratio", "ratio",
               "the share of forbidden requests that passed", "forbidden requests that passed",
               "forbidden requests passed", Scale.DIFFERENCE, compared=False),
        _cpu("", "all sidecars", "all sidecars", "sidecar"),
        _cpu("pod_", "sidecars and services", "sidecars and services", "pod"),
        _cpu("service_", "the services", "the services", "service", parts_compared=PartsCompared.NEVER),
        _cpu("instrument_", "the instrument", "the load generator", "load generator", compared=False),
        Metric("controller_cpu_share", "ratio", "the CPU share of the control plane",
               "controller cpu share", "controller cpu share", Scale.DIFFERENCE, compared=False),
        _cpu("proxy_", "this sidecar", "this sidecar", "sidecar", parts_compared=PartsCompared.IN_SMALL),
        Metric("place_cpu_us_per_request", "us", "the CPU time of a sidecar per request, on average",
               "CPU of a sidecar per request, by place", "sidecar CPU by place", parts=PartOf.PLACE),
        Metric("place_memory_bytes", "bytes", "the resident memory of a sidecar, on average",
               "resident memory of a sidecar, by place", "sidecar memory by place", parts=PartOf.PLACE),
        Metric("memory_bytes", "bytes", "the resident memory of all sidecars",
               "resident memory of all sidecars", "sidecar memory"),
        Metric("memory_pss_bytes", "bytes", "the proportional memory of all sidecars",
               "proportional memory of all sidecars", "sidecar memory (PSS)", compared=False),
        Metric("proxy_memory_bytes", "bytes", "the resident memory of this sidecar",
               "resident memory of this sidecar", "sidecar memory", parts_compared=PartsCompared.IN_SMALL),
        _rate("saturation_rps", "the highest rate that holds the objective",
              "highest rate that holds the objective", "saturation rate", fails=True, late=True),
        _rate("saturation_again_rps", "the first rate that holds it coming down rested",
              "first rate that holds coming down rested", "saturation rate, down rested", compared=False,
              fails=True, late=True),
        _rate("saturation_down_rps", "the first rate that holds it again after overload",
              "first rate that holds again after overload", "saturation rate coming down", fails=True,
              late=True),
        _rate("requests_per_cpu_s", "the requests per CPU-second of sidecars and services",
              "requests per CPU-second of sidecars and services", "requests per CPU-second"),
        Metric("operation_response_p50_us", "us", "the median response time of this operation",
               "response time p50 by operation", "p50", parts=PartOf.OPERATION, percentile=0.5),
        Metric("operation_response_p99_us", "us", "the P99 response time of this operation",
               "response time p99 by operation", "p99", parts=PartOf.OPERATION, percentile=0.99),
        Metric("operation_rps", "1/s", "the rate of this operation", "requests per second by operation",
               "requests per second", compared=False, more_is_worse=False, parts=PartOf.OPERATION),
        Metric("operation_error_ratio", "ratio", "the share of failed requests of this operation",
               "failed requests by operation", "failed requests", Scale.DIFFERENCE, compared=False,
               parts=PartOf.OPERATION),
        Metric("store_cpu_us_per_request", "us", "the CPU time of database and cache per request",
               "CPU per request, database and cache", "CPU of the stores"),
        Metric("span_own_p50_us", "us", "the median time that a traced request spends in this part alone",
               "own time p50 by part of a request's way", "own time p50", Scale.DIFFERENCE,
               parts=PartOf.SPAN, percentile=0.5),
        Metric("span_own_p99_us", "us", "the P99 of the time that a traced request spends in this part alone",
               "own time p99 by part of a request's way", "own time p99", Scale.DIFFERENCE, compared=False,
               parts=PartOf.SPAN, percentile=0.99),
        Metric("span_own_mean_us", "us", "the mean time that a traced request spends in this part alone",
               "own time mean by part of a request's way", "own time mean", Scale.DIFFERENCE,
               compared=False, parts=PartOf.SPAN),
        Metric("span_critical_mean_us", "us",
               "the mean time for which a traced request waits for this part alone",
               "critical path mean by part of a request's way", "critical path mean", Scale.DIFFERENCE,
               compared=False, parts=PartOf.SPAN),
        _ratio("traces_whole", "the share of traced requests of which every span is there",
               "traces that are whole", "whole traces", more_is_worse=False),
        Metric("receiver_cpu_share", "ratio", "the CPU share of the receiver of spans",
               "CPU share of the receiver of spans", "receiver cpu share", Scale.DIFFERENCE, compared=False),
        Metric("lateness_p50_us", "us", "the median lateness of sends", "lateness of sends p50",
               "lateness p50", compared=False, percentile=0.5),
        Metric("lateness_p99_us", "us", "the P99 lateness of sends", "lateness of sends p99",
               "lateness p99", compared=False, percentile=0.99),
        Metric("ns_per_instruction", "ns", "the CPU time of all sidecars per instruction",
               "CPU of all sidecars per instruction", "CPU per instruction", compared=False),
        Metric("translated_cpu_us_per_request", "us",
               "the CPU time of all sidecars per request, translated from instructions",
               "CPU of all sidecars per request, translated from instructions", "translated CPU per request",
               compared=False),
        *_events(),
        Metric("attempt_stopped", "ratio", "the share of tries that were stopped", "tries stopped",
               "tries stopped", Scale.DIFFERENCE, compared=False, more_is_worse=False),
        Metric("attempts_stopped", "attempts", "the number of attempts stopped in every try",
               "attempts stopped in every try", "attempts stopped", Scale.DIFFERENCE, compared=False,
               more_is_worse=False),
        *(
            Metric(f"reported_{p}_us", "us", f"the {_SPOKEN[p]} duration of requests as proxies report it",
                   f"duration as proxies report it, {_NUMBERED[p]}", f"reported {_NUMBERED[p]}",
                   compared=False, percentile=share)
            for p, share in PERCENTILES.items() if p != "p999"
        ),
        Metric("mtls_ratio", "ratio", "the share of requests over mutual TLS, as its proxies label them",
               "requests over mutual TLS", "over mTLS", Scale.DIFFERENCE, compared=False,
               more_is_worse=False),
        Metric("sidecar_working_set_bytes", "bytes", "the working set of a sidecar's container, on average",
               "working set of a sidecar's container", "sidecar working set", compared=False),
        _counted("instructions_per_request", "instructions", f"instructions of sidecars {REQUEST}",
                 f"instructions {REQUEST}", per=REQUEST),
        _counted("syscalls_per_request", "calls", f"system calls of sidecars {REQUEST}",
                 f"system calls {REQUEST}", per=REQUEST),
        _counted("syscalls_by_name_per_request", "calls", f"calls of sidecars {REQUEST}",
                 f"system calls {REQUEST}, by name", scale=Scale.DIFFERENCE, compared=False,
                 parts=PartOf.CALL),
        _counted("instructions_by_group_per_request", "instructions", f"instructions of sidecars {REQUEST}",
                 f"instructions {REQUEST}, by group of functions", scale=Scale.DIFFERENCE,
                 parts=PartOf.GROUP),
        _counted("instructions_per_handshake", "instructions", "instructions per full TLS handshake",
                 "instructions per handshake"),
        _counted("instructions_per_resumed_handshake", "instructions",
                 "instructions per resumed TLS handshake", "instructions per resumed handshake"),
        _counted("instructions_per_kib", "instructions", "instructions of sidecars per KiB",
                 "instructions per KiB", scale=Scale.DIFFERENCE, slope_of="instructions_per_request"),
        _counted("instructions_per_rule", "instructions", "instructions of sidecars per rule",
                 "instructions per rule", scale=Scale.DIFFERENCE, slope_of="instructions_per_request"),
    ]
}  # fmt: skip
INSTRUCTIONS, CALLS = "instructions_per_request", "syscalls_per_request"
CALLS_BY_NAME = "syscalls_by_name_per_request"
BY_GROUP = "instructions_by_group_per_request"
PER_KIB, PER_RULE = "instructions_per_kib", "instructions_per_rule"
HANDSHAKE, RESUMED = "instructions_per_handshake", "instructions_per_resumed_handshake"
CPU, TRANSLATED_CPU = "cpu_us_per_request", "translated_cpu_us_per_request"
"""Names of some, for those who look for just these."""
_UNITS = ("us", "ns", "bytes", "rps", "ratio")


@cache
def metric_of(name: str) -> Metric:
    """The metric of that name; one that this version does not know is read as words
    (`tls_handshakes_total`)."""
    known = METRICS.get(name)
    stem, _, unit = name.rpartition("_")
    plain = (stem if unit in _UNITS else name).replace("_", " ")
    return known or Metric(name, unit if unit in _UNITS else "", plain, plain, plain)


class MetricKey(NamedTuple):
    """A metric of everything, or of one of its parts."""

    metric: str
    part: str = ""
    """Name of the workload, place or operation."""

    @property
    def entry(self) -> Metric:
        return metric_of(self.metric)

    @property
    def title(self) -> str:
        return f"{self.entry.title}: {self.part}" if self.part else self.entry.title

    @property
    def scope(self) -> dict[str, str]:
        """As findings.json has it. A place, or an operation, stands in both keys, so that who looks for what
        is of everything leaves all kinds of parts out by one."""
        if not self.part:
            return {}
        return {str(PartOf.WORKLOAD): self.part, str(self.entry.parts): self.part}

    def __str__(self) -> str:
        """As the ids of findings have it."""
        return f"{self.metric}@{self.part}" if self.part else self.metric
