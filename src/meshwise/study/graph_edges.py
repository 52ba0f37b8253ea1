"""A plain list of calls -> the services of a call graph, with places. Untrusted input.

    # who calls whom; comments and empty lines are left out
    client -> shop/front
    shop/front -> cart          # or `shop/front,cart`, or `shop/front cart`
    cart -> data/carts

A service calls all its callees at once. `ns/` says a service's namespace, once is enough. `client` marks
the entrypoint; without it the one service that nobody calls is it. A first line of `caller,callee` (or
`source,target`, `from,to`) is a heading. What is more (sizes, sleeps, security) needs the YAML form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from meshwise.core import messages
from meshwise.study.document import MAX_CHARACTERS, Document, Path, Place
from meshwise.study.graph import Call, Concurrent, GraphService
from meshwise.study.graph_laws import MAX_SERVICES, MAX_STEPS, Places, too_many
from meshwise.study.problems import Problem, impossible
from meshwise.study.topology import BACKEND, CLIENT

_HEADINGS = ({"source", "target"}, {"from", "to"}, {"caller", "callee"})
_SEPARATORS = ("->", ",", ";")


@dataclass
class _Drawn:
    """What the lines have said so far."""

    callees: dict[str, list[str]] = field(default_factory=dict)
    namespaces: dict[str, str] = field(default_factory=dict)
    first_at: dict[str, Path] = field(default_factory=dict)
    calls_at: dict[tuple[str, str], Path] = field(default_factory=dict)
    entrypoints: dict[str, Path] = field(default_factory=dict)


def parse_edges(
    text: str, name: str, problems: list[Problem]
) -> tuple[Document, list[GraphService], list[str], Places]:
    """Services in the order of their first line, the entrypoints, and where each is said.

    Raises MW108 for a text that is too long; all else is put to `problems`.
    """
    if len(text) > MAX_CHARACTERS:
        reason = f"{len(text)} characters are more than a graph needs"
        raise messages.TOO_LARGE.error(name, reason=reason, remedy=f"keep it under {MAX_CHARACTERS}")
    drawn = _Drawn()
    places: dict[Path, Place] = {(): Place(1, 1)}
    for number, words in _lines(text):
        paths: list[Path] = []
        for index, (column, _) in enumerate(words):
            paths.append((number, index))
            places[number, index] = Place(number, column)
        if len(words) != 2 or not all(word for _, word in words):
            places[number, 0] = Place(number, words[0][0])
            facts: dict[str, object] = {"reason": "not a call", "remedy": "write `caller -> callee`"}
            problems.append(Problem((number, 0), messages.BAD_VALUE, facts))
            continue
        _take(drawn, [word for _, word in words], paths, problems)
    document = Document(name, None, places, {})
    services = [_service(drawn, service) for service in drawn.callees]
    if len(services) > MAX_SERVICES:
        problems.append(too_many((), len(services)))
        return document, [], [], Places((), [], {}, [])
    entrypoints = dict(drawn.entrypoints)
    if not entrypoints:
        called = {callee for callees in drawn.callees.values() for callee in callees}
        roots = [service for service in drawn.callees if service not in called]
        entrypoints = {root: drawn.first_at[root] for root in roots}
    where = Places(
        (), [drawn.first_at[service.name] for service in services], drawn.calls_at,
        list(entrypoints.values()),
    )  # fmt: skip
    return document, services, list(entrypoints), where


def _lines(text: str) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """(line number, words with their columns) of every line that says something."""
    begun = False
    for number, line in enumerate(text.splitlines(), start=1):
        said = line.partition("#")[0].rstrip()
        if not said.strip():
            continue
        words = _words(said)
        if not begun and {word.lower() for _, word in words} in _HEADINGS:
            begun = True
            continue
        begun = True
        yield number, words


def _words(line: str) -> list[tuple[int, str]]:
    start = len(line) - len(line.lstrip())
    separator = next((rf"\s*{each}\s*" for each in _SEPARATORS if each in line), r"\s+")
    found = []
    position = start
    for match in re.finditer(separator, line[start:]):
        found.append((position + 1, line[position : start + match.start()].strip('"')))
        position = start + match.end()
    found.append((position + 1, line[position:].strip('"')))
    return found


def _take(drawn: _Drawn, words: list[str], paths: list[Path], problems: list[Problem]) -> None:
    names = []
    for word, path in zip(words, paths, strict=True):
        namespace, slash, name = word.rpartition("/")
        known = drawn.namespaces.get(name)
        if slash and known not in (None, namespace):
            reason = f"`{name}` was said to be in the namespace `{known}`"
            problems.append(impossible(path, reason, "a service has one namespace, and a name of its own"))
        elif slash:
            drawn.namespaces[name] = namespace
        names.append(name)
    caller, callee = names
    if caller == CLIENT:
        drawn.entrypoints.setdefault(callee, paths[1])
        drawn.callees.setdefault(callee, [])
        drawn.first_at.setdefault(callee, paths[1])
        return
    for name, path in zip(names, paths, strict=True):
        drawn.callees.setdefault(name, [])
        drawn.first_at.setdefault(name, path)
    if (caller, callee) in drawn.calls_at:
        facts: dict[str, object] = {"what": f"the call `{caller} -> {callee}`", "first": ""}
        problems.append(Problem(paths[0], messages.TWICE, facts))
        return
    drawn.calls_at[caller, callee] = paths[1]
    drawn.callees[caller].append(callee)
    if len(drawn.callees[caller]) == MAX_STEPS + 1:
        reason = f"`{caller}` calls more than {MAX_STEPS} services"
        problems.append(impossible(paths[1], reason, "fewer calls"))


def _service(drawn: _Drawn, name: str) -> GraphService:
    calls = tuple(Call(callee) for callee in drawn.callees[name])
    script = (Concurrent(calls),) if calls else ()
    return GraphService(name, drawn.namespaces.get(name, BACKEND), script)
