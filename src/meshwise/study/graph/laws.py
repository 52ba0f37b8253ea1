"""What a call graph must hold before anything is built from it, each mistake said with its place in the file.

A graph comes from people and from other tools, so its size is bounded in every direction: services, steps,
calls that one request makes (a few lines can ask for 2^99 of them), sleeps and bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshwise.core import messages
from meshwise.core.units import format_duration, format_size
from meshwise.study.file.document import Path
from meshwise.study.file.problems import Problem, did_you_mean, impossible
from meshwise.study.graph.model import GraphService, ServiceGraph
from meshwise.study.graph.sums import longest_sleep_ns, most_answer_bytes, most_calls
from meshwise.study.security import Authorization, MtlsMode
from meshwise.study.topology import CLIENT

MAX_SERVICES = 100
MAX_STEPS = 64
"""In a script, and at once in one of its steps."""
MAX_CALLS = 1000
"""Calls between services that one request may make."""
MAX_SLEEP_NS = 4 * 10**9
"""A node waits 5 s for an answer (`service.spec.DEADLINE_NS`)."""
MAX_BYTES = 16 * 2**20

RESERVED_NAMES = (CLIENT, "outsider")
"""Pods that stand beside the graph: the instrument's, and the one without a sidecar."""
RESERVED_NAMESPACES = ("istio-system", "linkerd")
"""Where a mesh's own policies would count for everybody."""

_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Places:
    """Where the file says what."""

    root: Path
    services: Sequence[Path]
    """Each service's name, in order."""
    calls: Mapping[tuple[str, str], Path]
    """By caller and callee, the first of their calls."""


def is_label(text: str) -> bool:
    """Whether Kubernetes takes it as the name of a Service (RFC 1035)."""
    return _LABEL.fullmatch(text) is not None


def check_graph(
    services: Sequence[GraphService], entrypoints: Sequence[str], places: Places, problems: list[Problem]
) -> None:
    """All laws; those that need a sound graph only where the others hold. At most one entrypoint."""
    before = len(problems)
    _names(services, places, problems)
    known = {service.name: service for service in services}
    for (caller, callee), path in places.calls.items():
        if callee not in known:
            reason = f"`{caller}` calls `{callee}`, which is no service here{did_you_mean(callee, known)}"
            problems.append(impossible(path, reason, "add the service, or correct the name"))
    # Before the entrypoint: where all are called by others, there is none because of this.
    if len(problems) == before and (cycle := _cycle(known)):
        path = places.calls[cycle[-2], cycle[-1]]
        reason = f"the calls go round: {' -> '.join(cycle)}"
        problems.append(impossible(path, reason, "a request must come to an end; remove one of these calls"))
        return
    _entrypoint(services, entrypoints, places, problems)
    if len(problems) > before:
        return
    reached = reached_from(known, entrypoints[0])
    for service, path in zip(services, places.services, strict=True):
        if service.name not in reached:
            reason = f"no request gets to `{service.name}`"
            remedy = f"let a service call it that `{entrypoints[0]}` leads to, or remove it"
            problems.append(impossible(path, reason, remedy))
    if len(problems) == before:
        _sizes(ServiceGraph("", _entry_first(services, entrypoints[0])), places, problems)


def too_many(path: Path, count: int) -> Problem:
    facts: dict[str, object] = {
        "reason": f"{count} services are more than fit on one machine (at most {MAX_SERVICES})",
        "remedy": "keep the part of the graph that the question is about",
    }
    return Problem(path, messages.TOO_LARGE, facts)


def _entry_first(services: Sequence[GraphService], entry: str) -> tuple[GraphService, ...]:
    return tuple(sorted(services, key=lambda service: service.name != entry))


def _names(services: Sequence[GraphService], places: Places, problems: list[Problem]) -> None:
    seen: set[str] = set()
    for service, path in zip(services, places.services, strict=True):
        for what, text, reserved in (
            ("service", service.name, RESERVED_NAMES),
            ("namespace", service.namespace, RESERVED_NAMESPACES),
        ):
            if not is_label(text):
                shown = text if len(text) <= 70 else f"{text[:70]}..."
                reason = f"`{shown}` cannot be the name of a {what}"
                remedy = "lower-case letters, digits and `-`, a letter first, at most 63"
                problems.append(Problem(path, messages.BAD_VALUE, {"reason": reason, "remedy": remedy}))
            elif text in reserved:
                reason, remedy = f"the {what} `{text}` is one of meshwise's own", "choose another name"
                problems.append(impossible(path, reason, remedy))
        if service.name in seen:
            facts: dict[str, object] = {"what": f"the service `{service.name}`", "first": ""}
            problems.append(Problem(path, messages.TWICE, facts))
        seen.add(service.name)
        if service.mtls is MtlsMode.DISABLE and service.authorization in (
            Authorization.NAMESPACE,
            Authorization.FINE,
        ):
            reason = f"authorization `{service.authorization}` asks who calls, which without mutual"
            problems.append(
                impossible(path, f"{reason} TLS is not known", "another `mtls`, or another authorization")
            )


def _entrypoint(
    services: Sequence[GraphService], entrypoints: Sequence[str], places: Places, problems: list[Problem]
) -> None:
    if entrypoints:
        return
    called = {callee for service in services for callee in service.callees}
    free = [service.name for service in services if service.name not in called]
    hint = f"; no other service calls {', '.join(f'`{name}`' for name in free[:5])}" if free else ""
    remedy = f"mark the service that the client calls{hint}"
    problems.append(impossible(places.root, "the graph has no entrypoint", remedy))


def _cycle(known: Mapping[str, GraphService]) -> list[str]:
    """A way round that ends where it begins; empty if there is none."""
    done: set[str] = set()
    for start in known:
        way: list[str] = []
        waiting = [(start, False)]
        while waiting:
            name, left = waiting.pop()
            if left:
                done.add(way.pop())
            elif name in way:
                return [*way[way.index(name) :], name]
            elif name not in done:
                way.append(name)
                waiting.append((name, True))
                waiting += [(callee, False) for callee in known[name].callees]
    return []


def reached_from(known: Mapping[str, GraphService], entry: str) -> set[str]:
    """What requests to `entry` get to, itself included. Calls to what is no service are passed over."""
    found, front = {entry}, [entry]
    while front:
        front = [callee for name in front for callee in known[name].callees if callee in known]
        front = list(dict.fromkeys(callee for callee in front if callee not in found))
        found |= set(front)
    return found


def _sizes(graph: ServiceGraph, places: Places, problems: list[Problem]) -> None:
    if (calls := most_calls(graph)) > MAX_CALLS:
        shown = str(calls) if calls < 10**9 else "more than 10^9"
        reason = f"one request would make {shown} calls (at most {MAX_CALLS})"
        problems.append(impossible(places.root, reason, "fewer calls to services that call many others"))
    if (sleep_ns := longest_sleep_ns(graph)) > MAX_SLEEP_NS:
        reason = f"a request would sleep for {format_duration(sleep_ns)}"
        remedy = f"at most {format_duration(MAX_SLEEP_NS)}, over the slowest way"
        problems.append(impossible(places.root, reason, remedy))
    if (size := most_answer_bytes(graph, 0)) > MAX_BYTES:
        reason = f"an answer would be {format_size(size)} long"
        problems.append(impossible(places.root, reason, f"at most {format_size(MAX_BYTES)}"))
