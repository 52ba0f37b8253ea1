"""Which service the client calls, of a file that names several, and what is left of the graph then. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshwise.core import messages
from meshwise.study.file.document import Path
from meshwise.study.file.problems import Problem, did_you_mean
from meshwise.study.graph.laws import Places, reached_from
from meshwise.study.graph.model import GraphService


@dataclass(frozen=True)
class Chosen:
    services: Sequence[GraphService]
    entrypoints: Sequence[str]
    """One; none where the file says none, which `check_graph` reports."""
    places: Places
    notes: tuple[str, ...] = ()


def choose_entry(
    services: Sequence[GraphService],
    entrypoints: Mapping[str, Path],
    places: Places,
    wanted: str | None,
    problems: list[Problem],
) -> Chosen:
    """`wanted`, or the one entrypoint, or of several the one that leads to the most services (the first of
    equals). What the chosen one does not lead to is left out where there was a choice, and said."""
    known = {service.name: service for service in services}
    if wanted is not None and wanted not in known:
        facts: dict[str, object] = {
            "text": wanted[:40], "kind": "service of this graph", "meant": did_you_mean(wanted, known),
            "known": ", ".join(f"`{name}`" for name in list(known)[:20]),
        }  # fmt: skip
        problems.append(Problem(places.root, messages.UNKNOWN_LEVEL, facts))
        return Chosen(services, (), places)
    others = [name for name in entrypoints if name != wanted]
    if wanted is None and len(others) < 2:
        return Chosen(services, others, places)
    entry = wanted or max(others, key=lambda name: len(reached_from(known, name)))
    others = [name for name in others if name != entry]
    reached = reached_from(known, entry)
    kept = [
        (service, at)
        for service, at in zip(services, places.services, strict=True)
        if service.name in reached
    ]
    calls = {pair: at for pair, at in places.calls.items() if pair[0] in reached}
    return Chosen(
        [service for service, _ in kept],
        [entry],
        Places(places.root, [at for _, at in kept], calls),
        _notes(entry, others, [name for name in known if name not in reached], wanted is None),
    )


def _notes(entry: str, others: list[str], left_out: list[str], by_itself: bool) -> tuple[str, ...]:
    found = []
    if by_itself:
        found.append(
            f"the client calls one entrypoint of {len(others) + 1}: `{entry}`, which leads to the most"
            f" services; `entry:` beside `graph:` chooses another ({_listed(others)})"
        )
    if left_out:
        found.append(f"left out, because `{entry}` does not lead to them: {_listed(left_out)}")
    return tuple(found)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"`{name}`" for name in names[:5]) + more
