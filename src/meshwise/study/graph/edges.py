"""A plain list of calls -> `CalledServices`, with places. Untrusted input.

    # who calls whom; comments and empty lines are left out
    client -> shop/front
    shop/front -> cart          # or `shop/front,cart`, or `shop/front cart`
    cart -> data/carts

`ns/` says a service's namespace, once is enough. `client` marks an entrypoint; without it what is not called
is one. A first line of names that are known as headings (`caller,callee`, `source,target,weight`, ...) is a
heading, and says which column is which, in any order. A third column says how often: under
`calls_per_request` and `probability` per call of the caller, under any other heading (or none) as counted
calls. A first line that shares no name with the others is an unknown heading: it is refused, for its
words would be services. What is more (sizes, sleeps, security) needs the YAML form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from meshwise.core import messages
from meshwise.study.file.document import MAX_CHARACTERS, Document, FilePosition, Path
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.graph.counted import COUNTED_WORDS, PER_CALL_WORDS, CalledServices
from meshwise.study.topology import CLIENT

_CALLER_WORDS = frozenset({"caller", "source", "from", "parent", "src", "um"})
_CALLEE_WORDS = frozenset({"callee", "target", "to", "child", "dst", "dm", "destination"})
_SEPARATORS = ("->", ",", ";")
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?(?:[eE][-+]?[0-9]{1,2})?)(%?)")


@dataclass(frozen=True)
class _Columns:
    """Where things stand in a row, and how many cells it has."""

    count: int
    caller: int = 0
    callee: int = 1
    amount: int | None = None
    amount_name: str = ""


def parse_edges(text: str, name: str, problems: list[Problem]) -> tuple[Document, CalledServices]:
    """Raises MW108 for a text that is too long; all else is put to `problems`."""
    if len(text) > MAX_CHARACTERS:
        reason = f"{len(text)} characters are more than a graph needs"
        raise messages.TOO_LARGE.error(name, reason=reason, remedy=f"keep it under {MAX_CHARACTERS}")
    found = CalledServices()
    places: dict[Path, FilePosition] = {(): FilePosition(1, 1)}
    columns: _Columns | None = None
    unnamed: tuple[int, list[str]] | None = None
    for number, words in _lines(text):
        for index, (column, _) in enumerate(words):
            places[number, index] = FilePosition(number, column)
        said = [word for _, word in words]
        if columns is None:
            heading = _heading(said)
            plain = _Columns(3, amount=2) if len(said) == 3 and amount_of(said[2], False) else _Columns(2)
            columns = heading or plain
            found.counted = columns.amount is not None and columns.amount_name not in PER_CALL_WORDS
            if heading:
                continue
            if "->" not in text.splitlines()[number - 1]:
                unnamed = number, said
        if len(said) != columns.count or not all(said[each] for each in (columns.caller, columns.callee)):
            places[number, 0] = FilePosition(number, words[0][0])
            how = " and how often" if columns.amount is not None else ""
            facts: dict[str, object] = {"reason": "not a call", "remedy": f"write `caller -> callee`{how}"}
            problems.append(Problem((number, 0), messages.BAD_VALUE, facts))
            continue
        _take(found, said, number, columns, problems)
    if unnamed is not None and not problems:
        _suspect(found, *unnamed, problems)
    return Document(name, None, places, {}), found


def amount_of(text: str, per_call: bool) -> float | None:
    """How often; None for what is no amount above 0. Per cent only of a probability."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or (match[2] and not per_call):
        return None
    amount = float(match[1]) / (100 if match[2] else 1)
    return amount if 0 < amount < 1e15 else None


def is_beyond(name: str, amount: float) -> bool:
    """A probability above 1, which per cent without their sign would be."""
    return name == "probability" and amount > 1


def _heading(words: list[str]) -> _Columns | None:
    """None where it is none. Of more than three columns those without a known word have no effect."""
    lower = [word.lower() for word in words]
    callers = [index for index, word in enumerate(lower) if word in _CALLER_WORDS]
    callees = [index for index, word in enumerate(lower) if word in _CALLEE_WORDS]
    if len(callers) != 1 or len(callees) != 1:
        return None
    others = [index for index in range(len(lower)) if index not in (*callers, *callees)]
    if len(others) > 1:
        others = [index for index in others if lower[index] in (*PER_CALL_WORDS, *COUNTED_WORDS)]
    amount = others[0] if len(others) == 1 else None
    name = "" if amount is None else lower[amount]
    return _Columns(len(lower), callers[0], callees[0], amount, name)


def _suspect(found: CalledServices, line: int, words: list[str], problems: list[Problem]) -> None:
    """Refuses a first line whose names stand nowhere else: it is a heading of words that are not known."""
    first = {word.rpartition("/")[2] for word in words[:2]}
    others = [pair for pair in found.amounts if set(pair) != first]
    if others and CLIENT not in first and not any(first & set(pair) for pair in others):
        shown = ",".join(words)[:40]
        facts: dict[str, object] = {
            "reason": f"`{shown}` shares no name with the other lines: it seems to be a heading",
            "remedy": "name the columns `caller,callee`; if it is a call, put that line above it",
        }
        problems.append(Problem((line, 0), messages.BAD_VALUE, facts))


def _lines(text: str) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """(line number, words with their columns) of every line that says something."""
    for number, line in enumerate(text.splitlines(), start=1):
        said = line.partition("#")[0].rstrip()
        if said.strip():
            yield number, _words(said)


def _words(line: str) -> list[tuple[int, str]]:
    start = len(line) - len(line.lstrip())
    if "->" in line:  # `a -> b, 3` has two kinds of separators
        separator = (
            r"\s*(?:->|,|;)\s*" if re.search(r"->.*[,;]", line) else r"\s*->\s*|(?<=\S)\s+(?=[0-9.]+%?$)"
        )
    else:
        separator = next((rf"\s*{each}\s*" for each in _SEPARATORS if each in line), r"\s+")
    found = []
    position = start
    for match in re.finditer(separator, line[start:]):
        found.append((position + 1, line[position : start + match.start()].strip('"')))
        position = start + match.end()
    found.append((position + 1, line[position:].strip('"')))
    return found


def _take(
    found: CalledServices, words: list[str], line: int, columns: _Columns, problems: list[Problem]
) -> None:
    names = []
    for index in (columns.caller, columns.callee):
        word = words[index]
        namespace, slash, name = word.rpartition("/")
        known = found.namespaces.get(name)
        if slash and known not in (None, namespace):
            reason = f"`{name}` was said to be in the namespace `{known}`"
            problems.append(
                impossible((line, index), reason, "a service has one namespace, and a name of its own")
            )
        elif slash:
            found.namespaces[name] = namespace
        names.append(name)
    amount: float | None = 1.0
    if columns.amount is not None:
        said = words[columns.amount]
        amount = amount_of(said, columns.amount_name in PER_CALL_WORDS)
        if amount is None or is_beyond(columns.amount_name, amount):
            facts: dict[str, object] = {
                "reason": f"`{said[:40]}` does not say how often",
                "remedy": "a number above 0; leave a call that never happens out",
            }
            if amount is not None:
                facts = {
                    "reason": f"the probability `{said[:40]}` is beyond 1",
                    "remedy": f"`{said[:40]}%` for per cent; above 1 the heading `calls_per_request`",
                }
            problems.append(Problem((line, columns.amount), messages.BAD_VALUE, facts))
            return
    assert amount is not None
    found.call(names[0], names[1], amount, (line, columns.caller), (line, columns.callee))
