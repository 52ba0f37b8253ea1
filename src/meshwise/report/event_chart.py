"""An event's course: response times, failures and CPU around it, all its occurrences laid over each other,
with the twin arm beside; and one whole trial with what was done to it. Times of response are logarithmic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from meshwise.findings.pictures import EventCourse, EventTimeline
from meshwise.report import svg, words
from meshwise.report.charts import WIDTH
from meshwise.stats.arrays import FloatArray

LEFT, RIGHT, TOP = 52.0, WIDTH - 12, 12.0
TIMES, SMALL, GAP = 150.0, 46.0, 26.0
"""Heights."""


def course_chart(name: str, title: str, own: EventCourse, twin: EventCourse | None) -> str:
    """Median and tail with their bands, then the share of failed requests, then CPU; empty without a time."""
    both = [each for each in (own, twin) if each is not None]
    lines = [row for each in both for row in (each.median_us, each.tail_us)]
    values = [float(v) for row in lines for v in row.ravel() if np.isfinite(v) and v > 0]
    if not values:
        return ""
    half = float(own.middle_ms[1] - own.middle_ms[0]) / 2 if len(own.middle_ms) > 1 else 1.0
    x = svg.AxisScale(float(own.middle_ms[0]) - half, float(own.middle_ms[-1]) + half, LEFT, RIGHT)
    y = svg.logarithmic(values, TOP + TIMES, TOP)
    panels = _panels(both)
    bottom = TOP + TIMES + len(panels) * (SMALL + GAP)
    parts = [
        _stretch(x, float(start), float(end), TOP, bottom) for start, end in own.windows_ms.reshape(-1, 2)
    ]
    parts += svg.x_axis(x, TOP, bottom, [(tick, _tick(tick)) for tick in x.ticks(6)])
    parts += svg.y_axis(y, LEFT, RIGHT, [(tick, words.axis_time_us(tick)) for tick in y.ticks(5)])
    parts += _marks(x, own, bottom)
    for each in reversed(both):
        arm = "twin" if each.twin else "cell"
        for quantile, row in (("median", each.median_us), ("tail", each.tail_us)):
            parts.append(_band(x, y, each.middle_ms, row, arm))
            parts.append(_line(x, y, each.middle_ms, row[0], f"curve line-{arm}-{quantile}"))
    above = TOP + TIMES
    for panel_name, rows, label in panels:
        low, high = above + GAP + SMALL, above + GAP
        finite = [float(v) for _, row in rows for v in np.atleast_2d(row).ravel() if np.isfinite(v)]
        scale = svg.linear(finite, low, high, zero=True)
        parts += svg.y_axis(scale, LEFT, RIGHT, [(tick, label(tick)) for tick in scale.ticks(2)])
        parts.append(svg.text(LEFT + 2, high - 5, panel_name, "tick"))
        for each, row in reversed(rows):
            arm = "twin" if each.twin else "cell"
            if row.ndim == 2:
                parts.append(_band(x, scale, each.middle_ms, row, arm))
            line = row[0] if row.ndim == 2 else row
            parts.append(_line(x, scale, each.middle_ms, line, f"curve line-{arm}-median"))
        above = low
    parts.append(
        svg.text((LEFT + RIGHT) / 2, bottom + 30, "from the beginning of the event", "tick", "middle")
    )
    return svg.drawing(name, WIDTH, bottom + 36, title, _about(own, twin), parts)


def _tick(at_ms: float) -> str:
    return ("−" if at_ms < 0 else "") + ("0" if not at_ms else words.axis_time_us(abs(at_ms) * 1e3))


def tail_words(tail: float) -> str:
    return f"P{100 * tail:g}"


Panel = tuple[str, list[tuple[EventCourse, FloatArray]], "_PanelUnit"]


class _PanelUnit:
    """A tick of a panel in words."""

    def __init__(self, unit: str, factor: float = 1.0) -> None:
        self.unit, self.factor = unit, factor

    def __call__(self, value: float) -> str:
        return f"{value * self.factor:g}{self.unit}"


def _panels(both: Sequence[EventCourse]) -> list[Panel]:
    """Failures where any request failed, CPU where it was read."""
    found: list[Panel] = []
    if any((each.failed > 0).any() for each in both):
        found.append(("failed requests", [(each, each.failed) for each in both], _PanelUnit("%", 100)))
    read = [(each, each.cpus) for each in both if np.isfinite(each.cpus[0]).any()]
    if read:
        found.append(("CPUs used by all sidecars", read, _PanelUnit("")))
    return found


def _stretch(x: svg.AxisScale, start: float, end: float, top: float, bottom: float) -> str:
    tip = f"more requests are disturbed than usual: {start:g} to {end:g} ms"
    return svg.rect(x(start), top, x(end) - x(start), bottom - top, "event-window", tip)


def _marks(x: svg.AxisScale, own: EventCourse, bottom: float) -> list[str]:
    parts = [svg.line(x(0), TOP, x(0), bottom, "event-begun")]
    if own.done_ms is not None and own.done_ms <= float(own.middle_ms[-1]):
        parts.append(svg.line(x(own.done_ms), TOP, x(own.done_ms), bottom, "event-done"))
    return parts


def _band(x: svg.AxisScale, y: svg.AxisScale, at: FloatArray, rows: FloatArray, arm: str) -> str:
    """Between the ends of the interval, in stretches without a gap."""
    known = np.asarray(np.isfinite(rows[1:]).all(axis=0))
    paths = []
    for run in _runs(known):
        upper = [(x(float(at[i])), y(float(rows[2][i]))) for i in run]
        lower = [(x(float(at[i])), y(float(max(rows[1][i], y.low)))) for i in reversed(run)]
        paths.append("M" + "L".join(f"{svg.number(px)} {svg.number(py)}" for px, py in upper + lower) + "Z")
    return f'<path d="{"".join(paths)}" class="event-band band-{arm}"/>' if paths else ""


def _line(x: svg.AxisScale, y: svg.AxisScale, at: FloatArray, row: FloatArray, cls: str) -> str:
    runs = _runs(np.isfinite(row))
    return svg.strokes([[(x(float(at[i])), y(float(row[i]))) for i in run] for run in runs], cls)


def _runs(known: np.ndarray) -> list[list[int]]:
    places = np.flatnonzero(known)
    if not len(places):
        return []
    return [part.tolist() for part in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)]


def _about(own: EventCourse, twin: EventCourse | None) -> str:
    tail = tail_words(own.tail)
    told = [f"{tail} of the cell {_range(own.tail_us[0])}"]
    if twin is not None:
        told.append(f"of its twin {_range(twin.tail_us[0])}")
    windows = " and ".join(f"{start:g} to {end:g} ms" for start, end in own.windows_ms.reshape(-1, 2))
    found = f" More requests are disturbed than usual {windows} after its beginning." if windows else ""
    return (
        f"{own.occurrences} occurrences in {own.executions} executions laid over each other; "
        f"{', '.join(told)}.{found}"
    )


def _range(row: FloatArray) -> str:
    finite = row[np.isfinite(row)]
    return f"{finite.min():.0f} to {finite.max():.0f} us" if len(finite) else "not known"


def timeline_chart(name: str, title: str, timeline: EventTimeline) -> str:
    """Median and tail over one trial, failed requests beneath, and a mark for every event; empty without a
    time."""
    rows = [timeline.response_us, *([timeline.twin_us] if timeline.twin_us.size else [])]
    values = [float(v) for each in rows for v in each.ravel() if np.isfinite(v) and v > 0]
    if not values:
        return ""
    seconds = timeline.middle_s
    half = float(seconds[0])
    bottom_of_times, failing = TOP + 190, bool((timeline.failed > 0).any())
    bottom = bottom_of_times + (SMALL + GAP) * failing
    x = svg.AxisScale(0.0, float(seconds[-1]) + half, LEFT, 2 * WIDTH - 12)
    y = svg.logarithmic(values, bottom_of_times, TOP)
    kinds = tuple(dict.fromkeys(timeline.events))
    parts = svg.x_axis(x, TOP, bottom, [(tick, f"{tick:g} s") for tick in x.ticks(10)])
    parts += svg.y_axis(y, LEFT, x.end, [(tick, words.axis_time_us(tick)) for tick in y.ticks(5)])
    for (begun, done), event in zip(timeline.marks_s.reshape(-1, 2), timeline.events, strict=True):
        end = float(done) if np.isfinite(done) else float(begun)
        tip = f"{event}: {begun:.3f} s" + (f" to {done:.3f} s" if np.isfinite(done) else ", never done")
        wide = max(2.0, x(end) - x(float(begun)))
        parts.append(
            svg.rect(
                x(float(begun)), TOP, wide, bottom - TOP, f"event-mark kind-{kinds.index(event) % 6}", tip
            )
        )
    for number, kind in enumerate(kinds):
        first = float(timeline.marks_s[timeline.events.index(kind), 0])
        parts.append(svg.text(x(first) + 4, TOP + 11 + 13 * (number % 3), kind, "tick halo"))
    if timeline.twin_us.size:
        for row, quantile in zip(timeline.twin_us, ("median", "tail"), strict=True):
            parts.append(_line(x, y, seconds[: len(row)], row, f"curve line-twin-{quantile}"))
    for row, quantile in zip(timeline.response_us, ("median", "tail"), strict=True):
        parts.append(_line(x, y, seconds, row, f"curve line-cell-{quantile}"))
    if failing:
        scale = svg.linear([float(v) for v in timeline.failed], bottom, bottom_of_times + GAP, zero=True)
        parts += svg.y_axis(scale, LEFT, x.end, [(tick, f"{tick:g}") for tick in scale.ticks(2)])
        parts.append(svg.text(LEFT + 2, bottom_of_times + GAP - 5, "failed requests", "tick"))
        for second, count in zip(seconds, timeline.failed, strict=True):
            if count > 0:
                at, high = x(float(second) - half), scale(float(count))
                tip = f"{second:.2f} s: {count:.0f} failed"
                parts.append(
                    svg.rect(
                        at, high, max(1.2, x(float(second) + half) - at), bottom - high, "event-failed", tip
                    )
                )
    times = ", ".join(f"{kind} {timeline.events.count(kind)} times" for kind in kinds)
    shown = f"median and {tail_words(timeline.tail)} from its first second to its last"
    about = f"Trial {timeline.trial_id}, {shown}: {times}."
    return svg.drawing(name, 2 * WIDTH, bottom + 22, title, about, parts)
