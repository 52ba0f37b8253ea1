"""A call graph in words, one line a call: the tree that `meshwise plan` prints; and a service in short.

A service is written out where it is first called; after that its name refers to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshwise.core.units import format_duration, format_size
from meshwise.study.graph.model import Call, Concurrent, GraphService, ServiceGraph, Sleep, Step
from meshwise.study.topology import CLIENT, Topology


@dataclass(frozen=True)
class TreeLine:
    """One line of the tree: the strokes before it, what it is about, and more about it."""

    strokes: str
    name: str
    more: str = ""


def drawn(topology: Topology) -> ServiceGraph:
    """Its graph; where none is given, the one that its workloads' calls make."""
    if topology.graph is not None:
        return topology.graph
    services = []
    for workload in topology.workloads[1:]:
        calls = tuple(Call(callee) for callee in workload.calls)
        script: tuple[Step, ...] = (Concurrent(calls),) if len(calls) > 1 else calls
        services.append(
            GraphService(workload.name, workload.namespace, script, mtls=workload.mtls,
                         authorization=workload.authorization)
        )  # fmt: skip
    return ServiceGraph(topology.name, tuple(services))


def tree(topology: Topology) -> tuple[TreeLine, ...]:
    graph = drawn(topology)
    entry = graph.services[0]
    seen: set[str] = set()
    return (TreeLine("", CLIENT), *_service(graph, Call(entry.name), "", True, "", seen))


def _service(
    graph: ServiceGraph, call: Call, indent: str, last: bool, caller_namespace: str, seen: set[str]
) -> Iterator[TreeLine]:
    service = graph[call.service]
    again = call.service in seen and bool(service.script)
    traits = [] if again else service_traits(service)
    if service.namespace != caller_namespace:
        traits.insert(0, f"in {service.namespace}")
    more = [*call_traits(call), *traits, *(["see above"] if again else [])]
    yield TreeLine(indent + ("└─ " if last else "├─ "), service.name, ", ".join(more))
    if again:
        return
    seen.add(call.service)
    inner = indent + ("   " if last else "│  ")
    for at, step in enumerate(service.script, start=1):
        yield from _step(graph, step, inner, at == len(service.script), service.namespace, seen)


def _step(
    graph: ServiceGraph, step: Step, indent: str, last: bool, namespace: str, seen: set[str]
) -> Iterator[TreeLine]:
    if isinstance(step, Sleep):
        yield TreeLine(indent + ("└─ " if last else "├─ "), "", f"sleep {format_duration(step.duration_ns)}")
    elif isinstance(step, Call):
        yield from _service(graph, step, indent, last, namespace, seen)
    elif len(step.steps) == 1:
        yield from _step(graph, step.steps[0], indent, last, namespace, seen)
    else:
        yield TreeLine(indent + ("└─ " if last else "├─ "), "", "at once")
        inner = indent + ("   " if last else "│  ")
        for at, each in enumerate(step.steps, start=1):
            yield from _step(graph, each, inner, at == len(step.steps), namespace, seen)


def call_traits(call: Call) -> list[str]:
    found = [] if call.probability == 1 else [f"{100 * call.probability:g} % of the time"]
    return found if call.request_bytes is None else [*found, f"asked with {format_size(call.request_bytes)}"]


def service_traits(service: GraphService) -> list[str]:
    """What is particular to it, in short."""
    found = []
    if service.response_bytes is not None or service.aggregates:
        own = "" if service.response_bytes is None else format_size(service.response_bytes)
        passed = "all that it was answered" if service.aggregates else ""
        found.append(f"answers {' and '.join(part for part in (own, passed) if part)}")
    if service.error_share:
        found.append(f"{100 * service.error_share:.3g} % errors")
    return found + demands(service)


def demands(service: GraphService) -> list[str]:
    """What it asks of its callers whatever the posture says."""
    found = [] if service.mtls is None else [f"mtls {service.mtls}"]
    return found if service.authorization is None else [*found, f"authorization {service.authorization}"]
