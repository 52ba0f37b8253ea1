"""One trial's tables -> one number per metric. Nothing later sees a single request.

Rules of this file:
- Warm-up (intended before 0) is never analysed; nothing else is left out.
- Response time counts from the intended time, service time from the actual send (no coordinated omission).
- A failed or unanswered request took +inf: a percentile exists while fewer fail than lie above it. (A mean
  would not, so means are of what was answered, and are called so.)
- One quantile function, type 7 (Hyndman & Fan 1996), for everything; libraries differ in their defaults.
- CPU per request is the difference of two cumulative readings over the requests answered between just these
  two, so that a late reading costs nothing.
- Latency is that of the clients inside the mesh; clients outside it (plaintext share) have their own metric.
- Requests that a posture with authorization forbids (forbidden share) are in no metric but their own: where
  the rule is in force a refusal is what has to come of them, and no error. CPU per request counts whatever
  came back, refusals of these too, because sidecars work for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import inf

import numpy as np
import polars as pl

from meshwise.findings.flag import HOST_LATE, LATE_SENDS, TELEMETRY_INCOMPLETE, Flag
from meshwise.findings.metric import PERCENTILES, MetricKey
from meshwise.measure.attribution import ATTRIBUTED_METRICS, Machine, Usage
from meshwise.measure.company import pods_busy, saturation
from meshwise.measure.events import EVENT_TELEMETRY, TrialEvents
from meshwise.measure.halves import Halves, halves
from meshwise.measure.places import by_place
from meshwise.measure.seconds import LEAST_SECONDS, BySecond, Clock, by_second
from meshwise.measure.soak import throughput_variation, variability
from meshwise.measure.spans import RequestTrace, measure_spans, receiver_share
from meshwise.measure.times import NEEDED_EXCEEDANCES, SHARES, TrialCourse, course_of
from meshwise.stats.arrays import BoolArray, FloatArray, IntArray
from meshwise.stats.quantile import effective_exceedances, quantile, quantiles
from meshwise.study.model import MeshName, Phase, Trial
from meshwise.telemetry.source import Source

LATE_SHARE = 0.05
"""A response time of which late sends are more than this share is in doubt."""
MOVED_BY_LATE_SENDS = ("response_mean_us", *(f"response_{word}_us" for word in PERCENTILES))

REQUEST_COLUMNS = ("intended_ns", "sent_ns", "done_ns", "error")
OPTIONAL_REQUEST_COLUMNS = ("client", "forbidden", "operation", "queued", "waited_for", "connection")
USAGE_METRICS = ("cpu_ns", "rss_bytes", "pss_bytes")
TELEMETRY_METRICS = tuple(dict.fromkeys((*USAGE_METRICS, *ATTRIBUTED_METRICS, *EVENT_TELEMETRY)))
TELEMETRY_COLUMNS = ("t_ns", "source", "metric", "labels", "value")


Values = dict[MetricKey, float]
UNKNOWN_MACHINE = Machine()


@dataclass(frozen=True)
class TrialResult:
    """A trial that was measured, as the rest of the analysis sees it."""

    trial: Trial
    values: Mapping[MetricKey, float]
    """Metric -> value in the metric's unit; +inf where failures reach the percentile."""
    exceedances: Mapping[MetricKey, float] = field(default_factory=dict)
    """Percentile metric -> effective exceedances behind it."""
    flags: tuple[Flag, ...] = ()
    """The archive's own and those found here."""
    trend: float | None = None
    """Log of median response time in the last third over the first third; None if it cannot be told."""
    requests: int = 0
    """Offered after warm-up."""
    usage: Usage | None = None
    """Who used the CPU; of a step of a search."""
    times_us: FloatArray | None = None
    """Response times at SHARES, of clients inside the mesh; inf where failures reach. Not of a search."""
    course: TrialCourse | None = None
    """Where the load moves."""
    pods_busy: float | None = None
    """Share of the pods' CPUs that was used, by all arms of the round and whatever else ran there; None if it
    was not read. Not of a search, as the next."""
    saturated: str = ""
    """By what this arm was saturated; empty if it was not."""
    moved: frozenset[str] = frozenset()
    """Which of MOVED_BY_LATE_SENDS would be lower by more than LATE_SHARE, had every request that had a slot
    been sent in time."""
    halves: Halves = field(default_factory=dict)
    """Times of two halves of its requests, divided at random; only where the study asks."""
    by_second: BySecond | None = None
    """Of a steady load, where it was asked for."""
    events: TrialEvents | None = None
    """Where something was done to it, or to the cell whose twin it is."""
    typical: RequestTrace | None = None
    """A traced request of about the median duration; None where nothing is traced."""
    slow: RequestTrace | None = None
    """One of about the P99."""

    def with_spans(self, spans: pl.DataFrame) -> TrialResult:
        """The same with what its spans say (columns SPAN_COLUMNS)."""
        found = measure_spans(spans)
        return replace(
            self,
            values={**self.values, **found.values},
            exceedances={**self.exceedances, **found.exceedances},
            typical=found.typical,
            slow=found.slow,
        )


def measure(
    trial: Trial,
    requests: pl.DataFrame,
    telemetry: pl.DataFrame,
    flags: tuple[Flag, ...] = (),
    moving_ns: int | None = None,
    machine: Machine = UNKNOWN_MACHINE,
    halves_seed: int | None = None,
    seconds: int = 0,
) -> TrialResult:
    """All metrics of one trial. Frames as in `archive.schema`; further columns are ignored. `moving_ns`: the
    measured window, where the load moves within it. `machine`: which CPUs are the pods'. `halves_seed`: its
    requests are also divided in two. `seconds`: so many are also told one by one."""
    sent = _Requests.of(requests)
    values: Values = {}
    exceedances: Values = {}
    found = list(flags)
    analysed = (sent.intended >= 0) & ~sent.forbidden
    mesh = analysed & ~sent.outside
    response, service = sent.response_us(mesh), sent.service_us(mesh)
    ascending = _percentiles("response", response, values, exceedances)
    _percentiles("service", service, values, exceedances)
    answered = mesh & sent.answered
    if answered.any():
        values[MetricKey("response_mean_us")] = float(sent.response_us(answered).mean())
        values[MetricKey("service_mean_us")] = float(sent.service_us(answered).mean())
    if (outside := analysed & sent.outside).any():
        _percentiles("outside_response", sent.response_us(outside), values, exceedances)
    if (forbidden := (sent.intended >= 0) & sent.forbidden).any():
        values[MetricKey("forbidden_passed_ratio")] = float(sent.answered[forbidden].mean())
    offered = int(analysed.sum())
    moved: frozenset[str] = frozenset()
    if offered:
        values[MetricKey("error_ratio")] = float(sent.failed[analysed].mean())
        values[MetricKey("throughput_rps")] = _throughput(sent, analysed)
        if (
            variation := throughput_variation(sent.done[analysed & sent.answered], sent.intended)
        ) is not None:
            values[MetricKey("throughput_cv")] = variation
        moved = _moved(sent, mesh, values)
        told = [name for name in moved if exceedances.get(MetricKey(name), inf) >= NEEDED_EXCEEDANCES]
        found += _lateness(sent, analysed, values, flagged=bool(told))
    _by_operation(requests, values, exceedances)
    if trial.phase is Phase.SOAK:
        soaked = variability(sent.intended[mesh], response, sent.done[answered])
        values |= {MetricKey(name): value for name, value in soaked.items()}
    answered_ns = np.sort(sent.done[sent.answered | sent.refused])
    used, gaps = usage(trial, telemetry, answered_ns)
    values |= used
    if (share := receiver_share(telemetry)) is not None:
        values[MetricKey("receiver_cpu_share")] = share
    found += gaps
    processes = Usage.of(trial, telemetry) if trial.search else None
    return TrialResult(
        trial, values, exceedances, tuple(found), _trend(response), offered, processes,
        None if trial.search or not len(ascending) else quantiles(ascending, SHARES),
        course_of(sent.intended, mesh, response, moving_ns) if moving_ns else None,
        None if trial.search else pods_busy(telemetry, machine),
        "" if trial.search or moving_ns else saturation(trial.cell, sent.intended[mesh], response), moved,
        {} if halves_seed is None
        else halves({"response": response, "service": service}, halves_seed, trial.trial_id),
        None if seconds < LEAST_SECONDS
        else by_second(seconds, sent.intended[mesh], response, answered_ns, _sidecars(trial, telemetry)),
    )  # fmt: skip


@dataclass(frozen=True)
class _Requests:
    """Columns in order of intended time; -1 in `sent` and `done` where there was none."""

    intended: IntArray
    sent: IntArray
    done: IntArray
    failed: BoolArray
    answered: BoolArray
    outside: BoolArray
    forbidden: BoolArray
    refused: BoolArray
    """Forbidden, and told so."""
    queued: BoolArray
    """No slot was free in time."""
    by_host: BoolArray
    """Late by the host's doing; nothing in archives that do not say it."""

    @classmethod
    def of(cls, frame: pl.DataFrame) -> _Requests:
        never = np.iinfo(np.int64).min
        intended = frame["intended_ns"].to_numpy()
        sent = frame["sent_ns"].fill_null(never).to_numpy()
        done = frame["done_ns"].fill_null(never).to_numpy()
        error = frame["error"]
        no_error = (error.cast(pl.String) == "").fill_null(True).to_numpy()
        answered = no_error & (done != never)
        outside = np.zeros(frame.height, dtype=np.bool_)
        if "client" in frame.columns:
            outside = (frame["client"].cast(pl.String) == "outside").fill_null(False).to_numpy()
        forbidden = np.zeros(frame.height, dtype=np.bool_)
        if "forbidden" in frame.columns:
            forbidden = frame["forbidden"].fill_null(False).to_numpy()
        refused = forbidden & ~no_error & (done != never)
        queued = np.zeros(frame.height, dtype=np.bool_)
        if "queued" in frame.columns:
            queued = frame["queued"].fill_null(False).to_numpy()
        causes = pl.Series([""]).new_from_index(0, frame.height)
        if "waited_for" in frame.columns:
            causes = frame["waited_for"].cast(pl.String).fill_null("")
        by_host = (causes == "host").to_numpy()
        found = cls(
            intended, sent, done, ~answered, answered, outside, forbidden, refused, queued, by_host
        )  # fmt: skip
        if frame.height > 1 and (np.diff(intended) < 0).any():
            return found.at(np.argsort(intended, kind="stable"))
        return found

    def at(self, order: IntArray) -> _Requests:
        return _Requests(**{each.name: getattr(self, each.name)[order] for each in fields(self)})

    def response_us(self, chosen: BoolArray) -> FloatArray:
        return self.since(self.intended, chosen)

    def service_us(self, chosen: BoolArray) -> FloatArray:
        return self.since(self.sent, chosen)

    def since(self, start: IntArray, chosen: BoolArray) -> FloatArray:
        times = (self.done[chosen] - start[chosen]) / 1e3
        times[self.failed[chosen]] = np.inf
        return np.asarray(times)


def _percentiles(kind: str, times: FloatArray, values: Values, exceedances: Values) -> FloatArray:
    """The `times`, ascending."""
    ascending = np.sort(times)
    for word, p in PERCENTILES.items():
        name = MetricKey(f"{kind}_{word}_us")
        values[name] = threshold = quantile(ascending, p)
        exceedances[name] = _worth(times, threshold, p)
    return ascending


def _worth(times: FloatArray, threshold: float, p: float) -> float:
    """Effective exceedances of a percentile."""
    if np.isfinite(threshold):
        return effective_exceedances(times, threshold)
    return float(len(times)) * (1 - p)  # so many failed that it is infinite: that is known well


def _by_operation(requests: pl.DataFrame, values: Values, exceedances: Values) -> None:
    """The same of each operation of the bank, of clients inside the mesh and outside together."""
    if "operation" not in requests.columns:
        return
    measured = requests.filter((pl.col("intended_ns") >= 0) & pl.col("operation").is_not_null())
    span_s = float(measured["intended_ns"].to_numpy().max(initial=0)) / 1e9
    names = measured["operation"].cast(pl.String)
    for operation in sorted(names.unique().to_list()):
        sent = _Requests.of(measured.filter(names == operation))
        times = sent.response_us(np.ones(len(sent.intended), dtype=np.bool_))
        ascending = np.sort(times)
        for word in ("p50", "p99"):
            name = MetricKey(f"operation_response_{word}_us", operation)
            values[name] = threshold = quantile(ascending, PERCENTILES[word])
            exceedances[name] = _worth(times, threshold, PERCENTILES[word])
        values[MetricKey("operation_error_ratio", operation)] = float(sent.failed.mean())
        if span_s > 0:
            values[MetricKey("operation_rps", operation)] = len(times) / span_s


def _throughput(sent: _Requests, analysed: BoolArray) -> float:
    """Answers per second, from time 0 to the last answer or the last intended time, whichever is later."""
    answered = analysed & sent.answered
    end = int(sent.intended[analysed].max())
    if answered.any():
        end = max(end, int(sent.done[answered].max()))
    return float(answered.sum()) / (end / 1e9) if end > 0 else float("nan")


def _moved(sent: _Requests, mesh: BoolArray, values: Values) -> frozenset[str]:
    """`TrialResult.moved`: each number as it is beside what it would be, counted from the send."""
    start = np.where(sent.answered & ~sent.queued, sent.sent, sent.intended)
    ascending = np.sort(sent.since(start, mesh))
    in_time = {f"response_{word}_us": quantile(ascending, p) for word, p in PERCENTILES.items()}
    if (answered := mesh & sent.answered).any():
        in_time["response_mean_us"] = float(sent.since(start, answered).mean())
    return frozenset(
        name for name, value in in_time.items() if value < (1 - LATE_SHARE) * values[MetricKey(name)]
    )


def _lateness(sent: _Requests, analysed: BoolArray, values: Values, *, flagged: bool) -> list[Flag]:
    """Of good requests that had a slot; the flag says whose doing it is."""
    had_slot = analysed & sent.answered & ~sent.queued
    late = (sent.sent - sent.intended)[had_slot] / 1e3
    ascending = np.sort(late)
    values[MetricKey("lateness_p50_us")] = quantile(ascending, 0.5)
    values[MetricKey("lateness_p99_us")] = quantile(ascending, 0.99)
    if not flagged:
        return []
    by_host = 2 * late[sent.by_host[had_slot]].sum() > late.sum()  # what is too short to have a cause is ours
    return [(HOST_LATE if by_host else LATE_SENDS)(share=LATE_SHARE)]


def _trend(response: FloatArray) -> float | None:
    third = len(response) // 3
    if third < 20:
        return None
    first, last = float(np.median(response[:third])), float(np.median(response[-third:]))
    return float(np.log(last / first)) if 0 < first < np.inf and 0 < last < np.inf else None


def usage(trial: Trial, telemetry: pl.DataFrame, answered_ns: IntArray) -> tuple[Values, list[Flag]]:
    """CPU and memory by role, of the trial's own mesh, process set and topology; flags for what is missing.
    `answered_ns` ascending."""
    cell = trial.cell
    workloads = {workload.name for workload in cell.topology.workloads}
    cpu: dict[str, dict[str, float]] = {}
    memory: dict[str, dict[str, dict[str, float]]] = {"rss_bytes": {}, "pss_bytes": {}}
    controller: list[float] = []
    for (source, metric), readings in _series(telemetry):
        if source is None or not source.is_of(trial):
            continue
        workload, role = source.workload, source.role
        if role in ("proxy", "service") and workload not in workloads:
            continue  # idle in this trial: it is for cells with a larger topology
        times, values = readings
        if metric != "cpu_ns":
            memory[metric].setdefault(role, {})[workload] = float(values[-1])
            continue
        start, end = int(np.argmin(np.abs(times))), len(times) - 1
        spent_ns, over_ns = float(values[end] - values[start]), int(times[end] - times[start])
        if over_ns <= 0 or spent_ns < 0:
            continue  # one reading, or a process that began anew: no difference
        if role == "controller":
            controller.append(spent_ns / over_ns)
            continue
        count = np.searchsorted(answered_ns, (times[start], times[end]), side="right")
        if count[1] > count[0]:
            cpu.setdefault(role, {})[workload] = spent_ns / 1e3 / float(count[1] - count[0])
    no_mesh = cell.mesh == MeshName.NONE
    gaps = []
    for what, read in (("CPU", cpu), ("memory", memory["rss_bytes"])):
        missing = workloads - set(read.get("proxy", {}))
        if missing and not no_mesh:  # a sum over some of the sidecars would pass for the sum over all
            gaps.append(TELEMETRY_INCOMPLETE(what=what, workloads=", ".join(sorted(missing))))
            read.pop("proxy", None)
    found = _usage_metrics(no_mesh, cpu, memory, controller)
    spent, held = cpu.get("proxy", {}), memory["rss_bytes"].get("proxy", {})
    return found | by_place(cell, spent, held, measured=MetricKey("cpu_us_per_request") in found), gaps


def _sidecars(trial: Trial, telemetry: pl.DataFrame) -> list[Clock]:
    """CPU clocks of the trial's sidecars; none if one of them was not read."""
    workloads = {workload.name for workload in trial.cell.topology.workloads}
    found = {
        source.workload: clock
        for (source, metric), clock in _series(telemetry)
        if source and metric == "cpu_ns" and source.role == "proxy" and source.is_of(trial)
    }
    return [found[name] for name in workloads] if workloads <= set(found) else []


def _usage_metrics(
    no_mesh: bool,
    cpu: Mapping[str, Mapping[str, float]],
    memory: Mapping[str, Mapping[str, Mapping[str, float]]],
    controller: list[float],
) -> Values:
    """By role and workload -> metrics. Without a mesh the sidecars' sums are 0, not missing."""
    values: Values = {}
    proxies, services = cpu.get("proxy", {}), cpu.get("service", {})
    proxy_total = sum(proxies.values())
    if proxies or (no_mesh and services):
        values[MetricKey("cpu_us_per_request")] = proxy_total
        if services:
            values[MetricKey("pod_cpu_us_per_request")] = proxy_total + sum(services.values())
    values |= _of_each("proxy_cpu_us_per_request", proxies)
    if services:
        values[MetricKey("service_cpu_us_per_request")] = sum(services.values())
        values |= _of_each("service_cpu_us_per_request", services)
    if stores := cpu.get("store"):
        values[MetricKey("store_cpu_us_per_request")] = sum(stores.values())
        values |= _of_each("store_cpu_us_per_request", stores)
    if instrument := cpu.get("instrument"):
        values[MetricKey("instrument_cpu_us_per_request")] = sum(instrument.values())
    if controller:
        values[MetricKey("controller_cpu_share")] = sum(controller)
    for metric, name in (("rss_bytes", "memory_bytes"), ("pss_bytes", "memory_pss_bytes")):
        held = memory[metric].get("proxy", {})
        if held or (no_mesh and memory[metric]):
            values[MetricKey(name)] = sum(held.values())
    return values | _of_each("proxy_memory_bytes", memory["rss_bytes"].get("proxy", {}))


def _of_each(metric: str, read: Mapping[str, float]) -> Values:
    return {MetricKey(metric, workload): value for workload, value in read.items()}


def _series(
    telemetry: pl.DataFrame,
) -> list[tuple[tuple[Source | None, str], tuple[IntArray, FloatArray]]]:
    """(source, metric) -> ascending times and their values, for the metrics used here."""
    names = telemetry["metric"].cast(pl.String)
    chosen = telemetry.filter(names.is_in(USAGE_METRICS))
    readings: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for source, metric, t_ns, value in zip(
        chosen["source"].cast(pl.String).to_list(),
        chosen["metric"].cast(pl.String).to_list(),
        chosen["t_ns"].to_list(),
        chosen["value"].to_list(),
        strict=True,
    ):
        readings.setdefault((source, metric), []).append((t_ns, value))
    return [
        (
            (Source.read(source), metric),
            (np.array([t for t, _ in each], dtype=np.int64), np.array([value for _, value in each])),
        )
        for (source, metric), each in ((key, sorted(each)) for key, each in sorted(readings.items()))
    ]
