"""Service graphs for tests: random ones, and what a random walk through their scripts does."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from meshwise.study.graph.model import Call, Concurrent, GraphService, ServiceGraph, Sleep, Step
from meshwise.study.graph.sums import steps_at_once
from meshwise.study.model import Authorization, MtlsMode

_MS = 10**6


@st.composite
def graphs(draw: st.DrawFn, most: int = 8) -> ServiceGraph:
    """Acyclic, all reached: each service is called by one before it, and perhaps by more."""
    count = draw(st.integers(1, most))
    names = [f"s{at}" for at in range(count)]
    callers = [draw(st.sets(st.integers(0, at - 1), min_size=1, max_size=2)) for at in range(1, count)]
    callees: list[list[int]] = [[] for _ in names]
    for at, above in enumerate(callers, start=1):
        for caller in above:
            callees[caller].append(at)
    return ServiceGraph(
        "random",
        tuple(
            draw(_services(name, [names[i] for i in mine])) for name, mine in zip(names, callees, strict=True)
        ),
    )


@st.composite
def _services(draw: st.DrawFn, name: str, callees: list[str]) -> GraphService:
    size = st.none() | st.integers(0, 5000)
    calls: list[Sleep | Call] = [
        Call(callee, draw(size), draw(st.sampled_from([1.0, 0.5, 0.25]))) for callee in callees
    ]
    if draw(st.booleans()):
        calls.insert(draw(st.integers(0, len(calls))), Sleep(draw(st.integers(1, 30)) * _MS))
    script: tuple[Step, ...] = tuple(calls)
    if len(calls) > 1 and draw(st.booleans()):
        cut = draw(st.integers(1, len(calls)))
        script = (Concurrent(tuple(calls[:cut])), *calls[cut:])
    demand = draw(st.booleans())
    return GraphService(
        name,
        draw(st.sampled_from(["backend", "data"])),
        script,
        draw(size),
        draw(st.booleans()),
        draw(st.sampled_from([0.0, 0.1])),
        MtlsMode.STRICT if demand else None,
        Authorization.NAMESPACE if demand else None,
    )


def walk(graph: ServiceGraph, chance: random.Random, visited: dict[str, int], name: str = "") -> bool:
    """One request through the scripts as `service.script` plays them: is it answered well?"""
    service = graph[name or graph.services[0].name]
    visited[service.name] = visited.get(service.name, 0) + 1
    if chance.random() < service.error_share:
        return False
    for step in service.script:
        well = [
            walk(graph, chance, visited, part.service)
            for part in steps_at_once(step)
            if isinstance(part, Call) and chance.random() < part.probability
        ]
        if not all(well):
            return False
    return True
