"""Numbers for drawings: distributions, response time along a trial, and the order of trials. Findings are not
made of these; findings.json holds them (`pictures`), so that drawing needs no request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from meshwise.findings.subject import Levels
from meshwise.stats.arrays import FloatArray

COURSE_QUANTILES = (0.5, 0.9)


@dataclass(frozen=True)
class Curve:
    """A cell's distribution of response time: `share` of requests answered within `response_us`."""

    at: Levels
    share: FloatArray
    response_us: FloatArray
    trials: int


@dataclass(frozen=True)
class Course:
    """A cell's response time against time within a trial, in equal windows."""

    at: Levels
    middle_s: FloatArray
    """Of each window."""
    intended_rps: FloatArray
    response_us: FloatArray
    """A row per quantile of COURSE_QUANTILES; NaN where too few were asked."""
    trials: int


@dataclass(frozen=True)
class DriftPoint:
    """One trial in the course of the study. `deviation` is a share: 0.02 is 2 % above its cell's median."""

    at: Levels
    trial_id: str
    block: int
    median_us: float
    deviation: float


@dataclass(frozen=True)
class StepCourse:
    """A step of the ladder in one metric, by second of the measured window."""

    at: Levels
    """The upper rung's."""
    finding: str
    """Id of the increment whose course it is."""
    lower: str
    upper: str
    metric: str
    ratio: FloatArray
    """Upper rung over lower, one value per whole second, geometric mean over executions."""
    slope: float
    """Of the natural log of the ratio, per second; mean over executions."""
    slope_low: float | None
    """An interval that holds for all slopes of the study at once; None below two executions."""
    slope_high: float | None
    executions: int
    drifts: bool
    """The interval excludes 0, and the change exceeds the step's noise floor."""

    @property
    def percent(self) -> float:
        """By which the ratio changes from the first second to the last, by the slope."""
        return float(100 * np.expm1(self.slope * (len(self.ratio) - 1)))


@dataclass(frozen=True)
class FlameFunction:
    """One function's own instructions per request, at both rungs of a step."""

    group: str
    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Flame:
    """A step by function; `at`: the upper rung's levels. By group, the costliest first."""

    at: Levels
    lower: str
    upper: str
    executions: int
    """Lives of the proxies, over which it is the mean."""
    functions: tuple[FlameFunction, ...]

    def as_json(self) -> dict[str, Any]:
        functions = [
            [own.group, own.name, _rounded(own.before), _rounded(own.after)] for own in self.functions
        ]
        return {
            "lower": self.lower, "upper": self.upper, "executions": self.executions, "functions": functions,
        }  # fmt: skip

    @classmethod
    def read(cls, entry: Mapping[str, Any], cells: Sequence[Levels]) -> Flame:
        functions = (
            FlameFunction(str(group), str(name), float(before), float(after))
            for group, name, before, after in entry["functions"]
        )
        return cls(
            cells[entry["cell"]], str(entry["lower"]), str(entry["upper"]), int(entry["executions"]),
            tuple(functions),
        )  # fmt: skip


@dataclass(frozen=True)
class DrawnSpan:
    """One span of a waterfall. Times in us from the beginning of the first."""

    depth: int
    who: str
    """`<workload>/<role>`"""
    name: str
    kind: str
    part: str
    """Of the request's way, to which its own time belongs (`measure.spans`)."""
    begun_us: float
    ended_us: float
    own_us: float
    critical_us: float


@dataclass(frozen=True)
class Waterfall:
    """One traced request of a cell, span by span, from the first down."""

    at: Levels
    which: str
    """`typical`: of about the median duration; `slow`: of about the P99."""
    trial_id: str
    trace_id: str
    spans: tuple[DrawnSpan, ...]

    @property
    def duration_us(self) -> float:
        return max((span.ended_us for span in self.spans), default=0.0)

    def as_json(self) -> dict[str, Any]:
        return {
            "which": self.which, "trial_id": self.trial_id, "trace_id": self.trace_id,
            "spans": [[_rounded(getattr(span, name)) for name in _SPAN] for span in self.spans],
        }  # fmt: skip

    @classmethod
    def read(cls, entry: Mapping[str, Any], cells: Sequence[Levels]) -> Waterfall:
        spans = tuple(DrawnSpan(**dict(zip(_SPAN, row, strict=True))) for row in entry["spans"])
        return cls(
            cells[entry["cell"]], str(entry["which"]), str(entry["trial_id"]), str(entry["trace_id"]), spans
        )


_SPAN = tuple(field.name for field in fields(DrawnSpan))


@dataclass(frozen=True)
class EventCourse:
    """What happened around an event, all its occurrences laid over each other at its beginning. Of rows of
    three: mean over executions, and the ends of its interval; NaN where it cannot be told."""

    at: Levels
    event: str
    twin: bool
    """The twin at the same times, to which nothing happened."""
    tail: float
    """The higher of the quantiles: 0.99, or 0.9 where requests are too few for it."""
    middle_ms: FloatArray
    """Of each bin, from the beginning of the event."""
    median_us: FloatArray
    tail_us: FloatArray
    failed: FloatArray
    """Share of the requests; one row."""
    cpus: FloatArray
    """Used by all sidecars."""
    windows_ms: FloatArray
    """Rows of from and to: where more is disturbed than usual."""
    done_ms: float | None
    """Median; None where it was never done."""
    occurrences: int
    executions: int


@dataclass(frozen=True)
class EventTimeline:
    """One trial in which something was done, from its beginning to its end."""

    at: Levels
    trial_id: str
    tail: float
    middle_s: FloatArray
    response_us: FloatArray
    """Median and tail."""
    failed: FloatArray
    """Requests of each window."""
    twin_us: FloatArray
    """Median and tail of the twin; empty without one."""
    marks_s: FloatArray
    """Rows of beginning and end (NaN: never), of `events`."""
    events: tuple[str, ...]


Picture = Curve | Course | DriftPoint | StepCourse | EventCourse | EventTimeline


@dataclass(frozen=True)
class Pictures:
    curves: tuple[Curve, ...] = ()
    courses: tuple[Course, ...] = ()
    drift: tuple[DriftPoint, ...] = ()
    """In the order of running."""
    flames: tuple[Flame, ...] = ()
    step_courses: tuple[StepCourse, ...] = ()
    event_courses: tuple[EventCourse, ...] = ()
    event_timelines: tuple[EventTimeline, ...] = ()
    waterfalls: tuple[Waterfall, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Six digits are enough to draw; levels stand once."""
        cells: list[Levels] = []
        every: tuple[Picture | Flame | Waterfall, ...] = (
            *self.curves, *self.courses, *self.drift, *self.step_courses, *self.flames,
            *self.event_courses, *self.event_timelines, *self.waterfalls,
        )  # fmt: skip
        for each in every:
            if each.at not in cells:
                cells.append(each.at)
        return {
            "cells": cells,
            "curves": [_row(each, cells, "share", "response_us", "trials") for each in self.curves],
            "courses": [
                _row(each, cells, "middle_s", "intended_rps", "response_us", "trials")
                for each in self.courses
            ],
            "drift": [
                _row(each, cells, "trial_id", "block", "median_us", "deviation") for each in self.drift
            ],
            "step_courses": [_row(each, cells, *_STEP_COURSE) for each in self.step_courses],
            "event_courses": [_row(each, cells, *_EVENT_COURSE) for each in self.event_courses],
            "event_timelines": [_row(each, cells, *_EVENT_TIMELINE) for each in self.event_timelines],
            "flames": [{"cell": cells.index(each.at)} | each.as_json() for each in self.flames],
            "waterfalls": [{"cell": cells.index(each.at)} | each.as_json() for each in self.waterfalls],
        }

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Pictures:
        """The inverse of `as_json`. Raises KeyError, TypeError, ValueError, IndexError for what is none."""
        cells = [dict(each) for each in found.get("cells", ())]
        curves, courses, drift, step_courses, event_courses, event_timelines = (
            tuple(kind(**_values(entry, cells)) for entry in found.get(name, ()))
            for name, kind in _PLAIN.items()
        )
        flames = tuple(Flame.read(each, cells) for each in found.get("flames", ()))
        waterfalls = tuple(Waterfall.read(each, cells) for each in found.get("waterfalls", ()))
        return cls(curves, courses, drift, flames, step_courses, event_courses, event_timelines, waterfalls)


_PLAIN: Mapping[str, Callable[..., Any]] = {
    "curves": Curve, "courses": Course, "drift": DriftPoint, "step_courses": StepCourse,
    "event_courses": EventCourse, "event_timelines": EventTimeline,
}  # fmt: skip
_STEP_COURSE = tuple(field.name for field in fields(StepCourse) if field.name != "at")
_EVENT_COURSE = tuple(field.name for field in fields(EventCourse) if field.name != "at")
_EVENT_TIMELINE = tuple(field.name for field in fields(EventTimeline) if field.name != "at")


def _row(picture: Picture, cells: list[Levels], *names: str) -> dict[str, Any]:
    return {"cell": cells.index(picture.at)} | {name: _rounded(getattr(picture, name)) for name in names}


def _rounded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_rounded(each) for each in value.tolist()]
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return (float(f"{value:.6g}") if np.isfinite(value) else None) if isinstance(value, float) else value


def _values(entry: Mapping[str, Any], cells: Sequence[Levels]) -> dict[str, Any]:
    values = {
        name: _read_list(value) if isinstance(value, list) else value
        for name, value in entry.items()
        if name != "cell"
    }
    return {"at": cells[entry["cell"]]} | values


def _read_list(value: list[Any]) -> Any:
    return tuple(value) if value and isinstance(value[0], str) else np.array(value, dtype=np.float64)
