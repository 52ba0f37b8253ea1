"""One trial's spans -> where the time of a request goes: per part in itself, and along the critical path.

A span's own time is what lies within it and within none of its children. Whose part it is, its place in the
chain says:

    client app                 a call of the client or of a service, outside its sidecar's span: the way to
                               the sidecar beside it and back
    client proxy               that sidecar, before it sends the request on and after its answer. Only
                               linkerd2-proxy tells it: one span is of what it takes, one of what it sends
    network                    from a sidecar's sending to the taking of the sidecar that answers, TLS of both
                               among it; without a mesh from a call to who answers it
    client proxy and network   both together: Envoy has one span, which does not say when it has sent
    server proxy               an answering sidecar, outside the span of its service
    service                    a service's answer, outside the calls that it makes

Own times of what runs at the same time (a fan-out) add up to more than the request takes; the critical path
does not: every moment of a request belongs to one span, the one that was waited for last.

Rules of this file:
- A trace counts if it is whole: one span without a parent, of a request that was answered well, and the
  parent of every other span is there. Others are left out, and how many counted is a metric.
- Warm-up is left out, as everywhere.
- A child that ends after its parent (linkerd2-proxy's spans end with an answer's head) is cut at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import polars as pl

from meshwise.findings.metric import PERCENTILES, MetricKey
from meshwise.stats.quantile import effective_exceedances, quantile
from meshwise.telemetry.source import Source

SPAN_COLUMNS = (
    "trace_id", "span_id", "parent_id", "source", "name", "kind", "begun_ns", "ended_ns", "status",
)  # fmt: skip
WHOLE = MetricKey("traces_whole")
OWN, OWN_MEAN, CRITICAL = "span_own_{p}_us", "span_own_mean_us", "span_critical_mean_us"
RECEIVER = "receiver"
TYPICAL, SLOW = 0.5, 0.99
"""Quantiles of the durations of a trial's traces, to which those that are shown are nearest."""
MOST_DEEP = 64
"""Spans within one another; a trace that goes deeper (a ring of parents) is not whole."""


class WayPart(StrEnum):
    CLIENT_APP = "client app"
    CLIENT_PROXY = "client proxy"
    CLIENT_PROXY_AND_NETWORK = "client proxy and network"
    NETWORK = "network"
    SERVER_PROXY = "server proxy"
    SERVICE = "service"


@dataclass(slots=True)
class Node:
    """One span of a trace."""

    span_id: str
    parent_id: str
    workload: str
    role: str
    name: str
    kind: str
    begun_ns: int
    ended_ns: int
    children: list[Node] = field(default_factory=list)
    part: WayPart = WayPart.SERVICE
    critical_ns: int = 0

    @property
    def duration_ns(self) -> int:
        return self.ended_ns - self.begun_ns

    @property
    def own_ns(self) -> int:
        """Within it and within none of its children."""
        covered, until = 0, self.begun_ns
        for child in sorted(self.children, key=lambda each: each.begun_ns):
            start, end = max(child.begun_ns, until), min(child.ended_ns, self.ended_ns)
            if end > start:
                covered += end - start
                until = end
        return self.duration_ns - covered


@dataclass(frozen=True)
class RequestTrace:
    """A whole one; `spans` from the root down, children in the order of their beginning."""

    trace_id: str
    root: Node
    spans: tuple[Node, ...]

    @property
    def own_ns(self) -> Mapping[WayPart, int]:
        found: dict[WayPart, int] = {}
        for span in self.spans:
            found[span.part] = found.get(span.part, 0) + span.own_ns
        return found

    @property
    def critical_ns(self) -> Mapping[WayPart, int]:
        """Adds up to the duration of the root."""
        found: dict[WayPart, int] = {}
        for span in self.spans:
            found[span.part] = found.get(span.part, 0) + span.critical_ns
        return found


def traces(spans: pl.DataFrame) -> tuple[list[RequestTrace], int]:
    """The whole traces of one trial's measured window, in order of their beginning; and how many there are
    that began there, whole or not."""
    rows = spans.select(SPAN_COLUMNS)
    by_trace: dict[str, list[Node]] = {}
    failed: set[str] = set()
    for trace_id, span_id, parent_id, source, name, kind, begun, ended, status in rows.iter_rows():
        who = Source.read(source)
        workload, role = (who.workload, who.role) if who else (source, "")
        node = Node(span_id, parent_id, workload, role, name, kind, begun, ended)
        by_trace.setdefault(trace_id, []).append(node)
        if not parent_id and status != "ok":
            failed.add(trace_id)
    begun_in_window, whole = 0, []
    for trace_id, nodes in by_trace.items():
        roots = [node for node in nodes if not node.parent_id]
        if len(roots) != 1 or roots[0].begun_ns < 0 or trace_id in failed:
            begun_in_window += bool(roots) and roots[0].begun_ns >= 0 and trace_id not in failed
            continue
        begun_in_window += 1
        if (made := _whole(trace_id, roots[0], nodes)) is not None:
            whole.append(made)
    return sorted(whole, key=lambda each: each.root.begun_ns), begun_in_window


def _whole(trace_id: str, root: Node, nodes: Sequence[Node]) -> RequestTrace | None:
    known = {node.span_id: node for node in nodes}
    for node in nodes:
        if node is root:
            continue
        parent = known.get(node.parent_id)
        if parent is None or parent is node:
            return None
        parent.children.append(node)
    ordered: list[Node] = []
    if not _walk(root, ordered, 0) or len(ordered) != len(nodes):
        return None
    _name_parts(root, None, None)
    _critical(root, root.ended_ns)
    return RequestTrace(trace_id, root, tuple(ordered))


def _walk(node: Node, into: list[Node], depth: int) -> bool:
    if depth > MOST_DEEP:
        return False
    into.append(node)
    node.children.sort(key=lambda each: (each.begun_ns, each.span_id))
    return all(_walk(child, into, depth + 1) for child in node.children)


def _name_parts(node: Node, parent: Node | None, asking: Node | None) -> None:
    """By the span's place in its trace. `asking`: the nearest span around it that is no sidecar's."""
    beside = any(child.role == "proxy" and child.workload == node.workload for child in node.children)
    if node.role != "proxy":
        if node.kind != "client":
            node.part = WayPart.SERVICE
        else:
            node.part = WayPart.CLIENT_APP if beside else WayPart.NETWORK
        asking = node
    elif asking is None or asking.workload != node.workload:
        node.part = WayPart.SERVER_PROXY
    elif beside:
        node.part = WayPart.CLIENT_PROXY
    else:
        again = parent is not None and (parent.role, parent.workload) == (node.role, node.workload)
        node.part = WayPart.NETWORK if again else WayPart.CLIENT_PROXY_AND_NETWORK
    for child in node.children:
        _name_parts(child, node, asking)


def _critical(node: Node, until_ns: int) -> None:
    """Walks back from the end: whoever ended last was waited for."""
    end = at = min(node.ended_ns, until_ns)
    for child in sorted(node.children, key=lambda each: each.ended_ns, reverse=True):
        ended = min(child.ended_ns, end)
        if ended > at or child.begun_ns >= ended or ended <= node.begun_ns:
            continue
        node.critical_ns += at - ended
        _critical(child, ended)
        at = max(child.begun_ns, node.begun_ns)
    node.critical_ns += max(0, at - node.begun_ns)


@dataclass(frozen=True)
class SpanNumbers:
    """Of one trial."""

    values: Mapping[MetricKey, float] = field(default_factory=dict)
    exceedances: Mapping[MetricKey, float] = field(default_factory=dict)
    """Of those that are percentiles."""
    typical: RequestTrace | None = None
    slow: RequestTrace | None = None


def measure_spans(spans: pl.DataFrame) -> SpanNumbers:
    """Nothing where no trace began in the window."""
    found, begun = traces(spans)
    if not begun:
        return SpanNumbers()
    values, exceedances = {WHOLE: len(found) / begun}, dict[MetricKey, float]()
    own_ns, critical_ns = [trace.own_ns for trace in found], [trace.critical_ns for trace in found]
    for part in WayPart:
        own = np.array([each[part] for each in own_ns if part in each], float) / 1e3
        if not own.size:
            continue
        ascending = np.sort(own)
        for word in ("p50", "p99"):
            key = MetricKey(OWN.format(p=word), str(part))
            values[key] = threshold = quantile(ascending, PERCENTILES[word])
            exceedances[key] = effective_exceedances(own, threshold)
        values[MetricKey(OWN_MEAN, str(part))] = float(own.mean())
        critical = np.array([each.get(part, 0) for each in critical_ns], float) / 1e3
        values[MetricKey(CRITICAL, str(part))] = float(critical.mean())
    return SpanNumbers(values, exceedances, nearest(found, TYPICAL), nearest(found, SLOW))


def receiver_share(telemetry: pl.DataFrame) -> float | None:
    """Of one CPU, what the receiver of spans used between the first reading and the last."""
    own = telemetry.filter(
        (pl.col("source").cast(pl.String) == RECEIVER) & (pl.col("metric").cast(pl.String) == "cpu_ns")
    ).sort("t_ns")
    if own.height < 2:
        return None
    over_ns = own["t_ns"][-1] - own["t_ns"][0]
    return float(own["value"][-1] - own["value"][0]) / over_ns if over_ns > 0 else None


def nearest(found: Iterable[RequestTrace], share: float) -> RequestTrace | None:
    """The one whose duration is nearest to that quantile of all; None of none."""
    every = sorted(found, key=lambda each: each.root.duration_ns)
    if not every:
        return None
    wanted = quantile(np.array([each.root.duration_ns for each in every], float), share)
    return min(every, key=lambda each: abs(each.root.duration_ns - wanted))
