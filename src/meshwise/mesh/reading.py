"""YAML nodes that know their file and line, and refuse what nobody asked them for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import yaml

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError

T = TypeVar("T")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(text: str, file: str) -> Iterator[Node]:
    """Every document that is not empty. Raises MW401 where the text is not YAML."""
    try:
        for root in yaml.compose_all(text, Loader=_LOADER):
            if root is not None and not (isinstance(root, yaml.ScalarNode) and not root.value):
                node = Node(file, "", root)
                node.fields()
                yield node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        raise messages.RESOURCE_UNREADABLE.error(where, reason=error.problem or "not YAML") from error
    except yaml.YAMLError as error:
        raise messages.RESOURCE_UNREADABLE.error(file, reason=str(error)) from error


@dataclass(frozen=True)
class Node:
    """One value of a document. `path` is how a person would name it: `spec.rules[0].from`."""

    file: str
    path: str
    raw: yaml.Node

    @property
    def where(self) -> str:
        return f"{self.file}:{self.raw.start_mark.line + 1}"

    def empty(self) -> Node:
        """An empty mapping in this place, for a part that was left out."""
        mark = self.raw.start_mark
        return Node(self.file, self.path, yaml.MappingNode("tag:yaml.org,2002:map", [], mark, mark))

    def fields(self) -> Mapping[str, Node]:
        """Key to value. Raises MW401 when this is not a mapping, or a key comes twice."""
        if not isinstance(self.raw, yaml.MappingNode):
            raise self._unreadable("expected a mapping")
        found: dict[str, Node] = {}
        for key, value in self.raw.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in found:
                raise Node(self.file, self.path, key)._unreadable("expected each key once, as plain text")
            found[key.value] = Node(self.file, f"{self.path}.{key.value}".lstrip("."), value)
        return found

    def elements(self) -> tuple[Node, ...]:
        if not isinstance(self.raw, yaml.SequenceNode):
            raise self._unreadable("expected a list")
        return tuple(
            Node(self.file, f"{self.path}[{index}]", value) for index, value in enumerate(self.raw.value)
        )

    def text(self) -> str:
        if not isinstance(self.raw, yaml.ScalarNode):
            raise self._unreadable("expected plain text")
        return str(self.raw.value)

    def texts(self) -> tuple[str, ...]:
        return tuple(each.text() for each in self.elements())

    def get(self, name: str) -> Node | None:
        return self.fields().get(name)

    def need(self, name: str) -> Node:
        node = self.get(name)
        if node is None:
            raise self._unreadable(f"`{name}` is missing")
        return node

    def list_of(self, name: str) -> tuple[Node, ...]:
        node = self.get(name)
        return node.elements() if node else ()

    def number(self, name: str) -> int | None:
        node = self.get(name)
        if node is None:
            return None
        if not node.text().isdigit():
            raise node._unreadable("expected a whole number")
        return int(node.text())

    def one_of(self, choices: Mapping[str, T]) -> T:
        """The choice that is written here. Raises MW402."""
        if self.text() not in choices:
            raise self.beyond(self.text(), "this value is not known here", choices)
        return choices[self.text()]

    def only(self, *allowed: str) -> None:
        """Raises MW402 for any other key."""
        for name, node in self.fields().items():
            if name not in allowed:
                raise node.beyond(node.path, "this field is not translated", allowed)

    def beyond(self, what: str, reason: str, understood: Iterable[str]) -> MeshwiseError:
        return messages.RESOURCE_BEYOND.error(
            self.where, what=what, reason=reason, understood=", ".join(understood)
        )

    def _unreadable(self, reason: str) -> MeshwiseError:
        path = f"`{self.path}`: " if self.path else ""
        return messages.RESOURCE_UNREADABLE.error(self.where, reason=path + reason)
