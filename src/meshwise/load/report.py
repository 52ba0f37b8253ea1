"""From records to a `LoadReport`: pure functions of arrays.

Definitions. Warm-up requests are left out. Response time = done - intended, service time = done - sent;
a request without a good answer counts as infinite in both, so that failures can never make percentiles
look better; a percentile that falls among them is null. Quantiles are of type 7 (Hyndman and Fan,
1996). Lateness = sent - intended of those requests that found a free slot; what others waited for is said
by cause (`load.waits`). What limited the run: `load.verdict`.
"""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from meshwise import __version__
from meshwise.load.lane import RunFacts
from meshwise.load.records import Columns
from meshwise.load.silence import Silence, silence_of
from meshwise.load.spec import LoadSpec
from meshwise.load.statuses import count_statuses, redirects
from meshwise.load.verdict import ENOUGH, LATE_US, InstrumentEvidence, limited_by
from meshwise.load.waits import CAUSES, Waited
from meshwise.load.wire.seam import BYTES_SHIFT, STATUS_MASK, ErrorKind
from meshwise.stats.quantile import quantile
from meshwise.study.model import Arrivals

Floats = npt.NDArray[np.float64]
_REASONS_NOTED = 3
CHURN_SHARE = 0.95
"""Of the asked replacements; below it the output says so."""


@dataclass(frozen=True)
class Percentiles:
    """Microseconds; None = no such value, or it falls among failed requests."""

    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    mean: float | None
    max: float | None


NOTHING = Percentiles(None, None, None, None, None, None)


def percentiles(values_us: Floats) -> Percentiles:
    """Type-7 quantiles of values that may hold +inf."""
    if not values_us.size:
        return NOTHING
    ordered = np.sort(values_us)
    whole = bool(np.isfinite(ordered[-1]))
    return Percentiles(
        p50=_finite(quantile(ordered, 0.5)),
        p90=_finite(quantile(ordered, 0.9)),
        p99=_finite(quantile(ordered, 0.99)),
        p999=_finite(quantile(ordered, 0.999)),
        mean=float(ordered.mean()) if whole else None,
        max=float(ordered[-1]) if whole else None,
    )


def _finite(value: float) -> float | None:
    return value if value < np.inf else None


@dataclass(frozen=True)
class LoadReport:
    """What `meshwise load --json` prints and `DIR/report.json` holds; documented in docs/load.md."""

    requests: int
    errors: dict[str, int]
    rate_achieved: float
    """Good answers per second that arrived in the measured time."""
    rate_intended: float | None
    response_time_us: Percentiles
    service_time_us: Percentiles
    first_byte_us: Percentiles
    lateness_us: Percentiles
    queued_requests: int
    queueing_us: Percentiles
    """How long those that found no free slot waited for one."""
    cpu_us_per_request: float | None
    cpu_share: float | None
    """Of one core, of the busiest process; None of fewer than ENOUGH requests."""
    limited_by: str
    closed_loop: bool
    received_bytes: int
    duration_s: float
    connect_us: Percentiles
    tls_us: Percentiles
    connections_made: int
    setup_failures: dict[str, int]
    tls: str
    """Version and ALPN of the first connection, empty without TLS."""
    spin_us: float
    processes: int
    stopped_early: bool
    notes: tuple[str, ...]
    version: str = __version__
    tls_resumed: int = 0
    """Handshakes that took up an earlier session; `tls_us` has all, `tls_resumed_us` these."""
    tls_resumed_us: Percentiles = NOTHING
    connections_replaced: int = 0
    """Ended because the pattern says so (requests per connection, churn)."""
    setup_exhausted: int = 0
    """Attempts that failed because this machine had no port, descriptor or memory left."""
    late_requests: int = 0
    """Sent more than 300 us after their time although a slot was free."""
    unsent_requests: int = 0
    messages: int = 0
    """Of the good gRPC streams: those that went up (client streaming) or came down (the others)."""
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)
    """Why connections and requests failed, in words, where more is known than the kind of the error."""
    waited_for: dict[str, int] = dataclasses.field(default_factory=dict)
    """Cause (`load.waits.CAUSES`) -> requests that were not sent in time because of it."""
    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    """Status code by name (`200`, `grpc 14 UNAVAILABLE`) -> requests."""

    addresses: dict[str, int] = dataclasses.field(default_factory=dict)
    """Address -> connections made to it."""
    silent_from_s: float | None = None
    """When it stopped answering, in seconds of the measured time; None: it answered to the end."""
    silent_requests: int = 0
    """Those that fell due from then on, none of which had an answer."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> LoadReport:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError."""
        values = json.loads(text)
        for field in dataclasses.fields(cls):
            if field.type == "Percentiles":
                values[field.name] = Percentiles(**values[field.name])
        values["notes"] = tuple(values["notes"])
        return cls(**values)


def report(spec: LoadSpec, parts: Sequence[Columns], facts: Sequence[RunFacts]) -> LoadReport:
    """`parts` and `facts`: one of each per process."""
    measured = [_measured(columns) for columns in parts]
    response = np.concatenate([part.response_us for part in measured])
    queueing = np.concatenate([part.queueing_us for part in measured])
    errors: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    for part in measured:
        errors.update(part.errors)
        causes.update(part.causes)
    statuses = count_statuses(np.concatenate([part.statuses for part in measured]))
    duration_s = _duration_s(spec, parts, facts)
    good = sum(_good_in_window(columns, duration_s) for columns in parts)
    cpu_requests = sum(fact.cpu_requests for fact in facts)
    shares = [fact.cpu_ns / fact.wall_ns for fact in facts if fact.cpu_requests >= ENOUGH]
    cpu_share = max(shares) if shares else None
    closed = spec.arrivals is Arrivals.CLOSED
    setups = [fact.setups for fact in facts]
    failures: Counter[str] = Counter()
    for log in setups:
        failures.update(log.failures)
    reasons: Counter[str] = Counter()
    for log in setups:
        reasons.update(log.reasons)
    addresses: Counter[str] = Counter()
    for log in setups:
        addresses.update(log.addresses)
    exhausted = sum(log.exhausted for log in setups)
    silence = silence_of(parts)
    replaced = sum(log.replaced for log in setups)
    resumed_us = _us(log.resumed_tls_ns for log in setups)
    return LoadReport(
        requests=response.size,
        errors=dict(sorted(errors.items())),
        rate_achieved=good / duration_s if duration_s > 0 else 0.0,
        rate_intended=None if closed else _rate_intended(spec, response.size, duration_s),
        response_time_us=percentiles(response),
        service_time_us=percentiles(np.concatenate([part.service_us for part in measured])),
        first_byte_us=percentiles(np.concatenate([part.first_byte_us for part in measured])),
        lateness_us=percentiles(np.concatenate([part.lateness_us for part in measured])),
        queued_requests=queueing.size,
        queueing_us=percentiles(queueing),
        cpu_us_per_request=sum(f.cpu_ns for f in facts) / 1000 / cpu_requests if cpu_requests > 0 else None,
        cpu_share=cpu_share,
        limited_by=limited_by(_evidence(measured, cpu_share, closed=closed, exhausted=exhausted > 0)),
        closed_loop=closed,
        received_bytes=sum(part.received_bytes for part in measured),
        duration_s=duration_s,
        connect_us=percentiles(_us(log.connect_ns for log in setups)),
        tls_us=percentiles(np.concatenate([_us(log.full_tls_ns for log in setups), resumed_us])),
        connections_made=sum(len(log.connect_ns) for log in setups),
        setup_failures=dict(failures),
        tls=next((log.tls for log in setups if log.tls), ""),
        spin_us=spec.spin_ns / 1000,
        processes=spec.processes,
        stopped_early=any(fact.stopped for fact in facts),
        notes=(
            *_silence_notes(silence, duration_s),
            *_notes(response, statuses, closed=closed),
            *_pattern_notes(spec, measured, exhausted, replaced, duration_s),
            *(f"{count} × {reason}" for reason, count in reasons.most_common(_REASONS_NOTED)),
        ),
        tls_resumed=resumed_us.size,
        tls_resumed_us=percentiles(resumed_us),
        connections_replaced=replaced,
        setup_exhausted=exhausted,
        late_requests=sum(part.late for part in measured),
        unsent_requests=sum(part.unsent for part in measured),
        messages=sum(part.messages for part in measured),
        reasons=dict(reasons.most_common()),
        waited_for={cause: causes[cause] for cause in CAUSES},
        statuses=statuses,
        addresses=dict(addresses),
        silent_from_s=silence.from_s if silence else None,
        silent_requests=silence.requests if silence else 0,
    )


def _silence_notes(silence: Silence | None, duration_s: float) -> Iterator[str]:
    if silence is not None:
        yield (
            f"it stopped answering at {silence.from_s:.2f} s of {duration_s:g} s:"
            f" none of the last {silence.requests} requests had an answer"
        )


def _evidence(
    measured: Sequence[_Measured], cpu_share: float | None, *, closed: bool, exhausted: bool
) -> InstrumentEvidence:
    requests = sum(part.response_us.size for part in measured)
    response = np.concatenate([part.response_us for part in measured])
    late = np.concatenate([part.good_lateness_us for part in measured])
    return InstrumentEvidence(
        requests=requests,
        late_p99_us=percentiles(late).p99,
        response_p99_us=percentiles(response[np.isfinite(response)]).p99,
        late_by_instrument=sum(part.late_by_instrument for part in measured),
        late_by_host=sum(part.late_by_host for part in measured),
        cpu_share=cpu_share,
        slot_share=sum(part.slot_waits for part in measured) / max(requests, 1),
        connection_share=sum(part.causes["connection"] for part in measured) / max(requests, 1),
        closed=closed,
        exhausted=exhausted,
    )


def _us(columns: Iterable[array[int]]) -> Floats:
    """Of nanoseconds."""
    return np.concatenate([np.empty(0), *(np.array(column, np.float64) / 1000 for column in columns)])


def _rate_intended(spec: LoadSpec, requests: int, duration_s: float) -> float:
    """Of a load that moves: what was intended over the time that was measured."""
    if spec.shape is None and spec.trace is None:
        return spec.rate_rps
    return requests / duration_s if duration_s > 0 else 0.0


@dataclass(frozen=True)
class _Measured:
    response_us: Floats
    service_us: Floats
    first_byte_us: Floats
    lateness_us: Floats
    queueing_us: Floats
    errors: Counter[str]
    received_bytes: int
    late: int
    unsent: int
    messages: int
    statuses: npt.NDArray[np.int64]
    causes: Counter[str]
    slot_waits: int
    """Requests that waited for a slot and were sent, or never were because of that."""
    good_lateness_us: Floats
    late_by_instrument: int
    """Of the good ones, as the next."""
    late_by_host: int


def _measured(columns: Columns) -> _Measured:
    chosen = columns.intended >= columns.zero_ns
    intended, sent = columns.intended[chosen], columns.sent[chosen]
    done, first = columns.done[chosen], columns.first[chosen]
    kinds, waits = columns.error[chosen], columns.waited[chosen]
    good = (done > 0) & (kinds == ErrorKind.NONE)
    was_sent = sent > 0
    queued = columns.queued[chosen] & was_sent
    had_slot = was_sent & ~queued
    waited_us = (sent - intended) / 1000
    counts = np.bincount(kinds, minlength=len(ErrorKind))
    causes: Counter[str] = Counter()
    for cause, count in zip(*np.unique(waits[waits != 0], return_counts=True), strict=True):
        causes[Waited(cause).label] += int(count)
    timed_out = ~was_sent & (kinds == ErrorKind.TIMEOUT)
    return _Measured(
        response_us=np.where(good, (done - intended) / 1000, np.inf),
        service_us=np.where(good, (done - sent) / 1000, np.inf),
        first_byte_us=np.where(good, (first - intended) / 1000, np.inf),
        lateness_us=waited_us[had_slot],
        queueing_us=waited_us[queued],
        errors=Counter({kind.label: int(counts[kind]) for kind in ErrorKind if kind and counts[kind]}),
        received_bytes=int((columns.outcome[chosen] >> BYTES_SHIFT).sum()),
        late=int(np.count_nonzero(waited_us[had_slot] > LATE_US)),
        unsent=int(np.count_nonzero(~was_sent)),
        messages=0 if columns.messages is None else int(columns.messages[chosen][good].sum()),
        statuses=columns.outcome[chosen] & STATUS_MASK,
        causes=causes,
        slot_waits=int(np.count_nonzero((waits == Waited.SLOT) & (was_sent | timed_out))),
        good_lateness_us=waited_us[had_slot & good],
        late_by_instrument=int(np.count_nonzero(good & (waits == Waited.INSTRUMENT))),
        late_by_host=int(np.count_nonzero(good & (waits == Waited.HOST))),
    )


def _good_in_window(columns: Columns, duration_s: float) -> int:
    end_ns = columns.zero_ns + round(duration_s * 1e9)
    inside = (columns.done >= columns.zero_ns) & (columns.done < end_ns)
    return int(np.count_nonzero(inside & (columns.error == ErrorKind.NONE)))


def _duration_s(spec: LoadSpec, parts: Sequence[Columns], facts: Sequence[RunFacts]) -> float:
    if not any(fact.stopped for fact in facts):
        return spec.duration_ns / 1e9
    last = max(
        (int(columns.intended[-1]) - columns.zero_ns for columns in parts if columns.intended.size), default=0
    )
    return min(max(last, 0) / 1e9, spec.duration_ns / 1e9)


def _notes(response: Floats, statuses: dict[str, int], *, closed: bool) -> tuple[str, ...]:
    notes = []
    if response.size < ENOUGH:
        notes.append(f"fewer than {ENOUGH} requests were measured: what limited the run cannot be told")
    if followed := redirects(statuses):
        notes.append(f"{followed} answers are redirects; none is followed")
    failed = int(np.count_nonzero(np.isinf(response)))
    if failed:
        notes.append(
            f"{failed} failed requests count as infinitely slow; mean, max, percentiles among them: null"
        )
    if 0 < response.size < 1000:
        notes.append("fewer than 1000 requests: P99.9 says little")
    if closed:
        notes.append("closed loop: requests wait for answers, so slow moments are under-counted")
    return tuple(notes)


def _pattern_notes(
    spec: LoadSpec, measured: Sequence[_Measured], exhausted: int, replaced: int, duration_s: float
) -> list[str]:
    """What was asked of connections and could not be had."""
    notes = []
    unsent = sum(part.unsent for part in measured)
    if unsent:
        notes.append(f"{unsent} requests were never sent: no slot came free, or no connection came about")
    if exhausted:
        notes.append(f"this machine had no port, descriptor or memory left for {exhausted} connections")
    wanted = spec.churn_per_s * (spec.warmup_ns / 1e9 + duration_s)
    if replaced < CHURN_SHARE * wanted - 1:
        notes.append(f"only {replaced} connections were replaced where {wanted:.0f} should have been")
    return notes
