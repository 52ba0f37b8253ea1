"""Cost against attempts stopped, drawn: a mark per mesh and posture with intervals on both axes, and the
front."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from meshwise.findings.protection import Standing, TradePoint
from meshwise.report import svg, words
from meshwise.report.charts import REACH, WIDTH, slug

LEFT, RIGHT, TOP, BOTTOM = 44.0, WIDTH - 10, 24.0, 280.0
HEIGHT, LETTER = 11.0, 7.0
"""Of a line of text, and of a wide letter: names must not touch in any font."""


@dataclass(frozen=True)
class PlottedPoint:
    mesh: str
    label: str
    point: TradePoint
    dominated_by: str = ""


@dataclass(frozen=True)
class Box:
    """What is occupied in a drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Area in common."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0


def tradeoff_chart(name: str, title: str, points: Sequence[PlottedPoint], form: words.Form) -> str:
    """Cost from zero to the right, attempts stopped in every try upwards."""
    costs = [each.point.estimate / form.divisor for each in points]
    most = REACH * max(costs, default=1.0)
    reach = [min(each.point.high / form.divisor, most) for each in points if each.point.high is not None]
    x = svg.linear([*costs, *reach], LEFT, RIGHT, zero=True)
    y = svg.linear([float(each.point.stopped_high) for each in points], BOTTOM, TOP, zero=True)
    parts = svg.y_axis(y, LEFT, RIGHT, [(tick, f"{tick:g}") for tick in y.ticks(6) if tick == int(tick)])
    parts += svg.x_axis(x, TOP, BOTTOM, [(tick, words.axis_number(tick)) for tick in x.ticks(5)])
    front = _front(points)
    parts.append(svg.polyline(_steps(front, x, y, form), "curve front", "the most that is stopped at a cost"))
    marks = [_Mark.of(each, x, y, form) for each in points]
    for mark in marks:
        parts.append(mark.whiskers)
    parts += [mark.drawn(form) for mark in marks]
    parts += _labels(marks)
    parts.append(svg.text(LEFT - 6, 10, "attempts stopped in every try", "tick"))
    parts.append(svg.text((LEFT + RIGHT) / 2, BOTTOM + 30, form.unit, "tick", "middle"))
    described = "; ".join(_words(each, form) for each in points)
    return svg.drawing(name, WIDTH, BOTTOM + 36, title, f"{described}.", parts)


def _words(each: PlottedPoint, form: words.Form) -> str:
    point = each.point
    name = each.label if each.mesh == "none" else f"{each.mesh} {each.label}"
    interval = f" {found}" if (found := form.interval(point.low, point.high)) else ""
    stopped = f"{point.stopped}" + (f" to {point.stopped_high}" if point.stopped_high > point.stopped else "")
    standing = str(point.standing).replace("front", "on the front")
    by = f" by {each.dominated_by}" if each.dominated_by else ""
    return (
        f"{name}: {form.with_unit(point.estimate)}{interval}, stops {stopped} of {point.of}, {standing}{by}"
    )


def _front(points: Iterable[PlottedPoint]) -> list[TradePoint]:
    """Those on the front, by cost, that stop more than every cheaper one."""
    found: list[TradePoint] = []
    own = (each.point for each in points if each.point.standing is Standing.FRONT)
    for point in sorted(own, key=lambda each: (each.estimate, -each.stopped)):
        if not found or point.stopped > found[-1].stopped:
            found.append(point)
    return found


def _steps(
    front: Sequence[TradePoint], x: svg.AxisScale, y: svg.AxisScale, form: words.Form
) -> list[svg.Point]:
    at = [(x(point.estimate / form.divisor), y(point.stopped)) for point in front]
    corners = [[one, (other[0], one[1])] for one, other in itertools.pairwise(at)]
    return [*itertools.chain.from_iterable(corners), *at[-1:], *[(RIGHT, each[1]) for each in at[-1:]]]


@dataclass(frozen=True)
class _Mark:
    plotted: PlottedPoint
    x: float
    y: float
    left: float
    right: float
    top: float
    beyond: bool
    """The interval of the cost goes on beyond the scale."""

    @classmethod
    def of(cls, each: PlottedPoint, x: svg.AxisScale, y: svg.AxisScale, form: words.Form) -> _Mark:
        point = each.point
        at = x(point.estimate / form.divisor)
        low = at if point.low is None else x(point.low / form.divisor)
        high = at if point.high is None else x(point.high / form.divisor)
        beyond = point.high is not None and point.high / form.divisor > x.high
        return cls(each, at, y(point.stopped), low, high, y(point.stopped_high), beyond)

    @property
    def whiskers(self) -> str:
        """A bound beyond the scale is an arrow at its edge, as in the other charts."""
        lines: list[list[svg.Point]] = []
        if self.right > self.left:
            lines += [[(self.left, self.y), (self.right, self.y)]]
            for end, back in ((self.left, 0.0), (self.right, -5.0 if self.beyond else 0.0)):
                lines += [[(end + back, self.y - 3), (end, self.y), (end + back, self.y + 3)]]
        if self.top < self.y:
            lines += [
                [(self.x, self.y), (self.x, self.top)],
                [(self.x - 3, self.top), (self.x + 3, self.top)],
            ]
        return svg.strokes(lines, f"whisker mesh-{slug(self.plotted.mesh)}")

    def drawn(self, form: words.Form) -> str:
        dominated = self.plotted.point.standing is Standing.DOMINATED
        cls = f"mark mesh-{slug(self.plotted.mesh)}" + (" hollow" if dominated else "")
        tip = _words(self.plotted, form)
        if self.plotted.mesh == "linkerd":
            return svg.diamond(self.x, self.y, 4.8, cls, tip)
        return svg.circle(self.x, self.y, 3.4, cls, tip)

    @property
    def boxes(self) -> Iterator[Box]:
        yield Box(self.x - 5, self.y - 5, self.x + 5, self.y + 5)
        yield Box(self.left, self.y - 3, self.right, self.y + 3)
        yield Box(self.x - 3, self.top - 1, self.x + 3, self.y)


REACHES = (0.0, 12.0, 24.0, 36.0, 52.0)
"""How far a label may be moved up or down from beside its mark."""


def _labels(marks: Sequence[_Mark]) -> list[str]:
    """A name beside every mark, where it covers neither a mark nor another name; with a line to its mark
    where it had to be moved away. From the top down, so that names keep the order of their marks."""
    taken = [box for mark in marks for box in mark.boxes]
    parts = []
    for mark in sorted(marks, key=lambda each: (each.y, each.x)):
        width = LETTER * len(mark.plotted.label)
        best = min(_places(mark, width), key=lambda place: _cost(place, taken))
        taken.append(best.box)
        if best.moved:
            end = best.box.left if best.box.left > mark.x else best.box.right
            end = mark.x if best.box.left <= mark.x <= best.box.right else end
            parts.append(svg.line(mark.x, mark.y, end, (best.box.top + best.box.bottom) / 2, "lead"))
        at, anchor = (best.box.right, "end") if best.box.right <= mark.x else (best.box.left, "start")
        parts.append(svg.text(at, best.box.bottom - 2, mark.plotted.label, "halo", anchor))
    return parts


@dataclass(frozen=True)
class _Label:
    box: Box
    moved: float
    """How far it is from where it is read best."""


def _places(mark: _Mark, width: float) -> Iterator[_Label]:
    ends = (mark.right + 7, mark.x + 8), (mark.left - 7 - width, mark.x - 8 - width)
    for reach in REACHES:
        for dy in (reach, -reach) if reach else (0.0,):
            for side, lefts in enumerate(ends):
                left = lefts[bool(reach)]
                top = mark.y + dy - HEIGHT / 2
                if (
                    left >= LEFT - 2
                    and left + width <= RIGHT + 8
                    and top >= TOP - 10
                    and top + HEIGHT <= BOTTOM - 1
                ):
                    yield _Label(Box(left, top, left + width, top + HEIGHT), reach + 2 * side * bool(reach))
    left = min(max(mark.x - width / 2, LEFT), RIGHT - width)
    for top in (mark.y - 7 - HEIGHT, mark.y + 7):
        yield _Label(Box(left, top, left + width, top + HEIGHT), 0.0)


def _cost(label: _Label, taken: Sequence[Box]) -> float:
    return sum(label.box.overlap(other) for other in taken) + label.moved / 4
