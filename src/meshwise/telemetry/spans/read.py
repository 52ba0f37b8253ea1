"""From what was received to spans. Pure; nothing that is read here can be so wrong that it raises: what makes
no sense is counted.

Times of OTLP are of the wall clock, those of a node CLOCK_MONOTONIC; here all become the latter, by a reading
of both clocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from meshwise.service import spans as own
from meshwise.telemetry.spans.receiver import HEAD

PROXY, SERVICE = "proxy", "service"
_WORKLOAD = ("k8s.pod.name", "service.name")
"""Resource attributes that name the workload, first choice first."""
KINDS = ("internal", "internal", "server", "client", "internal", "internal")
"""Of OTLP's numbers; producers and consumers are none of a request's."""
_STATUS = ("", "ok", "error")
_MOST_NS = 1 << 61


@dataclass(frozen=True, slots=True)
class ReadSpan:
    """A row of the archive's table `spans`; times CLOCK_MONOTONIC."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty: it has none."""
    workload: str
    role: str
    name: str
    kind: str
    begun_ns: int
    ended_ns: int
    status: str = ""
    attributes: str = "{}"


@dataclass
class Troubles:
    """What was wrong with what came, counted."""

    batches: int = 0
    """That are none, or end early."""
    spans: int = 0
    """Without valid ids, or that end before they begin."""
    lost: int = 0
    """Which a service could not keep."""
    twice: int = 0
    """Ids that were there before."""


@dataclass(frozen=True)
class Found:
    spans: list[ReadSpan] = field(default_factory=list)
    troubles: Troubles = field(default_factory=Troubles)

    def add(self, span: ReadSpan | None) -> None:
        if span is None:
            self.troubles.spans += 1
        else:
            self.spans.append(span)


def batches(content: bytes) -> Iterator[bytes | None]:
    """The batches of a receiver's file; None for one that is cut."""
    at, end = 0, len(content)
    while at < end:
        if end - at < HEAD.size:
            yield None
            return
        _, size = HEAD.unpack_from(content, at)
        at += HEAD.size
        yield content[at : at + size] if at + size <= end else None
        at += size


def of_otlp(content: bytes, wall_minus_monotonic_ns: int, found: Found) -> None:
    """Adds the spans of a receiver's file."""
    for raw in batches(content):
        try:
            batch = None if raw is None else trace_service_pb2.ExportTraceServiceRequest.FromString(raw)
        except DecodeError:
            batch = None
        if batch is None:
            found.troubles.batches += 1
            continue
        for resource in batch.resource_spans:
            facts = _attributes(resource.resource.attributes)
            workload, role = _who(facts)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found.add(_of_message(span, workload, role, wall_minus_monotonic_ns))


def _who(facts: dict[str, Any]) -> tuple[str, str]:
    named = next((str(facts[name]) for name in _WORKLOAD if facts.get(name)), "unknown")
    return named.partition(".")[0].replace("/", "_") or "unknown", str(
        facts.get(own.ROLE_ATTRIBUTE, PROXY)
    ).replace("/", "_")


def _of_message(span: Any, workload: str, role: str, offset_ns: int) -> ReadSpan | None:
    begun, ended = span.start_time_unix_nano, span.end_time_unix_nano
    if len(span.trace_id) != 16 or len(span.span_id) != 8 or len(span.parent_span_id) not in (0, 8):
        return None
    if not any(span.trace_id) or not any(span.span_id) or not 0 < begun <= ended < _MOST_NS:
        return None
    return ReadSpan(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex() if any(span.parent_span_id) else "",
        workload,
        role,
        span.name[:200],
        KINDS[span.kind] if 0 <= span.kind < len(KINDS) else "internal",
        begun - offset_ns,
        ended - offset_ns,
        _STATUS[span.status.code] if 0 <= span.status.code < len(_STATUS) else "",
        json.dumps(_attributes(span.attributes)),
    )


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    """Plain values; what is a list or a map is left out, no proxy here says any."""
    found = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind in ("string_value", "int_value", "bool_value", "double_value"):
            found[pair.key] = getattr(pair.value, kind)
    return found


def of_node(content: bytes, workload: str, found: Found) -> None:
    """Adds the spans that a graph node has written (`service.spans`)."""
    whole = len(content) // own.RECORD.size * own.RECORD.size
    found.troubles.batches += whole != len(content)
    for record in own.RECORD.iter_unpack(content[:whole]):
        trace_id, span_id, parent_id, name, kind, failed, begun_ns, ended_ns = record
        if kind == own.LOST:
            found.troubles.lost += begun_ns
            continue
        sensible = any(trace_id) and any(span_id) and begun_ns <= ended_ns
        found.add(
            ReadSpan(
                trace_id.hex(), span_id.hex(), parent_id.hex(), workload, SERVICE,
                name.rstrip(b"\0").decode(errors="replace"), "server" if kind == own.SERVER else "client",
                begun_ns, ended_ns, "error" if failed else "",
            )
            if sensible
            else None
        )  # fmt: skip


def each_once(spans: Iterable[ReadSpan], troubles: Troubles) -> list[ReadSpan]:
    """Of equal ids the first: an exporter that heard no answer sends a batch again."""
    known: dict[tuple[str, str], ReadSpan] = {}
    for span in spans:
        if known.setdefault((span.trace_id, span.span_id), span) is not span:
            troubles.twice += 1
    return list(known.values())
