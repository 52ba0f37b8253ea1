"""Which factors a shape of topology leaves without a meaning, and which levels it cannot have. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshwise.core.units import format_size
from meshwise.study.factors import BY_KEY
from meshwise.study.file.document import Path
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.graph.laws import MAX_BYTES
from meshwise.study.graph.sums import most_answer_bytes
from meshwise.study.load.payload import largest_bytes
from meshwise.study.protocol import Protocol
from meshwise.study.topology import Topology, TopologyKind

MAX_LEVELS = 5
"""Of a tree: 31 nodes."""


def check_shape(
    shape: TopologyKind, levels: Mapping[str, list[Any]], said_at: Mapping[str, Path], problems: list[Problem]
) -> None:
    """Problems of one part of the grid, each where the file says it."""
    for key, factor in BY_KEY.items():
        if key in said_at and (reason := factor.without.get(shape)):
            problems.append(impossible(said_at[key], reason, f"leave `{key}` out"))
    if shape is not TopologyKind.BANK and "stores" in said_at:
        reason = "only the bank has stores"
        problems.append(impossible(said_at["stores"], reason, "leave `stores` out, or say `topology: bank`"))
    if shape is TopologyKind.TREE and max(levels["length"]) > MAX_LEVELS:
        reason = f"a tree of {max(levels['length'])} levels has {2 ** max(levels['length']) - 1} nodes"
        problems.append(impossible(said_at["length"], reason, f"at most {MAX_LEVELS} levels"))
    elif shape is TopologyKind.AGGREGATION:
        _answers_fit(levels, said_at, problems)
    if Protocol.TCP in levels["protocol"]:
        _point_to_point(shape, levels, said_at, problems)


def _answers_fit(
    levels: Mapping[str, list[Any]], said_at: Mapping[str, Path], problems: list[Problem]
) -> None:
    graph = Topology(TopologyKind.AGGREGATION, max(levels["length"])).graph
    assert graph is not None
    if (size := most_answer_bytes(graph, max(map(largest_bytes, levels["response"])))) > MAX_BYTES:
        reason = f"answers of all leaves in one are {format_size(size)} (at most {format_size(MAX_BYTES)})"
        place = said_at.get("response") or said_at["length"]
        problems.append(impossible(place, reason, "a smaller `response`, or fewer leaves"))


def _point_to_point(
    shape: TopologyKind, levels: Mapping[str, list[Any]], said_at: Mapping[str, Path], problems: list[Problem]
) -> None:
    """Opaque bytes carry no plan, so a node cannot be told to call another."""
    if shape is not TopologyKind.CHAIN:
        word = "fan-out" if shape is TopologyKind.FANOUT else f"`{shape}`"
        remedy = "a study of its own for tcp, with `topology: chain`"
        problems.append(impossible(said_at["protocol"], f"tcp has no {word}: it goes to one node", remedy))
    elif max(levels["length"]) > 1:
        remedy = "give tcp a part of its own under `include`, with `length: 1` there"
        problems.append(impossible(said_at["length"], "tcp has no chain: it goes to one node", remedy))
