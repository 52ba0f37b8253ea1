"""A plain list of calls -> `CalledServices`, with places. Untrusted input.

    # who calls whom; comments and empty lines are left out
    client -> shop/front
    shop/front -> cart          # or `shop/front,cart`, or `shop/front cart`
    cart -> data/carts

`ns/` says a service's namespace, once is enough. `client` marks an entrypoint; without it what is not called
is one. A first line of names that are known as headings (`caller,callee`, `source,target,weight`, ...) is a
heading. A third column says how often: under `calls_per_request` and `probability` per call of the caller,
under any other heading (or none) as counted calls. What is more (sizes, sleeps, security) needs the YAML
form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshwise.core import messages
from meshwise.study.file.document import MAX_CHARACTERS, Document, FilePosition, Path
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.graph.counted import PER_CALL_WORDS, CalledServices

_HEADINGS = (
    ("source", "target"), ("from", "to"), ("caller", "callee"), ("parent", "child"), ("src", "dst"),
    ("um", "dm"),
)  # fmt: skip
_SEPARATORS = ("->", ",", ";")
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?(?:[eE][-+]?[0-9]{1,2})?)(%?)")


def parse_edges(text: str, name: str, problems: list[Problem]) -> tuple[Document, CalledServices]:
    """Raises MW108 for a text that is too long; all else is put to `problems`."""
    if len(text) > MAX_CHARACTERS:
        reason = f"{len(text)} characters are more than a graph needs"
        raise messages.TOO_LARGE.error(name, reason=reason, remedy=f"keep it under {MAX_CHARACTERS}")
    found = CalledServices()
    places: dict[Path, FilePosition] = {(): FilePosition(1, 1)}
    columns, per_call = 0, False
    for number, words in _lines(text):
        for index, (column, _) in enumerate(words):
            places[number, index] = FilePosition(number, column)
        said = [word for _, word in words]
        if not columns:
            heading = _is_heading(said)
            per_call = heading and said[-1].lower() in PER_CALL_WORDS
            columns = 3 if len(said) == 3 and (heading or amount_of(said[2], False)) else 2
            found.counted = columns == 3 and not per_call
            if heading:
                continue
        if len(said) != columns or not all(said):
            places[number, 0] = FilePosition(number, words[0][0])
            how = " and how often" if columns > 2 else ""
            facts: dict[str, object] = {"reason": "not a call", "remedy": f"write `caller -> callee`{how}"}
            problems.append(Problem((number, 0), messages.BAD_VALUE, facts))
            continue
        _take(found, said, number, per_call, problems)
    return Document(name, None, places, {}), found


def amount_of(text: str, per_call: bool) -> float | None:
    """How often; None for what is no amount above 0. Per cent only of a probability."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or (match[2] and not per_call):
        return None
    amount = float(match[1]) / (100 if match[2] else 1)
    return amount if 0 < amount < 1e15 else None


def _is_heading(words: list[str]) -> bool:
    known = {word for pair in _HEADINGS for word in pair}
    lower = [word.lower() for word in words]
    return len(lower) in (2, 3) and len(set(lower)) == len(lower) and set(lower[:2]) <= known


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
    found: CalledServices, words: list[str], line: int, per_call: bool, problems: list[Problem]
) -> None:
    names = []
    for index, word in enumerate(words[:2]):
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
    amount = amount_of(words[2], per_call) if len(words) > 2 else 1.0
    if amount is None:
        facts: dict[str, object] = {
            "reason": f"`{words[2][:40]}` does not say how often",
            "remedy": "a number above 0; leave a call that never happens out",
        }
        problems.append(Problem((line, 2), messages.BAD_VALUE, facts))
        return
    found.call(names[0], names[1], amount, (line, 0), (line, 1))
