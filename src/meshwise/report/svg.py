"""A small drawing kit: scales, axes, and the few SVG elements that the report's charts are made of.

Rules:
- Pure: numbers and text in, markup out. What is not finite is not drawn; coordinates have one decimal.
- No colour here. An element carries classes; the page's style sheet gives them colours for light, dark
  and print (`html/page.css`).
- All text is escaped. Every drawing has a title and a description for those who cannot see it.
- Drawings are about 380 units wide, the width of a phone, so that text is never scaled below legibility.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]


@dataclass(frozen=True)
class AxisScale:
    """Maps values in [low, high] onto coordinates [start, end]; values outside are held at the edge."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        share = (self._axis(value) - self._axis(self.low)) / (self._axis(self.high) - self._axis(self.low))
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))

    def _axis(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.log else value

    def ticks(self, about: int = 5) -> tuple[float, ...]:
        """Round values inside the scale: 1, 2, 5 times a power of ten."""
        return (
            _log_ticks(self.low, self.high, about) if self.log else _linear_ticks(self.low, self.high, about)
        )


def linear(values: Iterable[float], start: float, end: float, *, zero: bool = False) -> AxisScale:
    """A linear scale that holds all finite values with a margin; with `zero`, 0 is in it, without a margin
    where it is the end."""
    low, high = _extent(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):  # one value: nothing to spread
        high = low + max(1.0, abs(low))
    air = (high - low) * 0.06
    return AxisScale(
        low if zero and low == 0 else low - air, high if zero and high == 0 else high + air, start, end
    )


def logarithmic(values: Iterable[float], start: float, end: float) -> AxisScale:
    """A logarithmic scale that holds all finite positive values."""
    low, high = _extent(value for value in values if value > 0)
    low = low if low > 0 else 1.0
    return AxisScale(low / 1.08, max(high, low) * 1.08, start, end, log=True)


def _extent(values: Iterable[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (0.0, 1.0)


def _linear_ticks(low: float, high: float, about: int) -> tuple[float, ...]:
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(index * step, 10) for index in range(first, last + 1))


def _log_ticks(low: float, high: float, about: int) -> tuple[float, ...]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = tuple(tick for tick in ticks if low <= tick <= high)
        if len(inside) <= about + 1:
            return inside
    return inside


def number(value: float) -> str:
    """A coordinate: one decimal, no trailing zero."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def line(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    if not _finite(x1, y1, x2, y2):
        return ""
    ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    return f'<line {ends} class="{escape(cls)}"/>'


def strokes(polylines: Iterable[Sequence[Point]], cls: str) -> str:
    """Several open lines as one element: a third of the markup of as many `line`s."""
    paths = ["L".join(f"{number(x)} {number(y)}" for x, y in points if _finite(x, y)) for points in polylines]
    path = "".join(f"M{each}" for each in paths if "L" in each)
    return f'<path d="{path}" class="{escape(cls)}"/>' if path else ""


def rect(x: float, y: float, width: float, height: float, cls: str, tip: str = "") -> str:
    """`x`, `y` is the upper left corner; a negative size is drawn as nothing."""
    if not _finite(x, y, width, height) or width < 0 or height < 0:
        return ""
    box = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    box += f' class="{escape(cls)}"'
    return f"<rect {box}><title>{escape(tip)}</title></rect>" if tip else f"<rect {box}/>"


def circle(x: float, y: float, radius: float, cls: str, tip: str = "") -> str:
    if not _finite(x, y, radius):
        return ""
    disc = f'cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" class="{escape(cls)}"'
    return f"<circle {disc}><title>{escape(tip)}</title></circle>" if tip else f"<circle {disc}/>"


def diamond(x: float, y: float, radius: float, cls: str, tip: str = "") -> str:
    if not _finite(x, y, radius):
        return ""
    corners = ((x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y))
    path = "M" + "L".join(f"{number(px)} {number(py)}" for px, py in corners) + "Z"
    inner = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<path d="{path}" class="{escape(cls)}">{inner}</path>'


def triangle(x: float, y: float, radius: float, cls: str, tip: str = "") -> str:
    """Pointing down."""
    if not _finite(x, y, radius):
        return ""
    corners = ((x - radius, y - radius), (x + radius, y - radius), (x, y + radius))
    path = "M" + "L".join(f"{number(px)} {number(py)}" for px, py in corners) + "Z"
    inner = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<path d="{path}" class="{escape(cls)}">{inner}</path>'


def polyline(points: Sequence[Point], cls: str, tip: str = "") -> str:
    """An open line through the finite points."""
    path = "L".join(f"{number(x)} {number(y)}" for x, y in points if _finite(x, y))
    if "L" not in path:
        return ""
    inner = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<path d="M{path}" class="{escape(cls)}">{inner}</path>'


def text(x: float, y: float, content: str, cls: str = "", anchor: str = "start") -> str:
    """`y` is the base line. `anchor`: start, middle, end."""
    if not _finite(x, y):
        return ""
    at = f' text-anchor="{anchor}"' if anchor != "start" else ""
    kind = f' class="{escape(cls)}"' if cls else ""
    return f'<text x="{number(x)}" y="{number(y)}"{at}{kind}>{escape(content)}</text>'


def drawing(name: str, width: float, height: float, title: str, description: str, body: Iterable[str]) -> str:
    """A whole `<svg>`; `name` is unique in the page."""
    return (
        f'<svg viewBox="0 0 {number(width)} {number(height)}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
        + "".join(body)
        + "</svg>"
    )


def x_axis(scale: AxisScale, top: float, bottom: float, labels: Sequence[tuple[float, str]]) -> list[str]:
    """Grid lines from `top` to `bottom` with their labels below, as many as fit without touching."""
    parts = [strokes([[(scale(value), top), (scale(value), bottom)] for value, _ in labels], "grid")]
    free_from = -math.inf
    for value, label in labels:
        x = scale(value)
        half = len(label) * 3.4
        if x - half > free_from:
            parts.append(text(x, bottom + 15, label, "tick", "middle"))
            free_from = x + half + 4
    parts.append(line(scale.start, bottom, scale.end, bottom, "axis"))
    return parts


def y_axis(scale: AxisScale, left: float, right: float, labels: Sequence[tuple[float, str]]) -> list[str]:
    """Grid lines from `left` to `right` with their labels at the left."""
    parts = [strokes([[(left, scale(value)), (right, scale(value))] for value, _ in labels], "grid")]
    parts += [text(left - 6, scale(value) + 4, label, "tick", "end") for value, label in labels]
    return parts
