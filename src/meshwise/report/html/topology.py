"""The page's part about where in a topology the cost is: the drawn call graph, and tables by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from meshwise.report.content import Content, Slice
from meshwise.report.graph_svg import graph_drawing
from meshwise.report.places import PlaceTable, figures, place_tables
from meshwise.study.model import Topology, TopologyKind

_PLAIN = (TopologyKind.CHAIN, TopologyKind.FANOUT)


@dataclass(frozen=True)
class TopologySection:
    drawing: Markup | None
    tables: tuple[PlaceTable, ...]
    many: bool
    """Whether several meshes were measured."""


def topology_section(
    name: str, content: Content, part: Slice, topologies: Sequence[Topology]
) -> TopologySection | None:
    """None where there is nothing to tell; `name` is unique in the page."""
    own = [
        each
        for each in topologies
        if (str(each.shape), each.length) == (part.levels.get("shape"), part.levels.get("length"))
    ]
    tables = place_tables(content, part)
    drawn = next((each for each in own if each.shape not in _PLAIN), None)
    if drawn is None and not tables:
        return None
    drawing = None if drawn is None else Markup(graph_drawing(f"{name}-graph", drawn, figures(content, part)))
    return TopologySection(drawing, tables, len(part.meshes) > 1)


def by_slice(
    content: Content, names: Sequence[str], topologies: Sequence[Topology]
) -> Mapping[str, TopologySection]:
    """Slice's name in the page -> its section."""
    found = {
        name: topology_section(name, content, part, topologies)
        for name, part in zip(names, content.slices, strict=True)
    }
    return {name: section for name, section in found.items() if section is not None}
