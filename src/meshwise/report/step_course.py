"""What the steps of a ladder cost from second to second of a round, each against its own mean: a step that is
the same throughout is a level line at 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from meshwise.findings.pictures import StepCourse
from meshwise.report import svg
from meshwise.report.charts import WIDTH, slug
from meshwise.stats.arrays import FloatArray

LEAST_REACH = 1.0
"""Per cent to either side that are shown at least: less is not to look large."""


def step_course_chart(name: str, title: str, courses: Sequence[StepCourse]) -> str:
    """One line per step; empty without one."""
    left, right, top, bottom = 48.0, WIDTH - 12, 10.0, 150.0
    if not courses:
        return ""
    lines = [(course, _deviation(course)) for course in courses]
    reach = 1.1 * max(LEAST_REACH, *(float(np.abs(line).max()) for _, line in lines))
    most = max(len(line) for _, line in lines)
    x, y = svg.AxisScale(0.0, float(most), left, right), svg.AxisScale(-reach, reach, bottom, top)
    parts = svg.x_axis(x, top, bottom, [(tick, f"{tick:g} s") for tick in x.ticks(6)])
    labels = [(tick, f"{tick:+g}%".replace("-", "−") if tick else "0") for tick in y.ticks(4)]
    parts += svg.y_axis(y, left, right, labels)
    parts.append(svg.line(left, y(0), right, y(0), "zero"))
    for course, line in lines:
        points = [(x(second + 0.5), y(float(value))) for second, value in enumerate(line)]
        parts.append(svg.polyline(points, f"curve rung-{slug(course.upper)}", step_label(course)))
    described = "; ".join(f"{step_label(course)}: {course.percent:+.1f} percent" for course, _ in lines)
    about = f"Change of each step from the first second to the last, by a straight line: {described}."
    return svg.drawing(name, WIDTH, bottom + 22, title, about, parts)


def step_label(course: StepCourse) -> str:
    return f"{course.lower} → {course.upper}" + (", drifts" if course.drifts else "")


def _deviation(course: StepCourse) -> FloatArray:
    """Per cent from the geometric mean over the seconds."""
    logs = np.log(course.ratio)
    return np.asarray(100 * np.expm1(logs - logs.mean()))
