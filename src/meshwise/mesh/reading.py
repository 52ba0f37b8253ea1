"""YAML nodes that know their file and line, and refuse keys that are not read.

Kubernetes reads YAML 1.1 as go-yaml does, and its API server takes no number or boolean for text. So a plain
`y`, `1e3` or `null` is refused where text is expected (`other_than_text`), as `kubectl apply` would be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import yaml

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError

T = TypeVar("T")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TRUE = frozenset(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"])
_FALSE = frozenset(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"])
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_NUMBER = re.compile(
    r"[-+]?(0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*"
    r"|(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))|\.(nan|NaN|NAN)"
)


def other_than_text(plain: str) -> str | None:
    """What Kubernetes takes a value without quotes for, in words; None for text. (go.yaml.in/yaml v2,
    resolve.go.)"""
    if plain in _TRUE or plain in _FALSE:
        return "a boolean"
    if plain in _NULL:
        return "nothing"
    return "a number" if _NUMBER.fullmatch(plain) else None


def documents(text: str, file: str) -> Iterator[DocumentNode]:
    """Every document that is not empty. Raises MW401 where the text is not YAML."""
    try:
        for root in yaml.compose_all(text, Loader=_LOADER):
            if root is not None and not (isinstance(root, yaml.ScalarNode) and not root.value):
                node = DocumentNode(file, "", root)
                node.fields()
                yield node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        raise messages.RESOURCE_UNREADABLE.error(where, reason=error.problem or "not YAML") from error
    except yaml.YAMLError as error:
        raise messages.RESOURCE_UNREADABLE.error(file, reason=str(error)) from error


METADATA = ("name", "namespace", "labels", "annotations")
SET_BY_SERVER = (
    "creationTimestamp", "resourceVersion", "uid", "generation", "managedFields", "selfLink",
    "ownerReferences", "finalizers", "generateName",
)  # fmt: skip
"""What else `kubectl get -o yaml` prints as metadata."""


def objects(text: str, file: str) -> Iterator[DocumentNode]:
    """The documents, and what is in a List as `kubectl get` prints it."""
    for document in documents(text, file):
        if document.need("kind").text() != "List":
            yield document
            continue
        document.only("apiVersion", "kind", "metadata", "items")
        document.need("apiVersion").one_of({"v1": None})
        yield from document.list_of("items")


@dataclass(frozen=True)
class DocumentNode:
    """One value of a document. `path` is how a person would name it: `spec.rules[0].from`."""

    file: str
    path: str
    raw: yaml.Node

    @property
    def where(self) -> str:
        return f"{self.file}:{self.raw.start_mark.line + 1}"

    def empty(self, name: str = "") -> DocumentNode:
        """An empty mapping in this place, for a part (`name`) that was left out."""
        mark = self.raw.start_mark
        return DocumentNode(
            self.file,
            f"{self.path}.{name}".strip("."),
            yaml.MappingNode("tag:yaml.org,2002:map", [], mark, mark),
        )

    def fields(self) -> Mapping[str, DocumentNode]:
        """Key to value. Raises MW401 when this is not a mapping, or a key comes twice."""
        if not isinstance(self.raw, yaml.MappingNode):
            raise self.unreadable("expected a mapping")
        found: dict[str, DocumentNode] = {}
        for key, value in self.raw.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in found:
                raise DocumentNode(self.file, self.path, key).unreadable(
                    "expected each key once, as plain text"
                )
            found[key.value] = DocumentNode(self.file, f"{self.path}.{key.value}".lstrip("."), value)
        return found

    def elements(self) -> tuple[DocumentNode, ...]:
        if not isinstance(self.raw, yaml.SequenceNode):
            raise self.unreadable("expected a list")
        return tuple(
            DocumentNode(self.file, f"{self.path}[{index}]", value)
            for index, value in enumerate(self.raw.value)
        )

    def text(self) -> str:
        value = self._scalar()
        if self._is_plain and (other := other_than_text(value)):
            raise self.unreadable(f"Kubernetes reads {value or 'nothing'} as {other}; put it in quotes")
        return value

    def flag(self) -> bool:
        """A boolean, in any of the words of YAML 1.1."""
        value = self._scalar()
        if not self._is_plain or value not in _TRUE | _FALSE:
            raise self.unreadable("expected true or false")
        return value in _TRUE

    def is_null(self) -> bool:
        """Whether nothing is written here, as in `creationTimestamp: null`."""
        return isinstance(self.raw, yaml.ScalarNode) and self._is_plain and self.raw.value in _NULL

    def _scalar(self) -> str:
        if not isinstance(self.raw, yaml.ScalarNode):
            raise self.unreadable("expected plain text")
        return str(self.raw.value)

    @property
    def _is_plain(self) -> bool:
        """Without quotes."""
        return self.raw.style in (None, "") if isinstance(self.raw, yaml.ScalarNode) else False

    def texts(self) -> tuple[str, ...]:
        return tuple(each.text() for each in self.elements())

    def get(self, name: str) -> DocumentNode | None:
        return self.fields().get(name)

    def need(self, name: str) -> DocumentNode:
        node = self.get(name)
        if node is None:
            raise self.unreadable(f"`{name}` is missing")
        return node

    def list_of(self, name: str) -> tuple[DocumentNode, ...]:
        node = self.get(name)
        return node.elements() if node else ()

    def number(self, name: str) -> int | None:
        node = self.get(name)
        if node is None:
            return None
        value = node._scalar()
        if not node._is_plain or not (value.isascii() and value.isdecimal()):
            raise node.unreadable("expected a whole number")
        return int(value)

    def one_of(self, choices: Mapping[str, T]) -> T:
        """The choice that is written here. Raises MW402."""
        value = self._scalar()
        if value not in choices:
            raise self.beyond(value, "this value is not known here", choices)
        return choices[value]

    def only(self, *allowed: str) -> None:
        """Raises MW402 for any other key."""
        for name, node in self.fields().items():
            if name not in allowed:
                raise node.beyond(node.path, "this field is not translated", allowed)

    def beyond(self, what: str, reason: str, understood: Iterable[str]) -> MeshwiseError:
        return messages.RESOURCE_BEYOND.error(
            self.where, what=what, reason=reason, understood=", ".join(understood)
        )

    def refused(self, reason: str, remedy: str) -> MeshwiseError:
        """The mesh's own check would not let this in."""
        return messages.RESOURCE_REFUSED.error(self.where, what=self.path, reason=reason, remedy=remedy)

    def unreadable(self, reason: str) -> MeshwiseError:
        path = f"`{self.path}`: " if self.path else ""
        return messages.RESOURCE_UNREADABLE.error(self.where, reason=path + reason)
