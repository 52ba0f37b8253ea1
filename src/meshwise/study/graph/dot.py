"""Graphviz' DOT -> `CalledServices`, with places. Untrusted input.

The part of the language (https://graphviz.org/doc/info/lang.html) that says who calls whom: one `digraph`
with node, edge and attribute statements, chains (`a -> b -> c`), groups (`a -> {b c}`), subgraphs, ports
(left out), names that are bare, quoted or HTML-like, and comments. Attributes with amounts of an edge are
read (`counted`), all others are for drawing only. Undirected graphs do not say who calls and are refused.
A parser of its own: packages that read DOT need Graphviz or a grammar library, and do not give the place of
what they refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.study.file.document import MAX_CHARACTERS, MAX_DEPTH, Document, FilePosition, Path
from meshwise.study.file.problems import Problem
from meshwise.study.graph.counted import COUNTED_WORDS, PER_CALL_WORDS, CalledServices
from meshwise.study.graph.edges import amount_of, is_beyond
from meshwise.study.graph.laws import MAX_CALLS

_TOKEN = re.compile(
    r"""(?P<blank>\s+|//[^\n]*|^\#[^\n]*|/\*.*?\*/)
      | (?P<id>[^\W\d]\w*|-?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)|"(?:[^"\\]|\\.)*")
      | (?P<mark>->|--|[{}\[\];,=:+])""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_ANGLE = re.compile("[<>]")
_WORDS = ("graph", "digraph", "node", "edge", "subgraph", "strict")


@dataclass(frozen=True)
class _Token:
    kind: str
    """`id`, `mark`, or `end`."""
    text: str
    at: int
    quoted: bool = False

    def is_word(self, *words: str) -> bool:
        return self.kind == "id" and not self.quoted and self.text.lower() in words


def parse_dot(text: str, name: str, problems: list[Problem]) -> tuple[Document, CalledServices]:
    """Raises MW1xx for a text that is none; amounts and names that are wrong are put to `problems`."""
    if len(text) > MAX_CHARACTERS:
        reason = f"{len(text)} characters are more than a graph needs"
        raise messages.TOO_LARGE.error(name, reason=reason, remedy=f"keep it under {MAX_CHARACTERS}")
    reader = _DotReader(text, name, problems)
    reader.graph()
    return Document(name, None, reader.places, {}), reader.found


class _DotReader:
    """Goes through the tokens once; afterwards `found` and `places` are complete."""

    def __init__(self, text: str, name: str, problems: list[Problem]) -> None:
        self.found = CalledServices()
        self.places: dict[Path, FilePosition] = {(): FilePosition(1, 1)}
        self._text, self._name, self._problems = text, name, problems
        self._tokens = self._all_tokens()
        self._next = next(self._tokens)
        self._depth = self._calls = 0
        self._strict = False
        self._edge: dict[str, str] = {}
        """What `edge [...]` says of the edges behind it, up to the end of its group."""
        self._amounts: set[bool] = set()
        """Whether per call or counted, of those that stood there."""

    def graph(self) -> None:
        if self._next.is_word("strict"):
            self._strict = True
            self._take()
        if self._next.is_word("graph"):
            raise self._bad("an undirected graph does not say who calls", "`digraph`, and `->` in its edges")
        if not self._next.is_word("digraph"):
            raise self._bad("a drawing begins with `digraph`", "for example `digraph shop { front -> cart }`")
        self._take()
        if self._next.kind == "id":
            self._take()
        self._statements()
        if self._next.kind != "end":
            raise self._bad(f"`{self._next.text[:40]}` behind the end of the graph", "one graph per file")

    def _statements(self) -> list[str]:
        """The services that stand between braces."""
        self._expect("{")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._bad(f"more than {MAX_DEPTH} groups inside each other", "fewer levels")
        services: list[str] = []
        outside = self._edge
        while not self._is("}"):
            if self._is(";", ","):
                self._take()
            elif self._next.is_word("graph", "node", "edge"):
                of_edges = self._next.is_word("edge")
                self._take()
                said = self._attributes()
                self._edge = {**self._edge, **said} if of_edges else self._edge
            else:
                services += self._statement()
        self._take()
        self._edge = outside
        self._depth -= 1
        return services

    def _statement(self) -> list[str]:
        ends = [self._end()]
        if len(ends[0]) == 1 and self._is("="):  # `rankdir=LR` is no node
            self._take()
            self._take_id()
            return []
        while self._is("->", "--"):
            if self._is("--"):
                raise self._bad("`--` does not say who calls", "`->`")
            self._take()
            ends.append(self._end())
        at = self._path(self._next)
        amount = (
            self._amount({**self._edge, **self._attributes()}, at)
            if len(ends) > 1
            else self._skip_attributes()
        )
        for callers, callees in pairwise(ends):
            self._calls += len(callers) * len(callees)
            if self._calls > MAX_CALLS:
                raise self._bad(f"more than {MAX_CALLS} calls", "keep the part that the question is about")
            for caller, caller_at in callers:
                for callee, callee_at in callees:
                    if self._strict and (caller, callee) in self.found.amounts:
                        continue  # one edge, however often it is drawn
                    self.found.call(caller, callee, amount, caller_at, callee_at)
        if len(ends) == 1:
            for service, where in ends[0]:
                self.found.take(service, where)
        return [service for end in ends for service, _ in end]

    def _end(self) -> list[tuple[str, Path]]:
        """One end of an edge: a node, or all of a group."""
        if self._next.is_word("subgraph"):
            self._take()
            if self._next.kind == "id":
                self._take()
        if self._is("{"):
            at = self._path(self._next)
            return [(service, at) for service in dict.fromkeys(self._statements())]
        token = self._next
        said = self._take_id()
        while self._is(":"):
            self._take()
            self._take_id()
        path = self._path(token)
        if self._is("="):
            return [(said, path)]
        return [(self.found.label(said, path, self._problems), path)]

    def _attributes(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while self._is("["):
            self._take()
            while not self._is("]"):
                key = self._take_id()
                value = "true"
                if self._is("="):
                    self._take()
                    value = self._take_id()
                found[key.lower()] = value
                if self._is(";", ","):
                    self._take()
            self._take()
        return found

    def _skip_attributes(self) -> float:
        self._attributes()
        return 1.0

    def _amount(self, said: dict[str, str], at: Path) -> float:
        name = next((each for each in (*PER_CALL_WORDS, *COUNTED_WORDS) if each in said), None)
        counted = name in COUNTED_WORDS
        self._amounts.add(counted)
        if len(self._amounts) > 1:
            raise self._bad(
                "some edges have counted calls and some have none", "say them of every edge, or of none"
            )
        self.found.counted = counted
        if name is None:
            return 1.0
        amount = amount_of(said[name], not counted)
        if amount is None or is_beyond(name, amount):
            facts: dict[str, object] = {
                "reason": f"`{name}={said[name][:40]}` does not say how often",
                "remedy": "a number above 0" if amount is None else "a probability is at most 1",
            }
            self._problems.append(Problem(at, messages.BAD_VALUE, facts))
        return amount or 1.0

    # --- tokens ----------------------------------------------------------------------------------------

    def _all_tokens(self) -> Iterator[_Token]:
        position = 0
        while position < len(self._text):
            if self._text[position] == "<":
                end = self._html_end(position)
                yield _Token("id", self._text[position + 1 : end - 1], position, quoted=True)
                position = end
                continue
            match = _TOKEN.match(self._text, position)
            if match is None:
                shown = self._text[position : position + 20].split("\n")[0]
                raise self._bad_at(position, f"`{shown}` is not DOT", "see docs/graphs.md for what is read")
            if match["id"] and match["id"].startswith('"'):
                plain = re.sub(r'\\(["\n])', lambda found: found[1].strip("\n"), match["id"][1:-1])
                yield _Token("id", plain, position, quoted=True)
            elif match["id"] or match["mark"]:
                yield _Token("id" if match["id"] else "mark", match[0], position)
            position = match.end()
        while True:
            yield _Token("end", "", len(self._text))

    def _html_end(self, start: int) -> int:
        depth = 0
        for match in _ANGLE.finditer(self._text, start):
            depth += 1 if match[0] == "<" else -1
            if not depth:
                return match.end()
        raise self._bad_at(start, "this `<` has no `>`", "close it")

    def _is(self, *marks: str) -> bool:
        return self._next.kind == "mark" and self._next.text in marks

    def _take(self) -> None:
        self._next = next(self._tokens)

    def _expect(self, mark: str) -> None:
        if not self._is(mark):
            raise self._bad(f"{self._shown} where `{mark}` is due", "correct the line")
        self._take()

    def _take_id(self) -> str:
        if self._next.kind != "id" or self._next.is_word(*_WORDS):
            raise self._bad(
                f"{self._shown} where a name is due", "correct the line, or put the name in quotes"
            )
        text = self._next.text
        self._take()
        while self._is("+"):
            self._take()
            text += self._next.text
            self._take()
        return text

    @property
    def _shown(self) -> str:
        return f"`{self._next.text[:40]}`" if self._next.kind != "end" else "the file ends"

    def _path(self, token: _Token) -> Path:
        self.places[(token.at,)] = self._place(token.at)
        return (token.at,)

    def _place(self, at: int) -> FilePosition:
        return FilePosition(self._text.count("\n", 0, at) + 1, at - (self._text.rfind("\n", 0, at) + 1) + 1)

    def _bad(self, reason: str, remedy: str) -> MeshwiseError:
        return self._bad_at(self._next.at, reason, remedy)

    def _bad_at(self, at: int, reason: str, remedy: str) -> MeshwiseError:
        place = self._place(at)
        where = f"{self._name}:{place.line}:{place.column}"
        return messages.BAD_VALUE.error(where, reason=reason, remedy=remedy)
