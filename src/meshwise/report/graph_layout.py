"""Where the boxes and lines of a call graph go: layers from left to right. Pure.

The usual three steps (Sugiyama, Tagawa & Toda 1981): every service in the layer of its longest way from the
client, so that all calls go to the right; a call over several layers bends at a point in each; within a
layer the order that a few sweeps of barycentres find, by which few lines cross.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from meshwise.study.topology import Topology

SWEEPS = 12
Key = str | tuple[str, str, int]
"""A workload, or where a call passes a layer: caller, callee, layer."""


@dataclass(frozen=True)
class Layout:
    """Units are slots: layers across, rows down, both counted from 0."""

    layer: Mapping[str, int]
    row: Mapping[str, float]
    bends: Mapping[tuple[str, str], tuple[tuple[int, float], ...]]
    """By caller and callee: (layer, row) of the points where the call passes a layer between."""
    layers: int
    rows: float


def lay_out(topology: Topology) -> Layout:
    layer = _longest_ways(topology)
    edges = [(w.name, callee) for w in topology.workloads for callee in w.calls]
    columns: list[list[Key]] = [[] for _ in range(max(layer.values()) + 1)]
    for name in _walk(topology):
        columns[layer[name]].append(name)
    ways: dict[tuple[str, str], list[Key]] = {}
    for caller, callee in edges:
        between: list[Key] = [(caller, callee, each) for each in range(layer[caller] + 1, layer[callee])]
        for each, key in enumerate(between, start=layer[caller] + 1):
            columns[each].append(key)
        ways[caller, callee] = [caller, *between, callee]
    neighbours = _neighbours(ways.values())
    for sweep in range(SWEEPS):
        _sweep(columns, neighbours, forward=sweep % 2 == 0)
    row = _rows(columns, neighbours)
    return Layout(
        layer,
        {name: row[name] for name in layer},
        {
            edge: tuple((layer[edge[0]] + at, row[key]) for at, key in enumerate(way[1:-1], start=1))
            for edge, way in ways.items()
        },
        len(columns),
        max(row.values()) + 1,
    )


def _longest_ways(topology: Topology) -> dict[str, int]:
    """Every workload's layer: one more than the highest of its callers'."""
    missing = {w.name: len(topology.callers(w.name)) for w in topology.workloads}
    found = {topology.workloads[0].name: 0}
    ready = list(found)
    while ready:
        name = ready.pop()
        for callee in topology[name].calls:
            found[callee] = max(found.get(callee, 0), found[name] + 1)
            missing[callee] -= 1
            if not missing[callee]:
                ready.append(callee)
    return found


def _walk(topology: Topology) -> list[str]:
    """Depth first in the order of calls: a first order that is seldom bad."""
    found: dict[str, None] = {}
    waiting = [topology.workloads[0].name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += reversed(topology[name].calls)
    return list(found)


def _neighbours(ways: Iterable[list[Key]]) -> dict[Key, tuple[list[Key], list[Key]]]:
    """To the left and to the right."""
    found: dict[Key, tuple[list[Key], list[Key]]] = {}
    for way in ways:
        for left, right in pairwise(way):
            found.setdefault(left, ([], []))[1].append(right)
            found.setdefault(right, ([], []))[0].append(left)
    return found


def _sweep(
    columns: list[list[Key]], neighbours: Mapping[Key, tuple[list[Key], list[Key]]], *, forward: bool
) -> None:
    order = range(1, len(columns)) if forward else range(len(columns) - 2, -1, -1)
    side = 0 if forward else 1
    for index in order:
        beside = columns[index - 1 if forward else index + 1]
        place = {key: at / max(len(beside) - 1, 1) for at, key in enumerate(beside)}
        now = {key: at / max(len(columns[index]) - 1, 1) for at, key in enumerate(columns[index])}

        def centre(key: Key, place: Mapping[Key, float] = place, now: Mapping[Key, float] = now) -> float:
            known = [place[each] for each in neighbours[key][side] if each in place]
            return sum(known) / len(known) if known else now[key]

        columns[index].sort(key=centre)


def _rows(
    columns: list[list[Key]], neighbours: Mapping[Key, tuple[list[Key], list[Key]]]
) -> dict[Key, float]:
    """Rows that keep each layer's order and one slot of distance, drawn towards what each is joined with."""
    most = max(map(len, columns))
    row = {key: at + (most - len(column)) / 2 for column in columns for at, key in enumerate(column)}
    for _ in range(SWEEPS):
        for column in columns:
            wanted = [
                _mean([row[each] for side in neighbours.get(key, ()) for each in side], row[key])
                for key in column
            ]
            placed = _apart(wanted)
            row |= dict(zip(column, placed, strict=True))
    lowest = min(row.values())
    return {key: value - lowest for key, value in row.items()}


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _apart(wanted: list[float]) -> list[float]:
    """The nearest places (least squares) that are in order and one apart: pools of what would overlap."""
    pools: list[list[float]] = []
    for at, value in enumerate(wanted):
        pools.append([value - at])
        while len(pools) > 1 and _mean(pools[-2], 0) > _mean(pools[-1], 0):
            last = pools.pop()
            pools[-1] += last
    flat = [_mean(pool, 0) for pool in pools for _ in pool]
    return [value + at for at, value in enumerate(flat)]
