"""How a study's load moves within a trial, for `meshwise plan`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshwise.core.units import format_duration
from meshwise.report.spark import spark
from meshwise.study.load.rate import RateOverTime, rate_over_time
from meshwise.study.model import Study

WIDTH = 60
MOST_RATES = 4


def profiles(study: Study) -> Iterator[tuple[float, RateOverTime]]:
    """By rate of the cells, ascending; none where the load does not move."""
    shape = study.trial.shape
    if shape is not None:
        for rate in sorted({cell.rate_rps for cell in study.cells}):
            yield rate, rate_over_time(shape, rate, study.trial.duration_ns)


def load_lines(study: Study) -> list[str]:
    """In words and as a picture; nothing for a steady load."""
    plan = study.trial
    if plan.think is not None:
        return [f"load: a closed loop that thinks {plan.think.words} after each answer"]
    if plan.shape is None:
        return []
    found = list(profiles(study))
    picture = spark([float(level) for level in found[0][1].means(WIDTH)])
    arrivals = "" if plan.shape.times else f", {plan.arrivals} arrivals"
    peaks = [_peak(study, rate, each) for rate, each in found[:MOST_RATES]]
    return [
        f"load: {plan.shape.words}{arrivals}",
        f"{picture} {format_duration(plan.duration_ns)}; {'; '.join(peaks)}",
    ]


def _peak(study: Study, rate_rps: float, moving: RateOverTime) -> str:
    shape = study.trial.shape
    where = "" if shape and shape.trace else f" at {rate_rps:g}/s"
    over = " over a tenth of a second" if shape and shape.times else ""
    return f"mean {rate_rps * moving.mean:.0f}/s, peak {rate_rps * moving.peak:.0f}/s{over}{where}"


def load_document(study: Study) -> dict[str, Any]:
    """The same as plain values."""
    plan = study.trial
    return {
        "arrivals": str(plan.arrivals),
        "think_ns": plan.think.mean_ns if plan.think else None,
        "think_exponential": plan.think.exponential if plan.think else None,
        "shape": plan.shape.words if plan.shape else None,
        "trace_sha256": plan.shape.trace.sha256 if plan.shape and plan.shape.trace else None,
        "rates": [
            {
                "rate_rps": rate,
                "mean_rps": rate * each.mean,
                "peak_rps": rate * each.peak,
                "course_rps": [rate * float(level) for level in each.means(WIDTH)],
            }
            for rate, each in profiles(study)
        ],
    }
