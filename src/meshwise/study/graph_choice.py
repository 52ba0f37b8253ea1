"""The value of the study's key `topology`: a shape by name, or a service graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

from meshwise.study.factors import did_you_mean
from meshwise.study.topology import Shape

NAMED = tuple(str(shape) for shape in Shape if shape is not Shape.GRAPH)


@dataclass(frozen=True)
class GraphChoice:
    """`topology: {graph: ...}`: the path of a file, or None when the graph stands in the study itself."""

    file: str | None


def graph_choice(value: object) -> Shape | GraphChoice:
    """Raises PydanticCustomError."""
    if isinstance(value, Shape | GraphChoice):
        return value
    if isinstance(value, Mapping):
        if set(value) != {"graph"}:
            raise _refused("a topology is a name, or `graph:` with a file or a graph",
                           "for example `topology: {graph: graphs/shop.yaml}`")  # fmt: skip
        graph = value["graph"]
        if isinstance(graph, Mapping):
            return GraphChoice(None)
        if not isinstance(graph, str) or "\0" in graph:
            raise _refused("`graph` is a path or a graph", "for example `graph: graphs/shop.yaml`")
        return GraphChoice(graph)
    if value == Shape.GRAPH:
        raise _refused("which graph?", "for example `topology: {graph: graphs/shop.yaml}`")
    if value not in NAMED:
        context = {
            "text": str(value)[:60], "kind": "topology",
            "known": ", ".join(f"`{name}`" for name in (*NAMED, "{graph: FILE}")),
            "meant": did_you_mean(value, NAMED) if isinstance(value, str) else "",
        }  # fmt: skip
        raise PydanticCustomError("level", "`{text}` is not a {kind}", context)
    return Shape(str(value))


def graph_choice_schema() -> dict[str, Any]:
    graph = {
        "anyOf": [{"type": "string", "description": "Path from the study file."}, {"type": "object"}],
        "description": "A service graph: isotope's YAML, or a list of calls; see docs/graphs.md.",
    }
    return {
        "anyOf": [
            {"type": "string", "enum": list(NAMED)},
            {
                "type": "object",
                "properties": {"graph": graph},
                "required": ["graph"],
                "additionalProperties": False,
            },
        ]
    }


def _refused(reason: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("reason", "{what}", {"what": reason, "remedy": remedy})
