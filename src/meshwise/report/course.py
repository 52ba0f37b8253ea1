"""A cell's response time over a trial, with the intended rate beneath. The rate is drawn from zero, the times
are logarithmic, and where nothing was asked there is no line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from meshwise.findings.pictures import COURSE_QUANTILES, Course
from meshwise.report import svg, words
from meshwise.report.charts import WIDTH, slug
from meshwise.stats.arrays import FloatArray


def course_chart(name: str, title: str, courses: Sequence[Course], quantile: float) -> str:
    """One line per course; the rate is that of the first: they all have the same. Empty without a value."""
    left, right, top, bottom = 48.0, WIDTH - 12, 10.0, 190.0
    rate_top, rate_bottom = 214.0, 274.0
    row = COURSE_QUANTILES.index(quantile)
    lines = [(course, course.response_us[row]) for course in courses]
    values = [float(value) for _, times in lines for value in times if np.isfinite(value) and value > 0]
    if not values:
        return ""
    seconds, rates = courses[0].middle_s, courses[0].intended_rps
    half = float(seconds[0])
    x = svg.AxisScale(0.0, float(seconds[-1]) + half, left, right)
    y = svg.logarithmic(values, bottom, top)
    ticks = [(tick, f"{tick:g} s") for tick in x.ticks(6)]
    parts = svg.x_axis(x, top, rate_bottom, ticks)
    parts += svg.y_axis(y, left, right, [(tick, words.axis_time_us(tick)) for tick in y.ticks(6)])
    rate = svg.linear([float(value) for value in rates], rate_bottom, rate_top, zero=True)
    parts += svg.y_axis(rate, left, right, [(tick, f"{tick:g}/s") for tick in rate.ticks(2)])
    for second, value in zip(seconds, rates, strict=True):
        at = x(float(second) - half)
        wide, high = x(float(second) + half) - at, rate(float(value))
        tip = f"{second:.3g} s: {value:.0f}/s intended"
        parts.append(svg.rect(at, high, wide, rate_bottom - high, "rate", tip))
    for course, times in lines:
        parts.append(
            svg.strokes(
                [[(x(s), y(us)) for s, us in run] for run in _runs(course.middle_s, times)],
                f"curve rung-{slug(str(course.at['posture']))}",
            )
        )
    described = "; ".join(
        f"{course.at['mesh']} {course.at['posture']} {_extremes(times)}" for course, times in lines
    )
    about = f"Above, response time in windows of {2 * half:.3g} s: {described}. Below, the intended rate."
    return svg.drawing(name, WIDTH, rate_bottom + 22, title, about, parts)


def _runs(seconds: FloatArray, times: FloatArray) -> list[list[tuple[float, float]]]:
    """Stretches without a gap; a single window becomes a short line."""
    runs: list[list[tuple[float, float]]] = [[]]
    for second, value in zip(seconds, times, strict=True):
        if np.isfinite(value) and value > 0:
            runs[-1].append((float(second), float(value)))
        elif runs[-1]:
            runs.append([])
    half = float(seconds[0])
    return [
        run if len(run) > 1 else [(run[0][0] - half, run[0][1]), (run[0][0] + half, run[0][1])]
        for run in runs
        if run
    ]


def _extremes(times: FloatArray) -> str:
    finite = times[np.isfinite(times)]
    return f"{finite.min():.0f} to {finite.max():.0f} us" if finite.size else "nothing"
