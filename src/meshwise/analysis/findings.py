"""All of the analysis: trials in, findings out. Pure; the only entry that other rooms need.

    results = measure_trials(trials, tables)            # streams; holds one trial's requests at a time
    document = findings(results, outcomes, settings, environment)

Order of the findings: checks, noise floors, levels, increments, differences, events, variance.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from meshwise.analysis.alone import levels_alone
from meshwise.analysis.assess import assess
from meshwise.analysis.checks import Outcome, all_checks
from meshwise.analysis.company import across_arrangements, arms_beside, rounds_of
from meshwise.analysis.compare import between_increments, between_meshes
from meshwise.analysis.contrast import Contrast, Effect, Naming, evaluate
from meshwise.analysis.event_cohorts import EventOfCell, events_of
from meshwise.analysis.event_findings import event_findings
from meshwise.analysis.event_pictures import event_courses, event_timeline
from meshwise.analysis.fairness import Facts, fairness, unlike
from meshwise.analysis.floor import ControlNoise, controls, floor_finding
from meshwise.analysis.grid import Grid, compared
from meshwise.analysis.hysteresis import hysteresis
from meshwise.analysis.increment import against_none, ladder
from meshwise.analysis.interaction import interactions
from meshwise.analysis.level import levels
from meshwise.analysis.level_steps import level_steps
from meshwise.analysis.limits import limit_of, limits, soaks
from meshwise.analysis.outliers import flagged
from meshwise.analysis.pictures import pictures
from meshwise.analysis.rate_curve import along_the_rate
from meshwise.analysis.saturation import as_results, bounds, curves, searches, unfinished
from meshwise.analysis.settings import Settings
from meshwise.analysis.slope import slopes
from meshwise.analysis.step_course import step_courses, with_drift
from meshwise.analysis.variance import variance_findings
from meshwise.archive.rows import trial_of
from meshwise.findings.finding import Finding, Findings
from meshwise.findings.flag import HOST_LIMITED, INSTRUMENT_LIMITED, Flag
from meshwise.findings.metric import MetricKey
from meshwise.findings.pictures import Pictures, StepCourse
from meshwise.findings.reason import read_reasons
from meshwise.measure.attribution import Machine
from meshwise.measure.events import measure_events
from meshwise.measure.moments import Moments
from meshwise.measure.trial import UNKNOWN_MACHINE, TrialResult, measure
from meshwise.study.model import Cell, Role, Trial

Tables = tuple[str, pl.DataFrame, pl.DataFrame]
"""trial_id, its requests, its telemetry; frames as in `archive.schema`."""


def outcomes_of(trials: pl.DataFrame) -> tuple[Outcome, ...]:
    """`trials.parquet` -> how each trial ended, in its order."""
    return tuple(
        Outcome(
            trial_of(row),
            row["status"],
            row.get("failure") or "",
            row.get("result") or "",
            read_reasons(row.get("reason") or ""),
        )
        for row in trials.iter_rows(named=True)
    )


def recorded_flags(trials: pl.DataFrame) -> dict[str, tuple[Flag, ...]]:
    """trial_id -> flags that the run itself put on the trial, and what its instrument reported."""
    flags = {}
    for row in trials.iter_rows(named=True):
        found = [Flag.read(text) for text in row.get("flags") or ()]
        limit = json.loads(row.get("instrument") or "{}").get("limited_by")
        if limit == "instrument":
            found.append(INSTRUMENT_LIMITED())
        elif limit == "host":
            found.append(HOST_LIMITED())
        flags[row["trial_id"]] = tuple(found)
    return flags


def measure_trials(
    trials: Mapping[str, Trial],
    tables: Iterable[Tables],
    flags: Mapping[str, tuple[Flag, ...]],
    moving_ns: int | None = None,
    machine: Machine = UNKNOWN_MACHINE,
    halved: Collection[Cell] = (),
    seed: int = 0,
    seconds: int = 0,
    moments: Mapping[str, Moments] | None = None,
) -> Iterator[TrialResult]:
    """One result per entry of `tables`, as they come. `trials` and `flags` by trial_id; `moving_ns`,
    `machine` and `seconds` as in `measure`. `halved`: cells whose trials are divided in two, by the
    `seed`. `moments`: when something was done to a trial, by trial_id."""
    for trial_id, requests, telemetry in tables:
        trial = trials[trial_id]
        halves_seed = seed if trial.role is Role.CELL and trial.cell in halved else None
        own = flags.get(trial_id, ())
        result = measure(trial, requests, telemetry, own, moving_ns, machine, halves_seed, seconds)
        if moments and trial_id in moments:
            around = measure_events(trial, requests, telemetry, moments[trial_id])
            result = replace(result, events=around)
        yield result


def findings(
    results: Iterable[TrialResult],
    outcomes: Sequence[Outcome],
    settings: Settings,
    environment: Mapping[str, Any] | None = None,
    facts: Facts | None = None,
) -> Findings:
    """`results` of the trials that ended `ok` only; `outcomes` of all; `facts` of their proofs."""
    searched = searches(settings.search, results, outcomes) if settings.search else []
    grid = Grid.of(as_results(searched) if settings.search else results, settings.cells)
    naming = Naming.of(grid.cells)
    confidence = settings.confidence
    by_metric = controls_of(grid, confidence, twins=not settings.twins_undisturbed)
    found: list[Finding] = list(all_checks(grid, outcomes, by_metric, settings, naming))
    found += _floors(by_metric, grid, confidence)
    found += levels(grid, naming, settings)
    found += levels_alone(grid, naming, settings)
    machine = Machine.of(environment or {})
    if settings.search:
        found = [
            unfinished(searched, settings),
            *limits(searched, machine, naming, settings),
            *soaks(searched, naming, settings),
            *found,
            *bounds(searched, naming, confidence, settings.search.limit_rps),
            *along_the_rate(searched, settings),
            *hysteresis(searched, naming, settings),
        ]
    traits = (environment or {}).get("traits", {})
    steps = arranged(ladder(grid.cells, naming), settings)
    courses = () if settings.search else step_courses(grid, steps, by_metric, settings)
    differences = comparisons(
        grid, by_metric, naming, settings, lambda contrast: unlike(contrast, traits, facts or {})
    )
    found += with_drift(differences, courses)
    happened = list(events_of(grid, settings.arrangement, settings.seed, confidence))
    found += event_findings(happened, naming, settings)
    for key in settings.primary:
        if key in grid.metrics:
            found += variance_findings(grid, key, confidence, settings.seed)
    statuses = Counter(outcome.status for outcome in outcomes)
    study = settings.as_json() | {
        "trials": {status: statuses[status] for status in ("ok", "failed", "unproven")},
        "blocks": len(grid.blocks),
        "executions": len(set(grid.executions.tolist())),
        "cells": [cell.name for cell in grid.cells],
    }
    if settings.together:
        study["rounds"] = [each.as_json() for each in rounds_of(grid)]
    if settings.search:
        objective = settings.search.objective
        study["saturation"] = {
            "objective": objective.words,
            "limits": [{"p": p, "at_most_us": ns / 1e3} for p, ns in objective.quantiles],
            "searches": curves(searched, [limit_of(each, machine) for each in searched]),
        }
    card = fairness(grid.cells, traits, facts or {})
    return Findings(
        study=study,
        environment=environment or {},
        findings=tuple(found),
        fairness=tuple(entry.as_json() for entry in card),
        pictures=Pictures() if settings.search else _drawn(grid, courses, happened, confidence),
    )


def _drawn(
    grid: Grid, steps: Sequence[StepCourse], happened: Sequence[EventOfCell], confidence: float
) -> Pictures:
    first = {each.cell: each for each in reversed(happened)}
    return replace(
        pictures(grid.results, steps),
        event_courses=tuple(course for each in happened for course in event_courses(each, confidence)),
        event_timelines=tuple(map(event_timeline, reversed(first.values()))),
    )


def controls_of(grid: Grid, confidence: float, *, twins: bool = True) -> dict[MetricKey, list[ControlNoise]]:
    """The A/A controls of every metric that is compared."""
    return {key: controls(grid, key, confidence, twins=twins) for key in compared(grid.metrics, grid.cells)}


def comparisons(
    grid: Grid,
    by_metric: Mapping[MetricKey, list[ControlNoise]],
    naming: Naming,
    settings: Settings,
    flags: Callable[[Contrast], tuple[Flag, ...]] = lambda _: (),
) -> list[Finding]:
    """Increments and differences of the metrics in `by_metric`, each with the flags of its contrast."""
    contrasts = [
        replace(each, flags=(*each.flags, *flags(each)))
        for each in arranged(contrasts_of(grid, naming), settings)
    ]
    effects = evaluate_all(grid, contrasts, list(by_metric))
    outliers = {key: flagged(grid, key, settings) for key in by_metric}
    return assess(effects, by_metric, settings, grid, outliers, naming)


def arranged(contrasts: Iterable[Contrast], settings: Settings) -> list[Contrast]:
    """The same with what the arrangement of the study says of them."""
    if not settings.together:
        return list(contrasts)
    beside = arms_beside(settings)
    return [
        replace(
            each,
            # Every arm has processes of its own, so layout is in each of their differences.
            across_processes=True,
            in_rounds=all(beside.get(cell, 0) for cell, _ in each.terms),
            flags=(*each.flags, *across_arrangements(each, beside)),
        )
        for each in contrasts
    ]


def contrasts_of(grid: Grid, naming: Naming) -> list[Contrast]:
    """Every comparison that the study's cells allow."""
    return [
        *ladder(grid.cells, naming),
        *against_none(grid.cells, naming),
        *interactions(grid.cells, naming),
        *slopes(grid.cells, naming),
        *level_steps(grid.cells, naming),
        *between_meshes(grid.cells, naming),
        *between_increments(grid.cells, naming),
    ]


def evaluate_all(grid: Grid, contrasts: Sequence[Contrast], keys: Sequence[MetricKey]) -> list[Effect]:
    effects = (evaluate(grid, contrast, key) for contrast in contrasts for key in keys)
    return [effect for effect in effects if effect is not None]


def _floors(
    by_metric: Mapping[MetricKey, list[ControlNoise]], grid: Grid, confidence: float
) -> Iterator[Finding]:
    n = len(set(grid.executions.tolist()))
    for name, found in by_metric.items():
        for control in found:
            yield floor_finding(control, name, n, confidence)
