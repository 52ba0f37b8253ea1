"""What the factors of payloads, connections and streams mean together, and in a cell. Pure.

A cell keeps a distribution of sizes as text, beside its mean in bytes: text is ordered, compared and archived
like any level. A factor that means nothing to a protocol does not multiply its cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshwise.study.file.document import Path
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.load.payload import Payload, largest_bytes, parse_payload
from meshwise.study.model import Cell, Protocol, TopologyKind
from meshwise.study.protocol import Streaming

MAX_STREAM_BYTES = 16 * 2**20
"""That the messages of one stream have together, in one direction."""

DEFAULTS: dict[str, list[Any]] = {
    "requests_per_connection": [0],
    "churn": [0.0],
    "streaming": [Streaming.NONE],
    "messages": [10],
}


def settled_by_pattern(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a cell from the levels of its factors."""
    fields = dict(fields)
    for side in ("request", "response"):
        sizes = fields[f"{side}_bytes"]
        if isinstance(sizes, Payload):
            fields |= {f"{side}_bytes": round(sizes.mean_bytes), f"{side}_sizes": str(sizes)}
    if fields["protocol"] is not Protocol.GRPC:
        fields["streaming"] = Streaming.NONE
    if fields["streaming"] is Streaming.NONE:
        fields["messages"] = 1
    return fields


def level_of(cell: Cell, field: str) -> object:
    """The level that a field of the cell stands for, as the study file says it."""
    text = {"request_bytes": cell.request_sizes, "response_bytes": cell.response_sizes}.get(field)
    return parse_payload(text) if text else getattr(cell, field)


def check_patterns(
    shape: TopologyKind, levels: Mapping[str, list[Any]], said_at: Mapping[str, Path], problems: list[Problem]
) -> None:
    """Combinations of one part of the grid that cannot be, each named where the file says it."""

    def refuse(factor: str, reason: str, remedy: str) -> None:
        problems.append(impossible(said_at[factor], reason, remedy))

    if max(levels["churn"]) and max(levels["requests_per_connection"]):
        reason = "connections are replaced after a number of requests or at a rate, not both"
        refuse("churn", reason, "give each a part of its own under `include`")
    streams = [kind for kind in levels["streaming"] if kind is not Streaming.NONE]
    if "messages" in said_at and not streams:
        refuse("messages", "`messages` are those of a gRPC stream", "add `streaming: bidi`, or leave it out")
    if not streams:
        return
    if Protocol.GRPC not in levels["protocol"]:
        refuse("streaming", "only grpc has streams of messages", "add `protocol: grpc`, or leave it out")
    if shape is not TopologyKind.CHAIN or max(levels["length"]) > 1:
        refuse(
            "streaming", "a stream goes to one node", "a part of its own, with `topology: chain`, `length: 1`"
        )
    most = max(levels["messages"])
    for side, kinds in (("request", Streaming.CLIENT), ("response", Streaming.SERVER)):
        largest = max(map(largest_bytes, levels[side]))
        if most * largest > MAX_STREAM_BYTES and (kinds in streams or Streaming.BIDI in streams):
            reason = f"{most} messages of {largest} bytes are more than the 16MiB that a stream may carry"
            refuse(
                "messages" if "messages" in said_at else "streaming",
                reason,
                "fewer messages, or smaller ones",
            )
