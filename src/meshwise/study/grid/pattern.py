"""What levels of payloads, connections and streams cannot mean together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshwise.study.file.document import Path
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.load.payload import largest_bytes
from meshwise.study.model import Protocol, TopologyKind
from meshwise.study.protocol import Streaming

MAX_STREAM_BYTES = 16 * 2**20
"""That the messages of one stream have together, in one direction."""


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
