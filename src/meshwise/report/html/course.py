"""The page's figures of response time against time, where the load moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from meshwise.analysis.course import QUANTILES, Course
from meshwise.report.charts import slug
from meshwise.report.content import FREE, Slice
from meshwise.report.course import course_chart
from meshwise.report.html.sections import Figure, of_slice
from meshwise.report.words import rung_order

_SPOKEN = {0.5: "median", 0.9: "P90"}


def course_figures(part: Slice, found: Sequence[Course]) -> Iterator[Figure]:
    """A figure per mesh and quantile, no mesh beside each."""
    own = [course for course in found if of_slice(course.cell, part)]
    for mesh in part.meshes or ("none",):
        shown = _one_per_posture([course for course in own if str(course.cell.mesh) in (mesh, "none")])
        for p in QUANTILES:
            title = f"{mesh}: {_SPOKEN[p]} response time over a trial, and the intended rate"
            name = f"{slug(part.label)}-{slug(mesh)}-course-{100 * p:g}"
            if drawing := course_chart(name, title, shown, p):
                keys = [course.cell.posture.name for course in shown]
                legend = tuple((f"rung-{slug(posture)} key-line", posture) for posture in keys)
                yield Figure(Markup(drawing), title, legend)


def _one_per_posture(found: Sequence[Course]) -> list[Course]:
    """In the order of the ladder; of variants (policies, keys), which would look the same, the highest."""
    ordered = sorted(
        found,
        key=lambda course: (
            rung_order(course.cell.posture.name),
            tuple(str(getattr(course.cell, name)) for name in FREE),
        ),
    )
    return list({course.cell.posture.name: course for course in ordered}.values())
