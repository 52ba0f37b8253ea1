"""Made-up spans: of every traced request the same nesting, in shares of its time that are known.

    client calls -> its sidecar -> the service's sidecar -> the service -> (the next node's ...)

Each span lies in the middle of the one around it. What is planted is `OWN_SHARES`: the shares of a hop's time
that its parts have for themselves; in a chain the next hop is within the service's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from meshwise.load.traced import Tracing, root_id, trace_key
from meshwise.study.model import MeshName, TopologyKind, Trial
from meshwise.telemetry.source import Source

OWN_SHARES = {"client app": 0.1, "client proxy and network": 0.3, "server proxy": 0.2, "service": 0.4}
"""Of a hop in a mesh."""
PLAIN_SHARES = {"network": 0.25, "service": 0.75}
"""Of one without."""
NEXT_SHARE = 0.5
"""Of a service's time, what the call of the next node has of it; the rest is its own."""


def tracing_of(seed: int, trial: Trial) -> Tracing | None:
    share = trial.cell.traced_share
    return Tracing(share, trace_key(seed, trial.trial_id)) if share else None


def spans(seed: int, trial: Trial, requests: pa.Table) -> pa.Table | None:
    """Columns as in `archive.schema.SPANS`; None where nothing is traced."""
    tracing = tracing_of(seed, trial)
    if tracing is None:
        return None
    rows = [
        (tracing.trace_id(number), *row)
        for number, (sent, done) in enumerate(
            zip(requests["sent_ns"].to_pylist(), requests["done_ns"].to_pylist(), strict=True)
        )
        if tracing.traces(number) and done is not None
        for row in _of_request(trial, number, float(sent), float(done))
    ]
    names = (
        "trace_id", "span_id", "parent_id", "source", "name", "kind", "begun_ns", "ended_ns", "status",
        "attributes",
    )  # fmt: skip
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    types = [pa.int64() if name.endswith("_ns") else pa.string() for name in names]
    return pa.table(
        {name: pa.array(column, kind) for name, column, kind in zip(names, columns, types, strict=True)}
    )


Row = tuple[str, str, str, str, str, int, int, str, str]


def _of_request(trial: Trial, number: int, begun: float, ended: float) -> Iterator[Row]:
    """Span by span, from the client's down."""
    cell = trial.cell
    nodes = [workload.name for workload in cell.topology.workloads[1:]]
    nodes = nodes if cell.shape is TopologyKind.CHAIN else nodes[:1]
    shares = PLAIN_SHARES if cell.mesh is MeshName.NONE else OWN_SHARES
    parent, made, caller, role = "", 0, "client", "instrument"

    def span(workload: str, role: str, kind: str) -> Row:
        nonlocal parent, made
        own = root_id(number) if not made else f"{made:04x}{number:012x}"
        source = str(Source(str(cell.mesh), trial.process_set, workload, role))
        row = (own, parent, source, "fake", kind, round(begun), round(ended), "ok", "{}")
        parent, made = own, made + 1
        return row

    def within(share: float) -> None:
        """What is left of it for what lies within."""
        nonlocal begun, ended
        cut = (ended - begun) * (1 - share) / 2
        begun, ended = begun + cut, ended - cut

    for place, node in enumerate(nodes):
        left = 1.0
        yield span(caller, role, "client")
        own_parts = [part for part in shares if part != "service"]
        for part in own_parts:
            within((left - shares[part]) / left)
            left -= shares[part]
            if part == "client app":
                yield span(caller, "proxy", "client")
            elif part == "client proxy and network":
                yield span(node, "proxy", "server")
        yield span(node, "service", "server")
        caller, role = node, "service"
        if place + 1 < len(nodes):
            within(NEXT_SHARE)
