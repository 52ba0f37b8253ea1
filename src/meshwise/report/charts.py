"""The report's charts, each one SVG: ladders, increments, distributions, usage bars, drift.

Shape, dash and text carry every meaning that colour carries. All are WIDTH wide, a phone's width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from meshwise.findings.finding import Finding
from meshwise.findings.pictures import Curve, DriftPoint
from meshwise.findings.subject import AgainstNone, LadderStep
from meshwise.report import svg, words
from meshwise.report.content import Ladder, Rung
from meshwise.stats.verdict import Verdict

WIDTH = 380.0
LEFT = 118.0
"""Room for the names of the rungs; more where they are longer."""
MOST_LEFT = 190.0
LETTER = 6.3
"""Approximate width of a letter."""
RIGHT = 52.0
"""Room for the number at the end of a row."""
ROW = 24.0
SUBROW = 17.0
TOP = 10.0


def slug(text: str) -> str:
    """Part of a class or id: `strict+fine` -> `strict-fine`."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def _rows(rungs: Sequence[Rung]) -> tuple[list[float], float]:
    """The middle of each rung's row, meshes of one rung close together, room for the posture above its
    variants; and the bottom."""
    places, y, label, posture = [], TOP, "", ""
    for rung in rungs:
        y += ROW if rung.label != label else SUBROW
        if rung.variant and rung.posture != posture:
            y += SUBROW
        places.append(y - ROW / 2)
        label, posture = rung.label, rung.posture
    return places, y


def _left(rungs: Sequence[Rung]) -> float:
    names = [
        name for rung in rungs for name in ((rung.posture, rung.variant) if rung.variant else (rung.label,))
    ]
    return min(MOST_LEFT, max(LEFT, 14 + LETTER * max(map(len, names), default=0)))


def _names(rungs: Sequence[Rung], places: Sequence[float]) -> list[str]:
    """Each rung's name once, at its first row; variants under their posture."""
    parts, label, posture = [], "", ""
    left = _left(rungs)
    for rung, y in zip(rungs, places, strict=True):
        if rung.variant and rung.posture != posture:
            parts.append(svg.text(left - 10, y + 4 - SUBROW, rung.posture, "name", "end"))
        if rung.label != label:
            kind = "name variant" if rung.variant else "name"
            parts.append(svg.text(left - 10, y + 4, rung.variant or rung.label, kind, "end"))
        label, posture = rung.label, rung.posture
    return parts


def _mark(mesh: str, x: float, y: float, sure: bool, tip: str) -> str:
    """Disc for Istio and no mesh, diamond for Linkerd; hollow where not distinguishable."""
    cls = f"mark mesh-{slug(mesh)}" + ("" if sure else " hollow")
    return svg.diamond(x, y, 4.8, cls, tip) if mesh == "linkerd" else svg.circle(x, y, 3.4, cls, tip)


REACH = 1.6
"""An interval that reaches farther than this times the largest value ends in an arrow: one very wide interval
must not make all others too short to read."""


def _reach(findings: Sequence[Finding], form: words.Form) -> list[float]:
    """What a scale from zero has to hold."""
    values = [f.estimate / form.divisor for f in findings if f.estimate is not None]
    most = REACH * max(values, default=1.0)
    return [*values, *(min(f.high / form.divisor, most) for f in findings if f.high is not None)]


def ladder_chart(name: str, ladder: Ladder) -> str:
    """Value of each rung with its interval, from zero."""
    rungs = [rung for rung in ladder.rungs if rung.value]
    places, bottom = _rows(rungs)
    form = ladder.form
    scale = svg.linear(
        _reach([rung.value for rung in rungs if rung.value], form), _left(rungs), WIDTH - RIGHT, zero=True
    )
    parts = svg.x_axis(scale, TOP, bottom, [(tick, words.axis_number(tick)) for tick in scale.ticks(5)])
    parts += _names(rungs, places)
    for rung, y in zip(rungs, places, strict=True):
        finding = rung.value
        assert finding is not None
        parts.append(svg.text(WIDTH - 2, y + 4, form.value(finding.estimate), "number", "end"))
        if finding.estimate is None:
            continue
        x = scale(finding.estimate / form.divisor)
        interval = form.interval(finding.low, finding.high)
        tip = f"{rung.mesh} {rung.label}: {form.with_unit(finding.estimate)} {interval}"
        parts.append(svg.line(scale(0), y, x, y, f"stem mesh-{slug(rung.mesh)}"))
        parts.append(_whiskers(scale, finding, form, y, rung.mesh))
        parts.append(_mark(rung.mesh, x, y, True, tip))
    title = f"{ladder.titled.title}, {form.unit}"
    described = "; ".join(f"{r.mesh} {r.label} {form.value(r.value.estimate)}" for r in rungs if r.value)
    return svg.drawing(
        name, WIDTH, bottom + 22, title, f"Value of each rung with its interval: {described}.", parts
    )


def step_chart(name: str, ladder: Ladder) -> str:
    """What each rung adds to the one below, with its interval and the noise floor as a band around zero.

    Rows stand where they stand in `ladder_chart`; the lowest rung has nothing to add to."""
    rungs = [rung for rung in ladder.rungs if rung.value]
    places, bottom = _rows(rungs)
    form = ladder.form
    steps = [
        (r, r.step, y) for r, y in zip(rungs, places, strict=True) if r.step and r.step.estimate is not None
    ]
    if not steps:
        return ""
    title = f"What each step adds to {ladder.titled.title}, {form.unit}"
    return _effects(name, rungs, steps, form, bottom, title, "Increment over the rung below")


def effect_chart(
    name: str, rows: Sequence[tuple[Rung, Finding]], form: words.Form, title: str, about: str
) -> str:
    """Differences of any kind, one per row, with interval and noise floor around zero. `about` says what."""
    rungs = [rung for rung, _ in rows]
    places, bottom = _rows(rungs)
    shown = [(r, f, y) for (r, f), y in zip(rows, places, strict=True) if f.estimate is not None]
    return _effects(name, rungs, shown, form, bottom, title, about) if shown else ""


def _effects(
    name: str,
    rungs: Sequence[Rung],
    effects: Sequence[tuple[Rung, Finding, float]],
    form: words.Form,
    bottom: float,
    title: str,
    about: str,
) -> str:
    longest = max(len(form.signed(finding.estimate)) for _, finding, _ in effects)
    right = max(RIGHT, 32 + LETTER * longest)
    scale = svg.linear(
        _effect_reach([f for _, f, _ in effects], form), _left(rungs), WIDTH - right, zero=True
    )
    parts = svg.x_axis(scale, TOP, bottom, [(tick, words.axis_number(tick)) for tick in scale.ticks(5)])
    parts += [_band(scale, finding, form, y) for _, finding, y in effects]
    parts.append(svg.line(scale(0), TOP, scale(0), bottom, "zero"))
    parts += _names(rungs, _rows(rungs)[0])
    described = []
    for rung, finding, y in effects:
        assert finding.estimate is not None
        sure = finding.verdict is Verdict.DISTINGUISHABLE
        number, verdict = form.signed(finding.estimate), str(words.verdict_words(finding, form))
        subject = finding.subject
        over = f" over {subject.lower}" if isinstance(subject, LadderStep | AgainstNone) else ""
        described.append(f"{rung.mesh} {rung.label} {number} ({verdict})")
        interval = form.interval(finding.low, finding.high)
        tip = f"{rung.mesh} {rung.label}{over}: {number} {interval}, {verdict}"
        parts.append(_whiskers(scale, finding, form, y, rung.mesh))
        parts.append(_mark(rung.mesh, scale(finding.estimate / form.divisor), y, sure, tip))
        shown = words.typeset(number)
        parts.append(svg.text(WIDTH - 2, y + 4, shown if sure else f"~ {shown}", "number", "end"))
    return svg.drawing(name, WIDTH, bottom + 22, title, f"{about}: {'; '.join(described)}.", parts)


EFFECT_REACH = 3.0
"""As REACH, for differences: times the largest of them; or the typical interval, if that reaches farther."""


def _effect_reach(effects: Sequence[Finding], form: words.Form) -> list[float]:
    """What a scale around zero has to hold; intervals and floors only as far as they do not hide the rest."""
    values = [f.estimate / form.divisor for f in effects if f.estimate is not None]
    halves = sorted(
        (f.high - f.low) / 2 / form.divisor for f in effects if f.low is not None and f.high is not None
    )
    most = max([EFFECT_REACH * abs(value) for value in values], default=1.0)
    if halves:
        most = max(most, 1.5 * halves[len(halves) // 2])
    spread = [n / form.divisor for f in effects for n in (f.low, f.high) if n is not None]
    spread += [sign * f.floor / form.divisor for f in effects if f.floor for sign in (1, -1)]
    return [*values, *(max(-most, min(most, n)) for n in spread)]


def _band(scale: svg.AxisScale, step: Finding, form: words.Form, y: float) -> str:
    if not step.floor:
        return ""
    half = step.floor / form.divisor
    left, right = scale(-half), scale(half)
    return svg.rect(
        left, y - SUBROW / 2, right - left, SUBROW, "band", f"noise floor ±{form.with_unit(step.floor)}"
    )


def _whiskers(scale: svg.AxisScale, finding: Finding, form: words.Form, y: float, mesh: str) -> str:
    """The interval; a bound beyond the scale is an arrow at its edge."""
    if finding.low is None or finding.high is None:
        return ""
    low, high = finding.low / form.divisor, finding.high / form.divisor
    parts: list[list[svg.Point]] = [[(scale(low), y), (scale(high), y)]]
    for bound, inward in ((low, 1), (high, -1)):
        x = scale(bound)
        back = x if scale.low <= bound <= scale.high else x + 5 * inward
        parts.append([(back, y - 4), (x, y), (back, y + 4)])
    return svg.strokes(parts, f"whisker mesh-{slug(mesh)}")


SHARES = (0.01, 0.5, 0.9, 0.99, 0.999, 0.9999)


def distribution_chart(name: str, title: str, curves: Sequence[Curve]) -> str:
    """Share of requests answered within a time; time is logarithmic, the share stretched towards its tail."""
    left, right, top, bottom = 48.0, WIDTH - 12, 10.0, 270.0
    shown = [curve for curve in curves if len(curve.share)]
    if not shown:
        return ""
    x = svg.logarithmic(
        [float(t) for curve in shown for t in (curve.response_us[0], curve.response_us[-1])], left, right
    )
    most = max(float(curve.share[-1]) for curve in shown)
    y = svg.AxisScale(_nines(0.0), _nines(most) * 1.03, bottom, top)
    labels = [(_nines(share), f"{100 * share:g}%") for share in SHARES if share <= most]
    parts = svg.y_axis(y, left, right, labels)
    parts += svg.x_axis(x, top, bottom, [(tick, words.axis_time_us(tick)) for tick in x.ticks(8)])
    for curve in shown:
        points = [
            (x(float(t)), y(_nines(float(p)))) for p, t in zip(curve.share, curve.response_us, strict=True)
        ]
        posture = str(curve.at["posture"])
        parts.append(
            svg.polyline(_thinned(points), f"curve rung-{slug(posture)}", f"{curve.at['mesh']} {posture}")
        )
    described = "; ".join(f"{curve.at['posture']}: {_percentiles(curve)}" for curve in shown)
    return svg.drawing(name, WIDTH, bottom + 22, title, f"Response time of each posture: {described}.", parts)


def _nines(share: float) -> float:
    """0 for 0, 1 for 90 %, 2 for 99 %: every nine has the same height."""
    return float(-np.log10(1 - share))


def _percentiles(curve: Curve) -> str:
    found = []
    for share in (0.5, 0.9, 0.99):
        if share <= curve.share[-1]:
            found.append(
                f"{100 * share:g}% within {float(np.interp(share, curve.share, curve.response_us)):.0f} us"
            )
    return ", ".join(found)


def _thinned(points: list[svg.Point]) -> list[svg.Point]:
    """Without points nearer than 1.5 units to the one before: they cannot be seen, and fill the file."""
    kept = points[:1]
    for point in points[1:]:
        if abs(point[0] - kept[-1][0]) + abs(point[1] - kept[-1][1]) >= 1.5:
            kept.append(point)
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def bar_chart(name: str, title: str, rows: Sequence[tuple[Rung, Finding]], form: words.Form) -> str:
    """One bar per rung, from zero, with its interval."""
    rungs = [rung for rung, _ in rows]
    places, bottom = _rows(rungs)
    scale = svg.linear(_reach([finding for _, finding in rows], form), _left(rungs), WIDTH - RIGHT, zero=True)
    parts = svg.x_axis(scale, TOP, bottom, [(tick, words.axis_number(tick)) for tick in scale.ticks(4)])
    parts += _names(rungs, places)
    for (rung, finding), y in zip(rows, places, strict=True):
        if finding.estimate is None:
            continue
        end = scale(finding.estimate / form.divisor)
        tip = f"{rung.mesh} {rung.label}: {form.with_unit(finding.estimate)}"
        parts.append(svg.rect(scale(0), y - 6, end - scale(0), 12, f"bar mesh-{slug(rung.mesh)}", tip))
        parts.append(_whiskers(scale, finding, form, y, "over-bar"))
        parts.append(svg.text(WIDTH - 2, y + 4, form.value(finding.estimate), "number", "end"))
    described = "; ".join(
        f"{rung.mesh} {rung.label} {form.value(finding.estimate)}" for rung, finding in rows
    )
    return svg.drawing(name, WIDTH, bottom + 22, title, f"{described}.", parts)


def drift_chart(name: str, title: str, points: Sequence[DriftPoint]) -> str:
    """Each trial's median against its cell's, in order of running; blocks alternate in shade and shape."""
    left, right, top, bottom = 48.0, WIDTH - 10, 10.0, 190.0
    if not points:
        return ""
    deviations = [100 * point.deviation for point in points]
    reach = max(1.0, *(abs(deviation) for deviation in deviations))
    x = svg.AxisScale(-0.5, len(points) - 0.5, left, right)
    y = svg.AxisScale(-reach * 1.1, reach * 1.1, bottom, top)
    parts, start = [], 0
    for index in range(1, len(points) + 1):
        if index == len(points) or points[index].block != points[start].block:
            block = points[start].block
            wide = x(index - 0.5) - x(start - 0.5)
            if block % 2:
                parts.append(svg.rect(x(start - 0.5), top, wide, bottom - top, "block"))
            if wide > 16:
                parts.append(
                    svg.text(
                        (x(start - 0.5) + x(index - 0.5)) / 2, bottom + 15, str(block + 1), "tick", "middle"
                    )
                )
            start = index
    parts += svg.y_axis(
        y, left, right, [(tick, f"{tick:+g}%".replace("-", "−") if tick else "0") for tick in y.ticks(5)]
    )
    for index, (point, deviation) in enumerate(zip(points, deviations, strict=True)):
        described = f"{point.median_us:.0f} us, {deviation:+.1f} %"
        tip = f"{point.trial_id} {point.at['mesh']} {point.at['posture']}: {described}"
        odd = point.block % 2
        mark = svg.diamond if odd else svg.circle
        parts.append(
            mark(x(index), y(deviation), 3.4 if odd else 2.6, f"dot {'odd' if odd else 'even'}", tip)
        )
    parts.append(
        svg.text((left + right) / 2, bottom + 30, "block, in the order of running", "tick", "middle")
    )
    blocks = len({point.block for point in points})
    described = (
        f"{len(points)} trials in {blocks} blocks; largest deviation {max(map(abs, deviations)):.1f} percent."
    )
    return svg.drawing(name, WIDTH, bottom + 36, title, described, parts)
