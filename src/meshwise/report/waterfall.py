"""One traced request span by span: as lines of text, and as SVG. A bar is as long as its span; of the bar the
strong parts are its own time, as far as a span has it at its ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meshwise.findings.pictures import DrawnSpan, Waterfall
from meshwise.report import svg, words

WIDTH, LABEL, ROW = 920.0, 270.0, 20.0
_BAR_COLUMNS = 32
_NAME_COLUMNS = 22
MOST_SPANS = 60
"""That are drawn; of a large graph's request the first."""
_HUES = {
    "client app": "w1", "client proxy": "w2", "client proxy and network": "w2", "network": "w3",
    "server proxy": "w4", "service": "w5",
}  # fmt: skip


def heading(waterfall: Waterfall) -> str:
    """`slow request of istio, strict, 10% traced: 812 us, 5 spans (trial b000-p03)`"""
    at = waterfall.at
    said = [str(at.get("mesh", "")), str(at.get("posture", "")), str(at.get("protocol", ""))]
    said.append(words.level("traced_share", at.get("traced_share")))
    who = ", ".join(filter(None, said))
    count = len(waterfall.spans)
    return (
        f"{waterfall.which} request of {who}: {waterfall.duration_us:.0f} us, {count} spans "
        f"(trial {waterfall.trial_id})"
    )


def lines(waterfall: Waterfall) -> list[str]:
    """For a terminal of 100 columns."""
    whole = max(waterfall.duration_us, 1e-9)
    shown = waterfall.spans[:MOST_SPANS]
    found = [heading(waterfall), f"{'':{_NAME_COLUMNS}} {'':{_BAR_COLUMNS + 2}} {'us':>8} {'own':>7}"]
    for span in shown:
        start = round(span.begun_us / whole * _BAR_COLUMNS)
        length = max(1, round((span.ended_us - span.begun_us) / whole * _BAR_COLUMNS))
        start = min(max(start, 0), _BAR_COLUMNS - 1)
        bar = (" " * start + _LETTERS[span.kind] * min(length, _BAR_COLUMNS - start)).ljust(_BAR_COLUMNS)
        label = (" " * min(span.depth, 8) + span.who)[:_NAME_COLUMNS]
        took = span.ended_us - span.begun_us
        found.append(f"{label:{_NAME_COLUMNS}} |{bar}| {took:8.0f} {span.own_us:7.0f}  {span.part}")
    if len(waterfall.spans) > len(shown):
        found.append(f"... and {len(waterfall.spans) - len(shown)} more spans")
    parts = ", ".join(f"{part} {time:.0f}" for part, time in critical(shown).items())
    return [*found, f"waited for, us: {parts}"]


_LETTERS = {"client": "-", "server": "=", "internal": "."}


def critical(spans: Sequence[DrawnSpan]) -> Mapping[str, float]:
    """Part -> time on the critical path, the longest first."""
    found: dict[str, float] = {}
    for span in spans:
        found[span.part] = found.get(span.part, 0.0) + span.critical_us
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def waterfall_drawing(name: str, waterfall: Waterfall) -> str:
    """`name` is unique in the page."""
    shown = waterfall.spans[:MOST_SPANS]
    title = heading(waterfall)
    scale = svg.AxisScale(0.0, max(waterfall.duration_us, 1e-9), LABEL, WIDTH - 70)
    top = 24.0
    bottom = top + ROW * len(shown)
    ticks = [(tick, words.axis_number(tick)) for tick in scale.ticks(6)]
    parts = [svg.text(0, 14, title, "number"), *svg.x_axis(scale, top, bottom, ticks)]
    for number, span in enumerate(shown):
        parts += _row(scale, top + ROW * number, span)
    if more := len(waterfall.spans) - len(shown):
        parts.append(svg.text(0, bottom + 30, f"and {more} more spans", "tick"))
    parts.append(svg.text(WIDTH - 64, bottom + 15, "us", "tick"))
    said = ", ".join(f"{part} {time:.0f} us" for part, time in critical(shown).items())
    return svg.drawing(name, WIDTH, bottom + 36, title, f"waited for, one after the other: {said}", parts)


def _row(scale: svg.AxisScale, y: float, span: DrawnSpan) -> list[str]:
    left, right = scale(span.begun_us), scale(span.ended_us)
    took = span.ended_us - span.begun_us
    tip = (
        f"{span.who}, {span.kind}: {span.name}; {took:.1f} us from {span.begun_us:.1f}, "
        f"alone {span.own_us:.1f} ({span.part}), waited for {span.critical_us:.1f}"
    )
    label = "\u2002" * min(span.depth, 8) + span.who
    return [
        svg.text(0, y + 14, label[:42], "tick"),
        svg.rect(left, y + 3, max(right - left, 1.0), ROW - 7, f"span {_HUES.get(span.part, 'w1')}", tip),
        svg.text(min(right, WIDTH - 70) + 4, y + 14, f"{took:.0f}", "tick"),
    ]


def as_json(waterfall: Waterfall) -> dict[str, Any]:
    return {"at": dict(waterfall.at), "duration_us": waterfall.duration_us} | {
        **waterfall.as_json(),
        "spans": [
            {
                "depth": span.depth, "who": span.who, "name": span.name, "kind": span.kind, "part": span.part,
                "begun_us": span.begun_us, "ended_us": span.ended_us, "own_us": span.own_us,
                "critical_us": span.critical_us,
            }
            for span in waterfall.spans
        ],
        "critical_path_us": critical(waterfall.spans),
    }  # fmt: skip
