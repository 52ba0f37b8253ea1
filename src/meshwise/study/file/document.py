"""YAML text -> plain lists, dicts and strings, with the place of each. Untrusted input.

Rules of this file:
- Every scalar stays text: units and enumerations are ours, and YAML's own guesses (`no` is false, `1:30`
  is ninety) are traps. What is empty or `null` is None.
- Only what a study needs: no tags, anchors, aliases or merge keys, hence no alias bomb. The events of the
  parser are composed with an explicit stack, and size and depth are bounded, hence no recursion.
- A key that stands twice is refused with both places (YAML 1.2, 3.2.1.1; PyYAML keeps the last).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError

MAX_CHARACTERS = 128 * 1024
MAX_DEPTH = 12

Path = tuple[str | int, ...]
"""Keys and indices from the top: `("factors", "rate", 0)`."""


@dataclass(frozen=True)
class FilePosition:
    """A position in a file, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """What the text says and where each part of it stands."""

    name: str
    """The file's name, for messages."""
    value: Any
    value_places: Mapping[Path, FilePosition]
    key_places: Mapping[Path, FilePosition]

    def where(self, path: Path, *, key: bool = False) -> str:
        """`file:line:column` of the value (or key) at `path`, or of the nearest part that has a place."""
        places = self.key_places if key else self.value_places
        for end in range(len(path), -1, -1):
            place = places.get(path[:end]) or self.value_places.get(path[:end])
            if place is not None:
                return f"{self.name}:{place.line}:{place.column}"
        return self.name


def parse_document(text: str, name: str) -> Document:
    """Raises MW102 (not YAML), MW108 (too large), MW110 (a key twice), MW111 (refused feature)."""
    if len(text) > MAX_CHARACTERS:
        raise messages.TOO_LARGE.error(
            name,
            reason=f"{len(text)} characters are more than a study needs",
            remedy=f"keep it under {MAX_CHARACTERS}",
        )
    composer = _Composer(name)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise messages.NOT_YAML.error(where, reason=_reason(error)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        code = ord(text[error.position])
        reason = f"the character U+{code:04X} is not allowed"
        raise messages.NOT_YAML.error(f"{name}:{line}:{column}", reason=reason) from error
    return Document(name, composer.value, composer.value_places, composer.key_places)


def _reason(error: yaml.MarkedYAMLError) -> str:
    reason = ", ".join(part for part in (error.context, error.problem) if part)
    if "\\t" in reason or "'\\t'" in reason:
        return "a tab cannot indent; use spaces"
    return re.sub(r"\s+", " ", reason)


@dataclass
class _Open:
    """A list or mapping that is being filled."""

    path: Path
    container: list[Any] | dict[str, Any]
    key: str | None = None


class _Composer:
    """Takes parser events, one by one; afterwards `value` and the places are complete."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.value: Any = None
        self.value_places: dict[Path, FilePosition] = {}
        self.key_places: dict[Path, FilePosition] = {}
        self._stack: list[_Open] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._feature(event, "several documents in one file", "keep one study per file")
            case yaml.AliasEvent():
                raise self._feature(event, "anchors and aliases", "write the value out")
            case yaml.ScalarEvent() | yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._node(event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._stack.pop()

    def _node(self, event: Any) -> None:
        if event.anchor is not None:
            raise self._feature(event, "anchors and aliases", "write the value out")
        if event.tag is not None and event.tag != "!":
            raise self._feature(event, "tags", f"remove `{event.tag}`")
        if isinstance(event, yaml.ScalarEvent):
            if self._takes_key():
                self._start_key(event)
            else:
                plain_null = event.style is None and event.value in ("", "~", "null")
                self._place(event, None if plain_null else event.value)
            return
        if self._takes_key():
            raise self._feature(event, "keys that are not plain words", "write a word before the colon")
        if len(self._stack) >= MAX_DEPTH:
            raise messages.TOO_LARGE.error(
                self._at(event), reason=f"more than {MAX_DEPTH} levels deep", remedy="fewer levels"
            )
        container: list[Any] | dict[str, Any] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        self._stack.append(_Open(self._place(event, container), container))

    def _takes_key(self) -> bool:
        return (
            bool(self._stack) and isinstance(self._stack[-1].container, dict) and self._stack[-1].key is None
        )

    def _start_key(self, event: yaml.ScalarEvent) -> None:
        top = self._stack[-1]
        path = (*top.path, event.value)
        if event.value == "<<":
            raise self._feature(event, "merge keys", "write the keys out")
        if path in self.key_places:
            first = f"; the first is in line {self.key_places[path].line}"
            raise messages.TWICE.error(self._at(event), what=f"the key `{event.value}`", first=first)
        self.key_places[path] = _place(event)
        top.key = event.value

    def _place(self, event: Any, value: Any) -> Path:
        """Put the value where it belongs; returns its path."""
        path: Path = ()
        if not self._stack:
            self.value = value
        else:
            top = self._stack[-1]
            if isinstance(top.container, list):
                path = (*top.path, len(top.container))
                top.container.append(value)
            else:
                assert top.key is not None
                path = (*top.path, top.key)
                top.container[top.key] = value
                top.key = None
        self.value_places[path] = _place(event)
        return path

    def _at(self, event: Any) -> str:
        place = _place(event)
        return f"{self.name}:{place.line}:{place.column}"

    def _feature(self, event: Any, feature: str, remedy: str) -> MeshwiseError:
        return messages.YAML_FEATURE.error(self._at(event), feature=feature, remedy=remedy)


def _place(event: Any) -> FilePosition:
    return FilePosition(event.start_mark.line + 1, event.start_mark.column + 1)
