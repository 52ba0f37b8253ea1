"""One counting trial's instructions by function -> by group of functions.

Where a sidecar's program has no symbols its instructions cannot be told apart: such a trial has no groups,
and its counts can only be compared with one another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import polars as pl

from meshwise.findings.metric import BY_GROUP, MetricKey
from meshwise.measure.function_groups import Group, group_of
from meshwise.study.counting import WindowKind
from meshwise.study.model import MeshName, Trial
from meshwise.telemetry.counting.seam import Function
from meshwise.telemetry.source import Source

MOST_UNNAMED = 0.25
"""Share of a sidecar's instructions without a symbol above which they are not attributed."""


def per_request(functions: pl.DataFrame) -> Mapping[str, Mapping[Function, float]]:
    """Of each sidecar by its workload: instructions of every function per request, without what goes on while
    nothing is asked. `functions`: rows of one trial of `archive.schema.FUNCTIONS`."""
    asked: dict[str, Counter[Function]] = {}
    idle: dict[str, Counter[Function]] = {}
    requests, lengths = 0, dict.fromkeys(WindowKind, 0)
    columns = ("kind", "source", "binary", "function", "value", "requests", "duration_ns")
    for kind, source, binary, name, value, answered, duration_ns in functions.select(columns).iter_rows():
        place = Source.read(source)
        if place is None or place.role != "proxy":
            continue
        own = asked if kind == WindowKind.REQUESTS else idle
        own.setdefault(place.workload, Counter())[Function(binary, name)] += value
        lengths[WindowKind(kind)] = duration_ns
        requests = answered if kind == WindowKind.REQUESTS else requests
    if not requests:
        return {}
    share = lengths[WindowKind.REQUESTS] / lengths[WindowKind.IDLE] if lengths[WindowKind.IDLE] else 0.0
    return {
        workload: {
            function: (told[function] - share * idle.get(workload, Counter())[function]) / requests
            for function in told
        }
        for workload, told in asked.items()
    }


def named(told: Mapping[Function, float]) -> bool:
    """Whether the program had symbols."""
    unnamed = sum(value for function, value in told.items() if not function.name)
    return unnamed <= MOST_UNNAMED * sum(told.values())


def attributed(trial: Trial, functions: pl.DataFrame) -> Mapping[Function, float] | None:
    """Instructions of all sidecars together per request, by function; None where the program of one has no
    symbols, or one was not counted."""
    told = per_request(functions)
    if {workload.name for workload in trial.cell.topology.workloads} != set(told):
        return None
    if not all(named(own) for own in told.values()):
        return None
    found: dict[Function, float] = {}
    for own in told.values():
        for function, value in own.items():
            found[function] = found.get(function, 0.0) + value
    return found


def by_group(mesh: MeshName, functions: Mapping[Function, float]) -> dict[MetricKey, float]:
    """Every group's sum."""
    found = dict.fromkeys(Group, 0.0)
    for function, value in functions.items():
        found[group_of(mesh, function)] += value
    return {MetricKey(BY_GROUP, str(group)): value for group, value in found.items()}
