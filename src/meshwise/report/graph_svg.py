"""A call graph as SVG: a box per service, a line per call, from the client on the left to the leaves.

Colours tell namespaces; a thick edge of a box that its service demands something of its callers whatever the
posture is. `figures` are further lines in the boxes, such as measured CPU. In a page the style is the page's
(`html/page.css`); alone, a drawing brings its own, for light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from meshwise.report.graph_layout import Layout, lay_out
from meshwise.report.graph_words import demands, drawn
from meshwise.report.svg import Point, drawing, number, rect, text
from meshwise.study.graph.model import Call, GraphService, ServiceGraph
from meshwise.study.graph.sums import steps_at_once
from meshwise.study.topology import CLIENT, Topology

BOX_WIDTH, GAP = 148.0, 64.0
LINE_HEIGHT, AIR = 13.0, 12.0
MARGIN, LEGEND_HEIGHT = 8.0, 26.0
HUES = 6
LONGEST = 22
"""Characters of a name that fit into a box."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #5a636e;
 --faint: #d9dde2; --wash: #f4f6f8;
 --hue-0: #1f5fbf; --hue-1: #9640b5; --hue-2: #0f7d71; --hue-3: #b5651d; --hue-4: #bf2f7b; --hue-5: #5f6872; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e9ed; --soft: #9ba5b1;
 --faint: #353c45; --wash: #1c2127; --hue-0: #76acff; --hue-1: #d08bec; --hue-2: #4ecab9; --hue-3: #f0a95c;
 --hue-4: #f77fb6; --hue-5: #a4aeb9; } }
svg { background: var(--paper); }
text { font: 11.5px system-ui, -apple-system, "Segoe UI", Roboto,
 "Liberation Sans", Arial, sans-serif; fill: var(--ink); }
.tick { fill: var(--soft); font-size: 10.5px; } .number { font-weight: 600; }
.hue-0 { --hue: var(--hue-0); } .hue-1 { --hue: var(--hue-1); } .hue-2 { --hue: var(--hue-2); }
.hue-3 { --hue: var(--hue-3); } .hue-4 { --hue: var(--hue-4); } .hue-5 { --hue: var(--hue-5); }
.service { fill: var(--wash); stroke: var(--hue); stroke-width: 1; } .service.demands { stroke-width: 2.4; }
.stripe { fill: var(--hue); } .call { fill: none; stroke: var(--soft); stroke-width: 1.1; }
.call.seldom { stroke-dasharray: 4 3; } .tip { fill: var(--soft); }
.halo { stroke: var(--paper); stroke-width: 3px; paint-order: stroke; }
"""


def graph_drawing(
    name: str,
    topology: Topology,
    figures: Mapping[str, Sequence[str]] | None = None,
    *,
    alone: bool = False,
) -> str:
    """`name` is unique in the page; `figures` by workload, the client's too."""
    graph, figures = drawn(topology), figures or {}
    layout = lay_out(topology)
    lines = {service.name: _lines(service, figures.get(service.name, ())) for service in graph.services}
    lines[CLIENT] = [CLIENT, *figures.get(CLIENT, ())]
    height = AIR + LINE_HEIGHT * max(map(len, lines.values()))
    place = _Places(layout, height)
    spaces = list(dict.fromkeys(service.namespace for service in graph.services))
    body = [f"<style>{STYLE}</style>"] if alone else []
    body += _legend(spaces, any(demands(service) for service in graph.services))
    for workload in topology.workloads:
        for callee in workload.calls:
            body += _call(place, graph, workload.name, callee)
    body += _box(place, CLIENT, lines[CLIENT], "hue-5", "")
    for service in graph.services:
        hue = f"hue-{spaces.index(service.namespace) % HUES}"
        tip = "; ".join([f"{service.name} in {service.namespace}", *demands(service)])
        body += _box(
            place, service.name, lines[service.name], f"{hue} demands" if demands(service) else hue, tip
        )
    description = (
        f"{len(graph.services)} services in {len(spaces)} namespaces; the client calls {topology.entry.name}"
    )
    markup = drawing(name, place.width, place.height, f"Call graph {topology.name}", description, body)
    if not alone:
        return markup.replace("<svg ", f'<svg style="width: {place.width:.0f}px; max-width: none" ', 1)
    size = f'<svg xmlns="http://www.w3.org/2000/svg" width="{place.width:.0f}" height="{place.height:.0f}" '
    return markup.replace("<svg ", size, 1) + "\n"


class _Places:
    """Slots to coordinates."""

    def __init__(self, layout: Layout, box_height: float) -> None:
        self.layout = layout
        self.box_height = box_height
        self._pitch = box_height + AIR
        self.width = 2 * MARGIN + layout.layers * BOX_WIDTH + (layout.layers - 1) * GAP
        self.height = 2 * MARGIN + LEGEND_HEIGHT + layout.rows * self._pitch - AIR

    def x(self, layer: int) -> float:
        return MARGIN + layer * (BOX_WIDTH + GAP)

    def y(self, row: float) -> float:
        return MARGIN + LEGEND_HEIGHT + row * self._pitch

    def corner(self, name: str) -> Point:
        return self.x(self.layout.layer[name]), self.y(self.layout.row[name])


def _lines(service: GraphService, figures: Sequence[str]) -> list[str]:
    said = demands(service)
    if service.error_share:
        said.append(f"{100 * service.error_share:.3g} % errors")
    return [service.name, *said, *figures]


def _box(place: _Places, name: str, lines: Sequence[str], cls: str, tip: str) -> list[str]:
    x, y = place.corner(name)
    parts = [
        rect(x, y, BOX_WIDTH, place.box_height, f"service {cls}", tip or name),
        rect(x, y, 4, place.box_height, f"stripe {cls.split()[0]}"),
    ]
    for at, line in enumerate(lines):
        shown = line if len(line) <= LONGEST + 4 * (at > 0) else f"{line[: LONGEST - 1]}…"
        parts.append(text(x + 11, y + 17 + at * LINE_HEIGHT, shown, "tick" if at else "number"))
    return parts


def _call(place: _Places, graph: ServiceGraph, caller: str, callee: str) -> list[str]:
    x1, y1 = place.corner(caller)
    x2, y2 = place.corner(callee)
    middle = place.box_height / 2
    points: list[Point] = [(x1 + BOX_WIDTH, y1 + middle)]
    for layer, row in place.layout.bends[caller, callee]:
        at = place.y(row) + middle
        points += [(place.x(layer), at), (place.x(layer) + BOX_WIDTH, at)]
    points.append((x2 - 6, y2 + middle))
    label, seldom = ("", False) if caller == CLIENT else _label(graph[caller], callee)
    path = f"M{_pair(points[0])}"
    for at, (start, end) in enumerate(pairwise(points)):
        if at % 2:  # through a layer
            path += f"L{_pair(end)}"
        else:
            half = (end[0] - start[0]) / 2
            path += f"C{_pair((start[0] + half, start[1]))} {_pair((end[0] - half, end[1]))} {_pair(end)}"
    corners = ((x2 - 7, y2 + middle - 3.5), (x2, y2 + middle), (x2 - 7, y2 + middle + 3.5))
    tip = "M" + "L".join(map(_pair, corners)) + "Z"
    parts = [
        f'<path d="{path}" class="call{" seldom" if seldom else ""}"/>',
        f'<path d="{tip}" class="tip"/>',
    ]
    if label:
        parts.append(text(x2 - 11, y2 + middle - 4, label, "tick halo", "end"))
    return parts


def _pair(point: Point) -> str:
    return f"{number(point[0])} {number(point[1])}"


def _label(service: GraphService, callee: str) -> tuple[str, bool]:
    """Which steps of the script the call is, where there are several, and how often it is made."""
    calling = [
        [call for call in steps_at_once(step) if isinstance(call, Call) and call.service == callee]
        for step in service.script
    ]
    steps = [str(at) for at, calls in enumerate(calling, start=1) if calls]
    chances = [call.probability for calls in calling for call in calls]
    parts = [f"step {','.join(steps)}"] if len(service.script) > 1 else []
    if len(chances) > 1:
        parts.append(f"{len(chances)}×")
    seldom = min(chances, default=1.0) < 1
    if seldom:
        parts.append("/".join(f"{100 * chance:g}" for chance in dict.fromkeys(chances)) + " %")
    return ", ".join(parts), seldom


def _legend(spaces: Sequence[str], demanding: bool) -> list[str]:
    parts, x = [], MARGIN
    for at, space in enumerate(spaces):
        parts += [
            rect(x, MARGIN, 12, 12, f"stripe hue-{at % HUES}"),
            text(x + 17, MARGIN + 10, space, "tick"),
        ]
        x += 34 + 6.2 * len(space)
    if demanding:
        parts += [
            rect(x, MARGIN + 1, 18, 10, "service demands hue-5"),
            text(x + 24, MARGIN + 10, "demands something of its own", "tick"),
        ]
    return parts
