"""What one more of something costs: a further hop, KiB or policy entry; a further request, and idling.

A slope is fitted within each block and tested over executions (statistics over rows of a pooled fit would
cover .89 instead of .95). It is a straight line by construction: the levels stand beside it to show a bend.

CPU per request falls with the rate because part of it is there at no load. So CPU per *second* is fitted on
the rate: the slope is the cost of a further request, the intercept what idling costs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace

import numpy as np

from meshwise.analysis.contrast import Contrast, Naming, cell_scope, place_of
from meshwise.findings.metric import INSTRUCTIONS, Scale
from meshwise.findings.subject import STEPS, Slope, SlopePart
from meshwise.stats.regression import slope_coefficients
from meshwise.study.factors import FACTORS
from meshwise.study.model import Cell, MeshName

CPU_METRICS = frozenset({"cpu_us_per_request", "pod_cpu_us_per_request", "proxy_cpu_us_per_request"})
LATENCY_AND_CPU = CPU_METRICS | {"response_p50_us", "response_p90_us", "response_p99_us", "response_mean_us"}


def slopes(cells: Sequence[Cell], naming: Naming) -> Iterator[Contrast]:
    """One contrast per factor with a step and group of cells that differ in it only; two per group for the
    rate."""
    for step in (each for each in STEPS if each.part is SlopePart.SLOPE):
        for group in _groups(cells, step.factor):
            x = np.array([getattr(cell, step.factor) / step.size for cell in group])
            yield _contrast(group, step.factor, naming, slope_coefficients(x), step.part)
    for group in _groups(cells, "rate_rps"):
        if group[0].mesh is MeshName.NONE:
            continue
        rate = np.array([cell.rate_rps for cell in group])
        slope = slope_coefficients(rate)
        intercept = 1 / len(rate) - slope * rate.mean()
        yield _contrast(group, "rate_rps", naming, slope * rate, SlopePart.REQUEST)
        yield _contrast(group, "rate_rps", naming, intercept * rate, SlopePart.IDLE)


def counted_slopes(cells: Sequence[Cell], naming: Naming) -> Iterator[Contrast]:
    """The same of what is counted, which is fine enough for a single rule; it has no rate."""
    for step in STEPS:
        if step.part is SlopePart.RULE or (step.part is SlopePart.SLOPE and step.factor != "policy_count"):
            for group in _groups(cells, step.factor):
                x = np.array([getattr(cell, step.factor) / step.size for cell in group])
                found = _contrast(group, step.factor, naming, slope_coefficients(x), step.part)
                yield replace(found, metrics=frozenset({INSTRUCTIONS}))


def _groups(cells: Sequence[Cell], factor: str) -> list[list[Cell]]:
    """Cells that agree in all else. A level of the factor that leaves others without a meaning (no policy
    entries: of no kind) is of every level of those."""
    idle = {each.field: each.needs[1] for each in FACTORS if each.needs and each.needs[0] == factor}

    def rest(cell: Cell, without: Collection[str]) -> tuple[object, ...]:
        return tuple(getattr(cell, each.name) for each in fields(cell) if each.name not in (factor, *without))

    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(rest(cell, ()), []).append(cell)
    if idle:
        level = next(iter(idle.values()))
        bare = {rest(cell, idle): cell for cell in cells if getattr(cell, factor) == level}
        for group in groups.values():
            first = bare.get(rest(group[0], idle))
            if first is not None and first not in group:
                group.append(first)
    return [sorted(group) for group in groups.values() if len(group) >= 2]


def _contrast(
    group: list[Cell], factor: str, naming: Naming, coefficients: np.ndarray, part: SlopePart
) -> Contrast:
    first, last = group[0], group[-1]
    at = cell_scope(last)  # in the first what hangs on the factor may have no meaning
    at |= {factor: f"{cell_scope(first)[factor]} to {at[factor]}"}
    return Contrast(
        Slope(at, factor, part),
        family=f"slope/{first.mesh}/{factor}/{part}",
        terms=tuple(zip(group, map(float, coefficients), strict=True)),
        key=f"{place_of(last)}/{factor}-{part.replace(' ', '-')}/{naming.key(last, without=factor)}",
        across_processes=False,
        scale=Scale.DIFFERENCE,
        metrics=CPU_METRICS if factor == "rate_rps" else LATENCY_AND_CPU,
    )
