"""The value of the study's key `topology`: a shape by name, or a service graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

from meshwise.study.file.problems import did_you_mean
from meshwise.study.topology import TopologyKind

NAMED = tuple(str(shape) for shape in TopologyKind if shape is not TopologyKind.GRAPH)


@dataclass(frozen=True)
class GraphChoice:
    """`topology: {graph: ...}`: the path of a file, or None when the graph stands in the study itself."""

    file: str | None
    entry: str | None = None
    """The service that the client calls, where the graph leaves a choice."""


def graph_choice(value: object) -> TopologyKind | GraphChoice:
    """Raises PydanticCustomError."""
    if isinstance(value, TopologyKind | GraphChoice):
        return value
    if isinstance(value, Mapping):
        if "graph" not in value or not set(value) <= {"graph", "entry"}:
            raise _refused("a topology is a name, or `graph:` with a file or a graph",
                           "`topology: {graph: graphs/shop.yaml}`, and `entry:` if wanted")  # fmt: skip
        graph, entry = value["graph"], value.get("entry")
        if entry is not None and not isinstance(entry, str):
            raise _refused("`entry` is the name of a service", "for example `entry: front`")
        if isinstance(graph, Mapping):
            return GraphChoice(None, entry)
        if not isinstance(graph, str) or "\0" in graph:
            raise _refused("`graph` is a path or a graph", "for example `graph: graphs/shop.yaml`")
        return GraphChoice(graph, entry)
    if value == TopologyKind.GRAPH:
        raise _refused("which graph?", "for example `topology: {graph: graphs/shop.yaml}`")
    if value not in NAMED:
        context = {
            "text": str(value)[:60], "kind": "topology",
            "known": ", ".join(f"`{name}`" for name in (*NAMED, "{graph: FILE}")),
            "meant": did_you_mean(value, NAMED) if isinstance(value, str) else "",
        }  # fmt: skip
        raise PydanticCustomError("level", "`{text}` is not a {kind}", context)
    return TopologyKind(str(value))


def graph_choice_schema() -> dict[str, Any]:
    graph = {
        "anyOf": [{"type": "string", "description": "Path from the study file."}, {"type": "object"}],
        "description": "A service graph: isotope's YAML, a list of calls, ...; see docs/graphs.md.",
    }
    entry = {"type": "string", "description": "The service that the client calls. Default: the graph's."}
    return {
        "anyOf": [
            {"type": "string", "enum": list(NAMED)},
            {
                "type": "object",
                "properties": {"graph": graph, "entry": entry},
                "required": ["graph"],
                "additionalProperties": False,
            },
        ]
    }


def _refused(reason: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("reason", "{what}", {"what": reason, "remedy": remedy})
