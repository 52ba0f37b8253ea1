"""What follows from a call graph by arithmetic: visits, errors, sleeps and bytes per request. Pure.

Every number is exact for the scripts as written, with draws independent of each other: a script ends at its
first step that has a failed call, and steps at once all run to their end. A graph has no cycle, so each
number of a service follows from those of the services that it calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from meshwise.study.graph.model import Call, Concurrent, GraphService, ServiceGraph, Sleep, Step

T = TypeVar("T")


def callees_first(graph: ServiceGraph) -> tuple[GraphService, ...]:
    """Every service after all that it calls."""
    found: dict[str, GraphService] = {}
    waiting = [(service, False) for service in reversed(graph.services)]
    while waiting:
        service, called = waiting.pop()
        if service.name in found:
            continue
        if called:
            found[service.name] = service
        else:
            waiting.append((service, True))
            waiting += [(graph[name], False) for name in service.callees]
    return tuple(found.values())


def steps_at_once(step: Step) -> tuple[Sleep | Call, ...]:
    return step.steps if isinstance(step, Concurrent) else (step,)


def visits(graph: ServiceGraph) -> Mapping[str, float]:
    """How often each service is called, on average, for one request of the client (the entrypoint: once)."""
    ok = _success(graph)
    found = dict.fromkeys((service.name for service in graph.services), 0.0)
    found[graph.services[0].name] = 1.0
    for service in reversed(callees_first(graph)):
        reached = found[service.name] * (1 - service.error_share)
        for step in service.script:
            calls = _calls(step)
            for call in calls:
                found[call.service] += reached * call.probability
            reached *= _all_well(calls, ok)
    return found


def asked_errors(graph: ServiceGraph) -> float:
    """The share of the client's requests that fail because the graph says so."""
    return 1 - _success(graph)[graph.services[0].name]


def most_calls(graph: ServiceGraph) -> int:
    """Calls between services that one request makes at most."""
    return _folded(graph, lambda service, known: sum(1 + known[call.service] for call in service.calls))


def longest_sleep_ns(graph: ServiceGraph) -> int:
    """How long a request sleeps at most, over the slowest way through all scripts."""

    def own(service: GraphService, known: Mapping[str, int]) -> int:
        def lasts(step: Sleep | Call) -> int:
            return step.duration_ns if isinstance(step, Sleep) else known[step.service]

        return sum(max(map(lasts, steps_at_once(step)), default=0) for step in service.script)

    return _folded(graph, own)


def most_answer_bytes(graph: ServiceGraph, default_bytes: int) -> int:
    """The longest answer of any service, where those without a size of their own answer `default_bytes`."""
    most = 0

    def own(service: GraphService, known: Mapping[str, int]) -> int:
        nonlocal most
        size = default_bytes if service.response_bytes is None else service.response_bytes
        if service.aggregates:
            size += sum(known[call.service] for call in service.calls)
        most = max(most, size)
        return size

    _folded(graph, own)
    return most


def _folded(graph: ServiceGraph, own: Callable[[GraphService, Mapping[str, T]], T]) -> T:
    """The entrypoint's value, when a service's value follows from those of its callees."""
    known: dict[str, T] = {}
    for service in callees_first(graph):
        known[service.name] = own(service, known)
    return known[graph.services[0].name]


def _success(graph: ServiceGraph) -> Mapping[str, float]:
    """The share of calls to each service that are answered well."""
    ok: dict[str, float] = {}
    for service in callees_first(graph):
        share = 1 - service.error_share
        for step in service.script:
            share *= _all_well(_calls(step), ok)
        ok[service.name] = share
    return ok


def _calls(step: Step) -> tuple[Call, ...]:
    return tuple(each for each in steps_at_once(step) if isinstance(each, Call))


def _all_well(calls: Iterable[Call], ok: Mapping[str, float]) -> float:
    share = 1.0
    for call in calls:
        share *= 1 - call.probability * (1 - ok[call.service])
    return share
