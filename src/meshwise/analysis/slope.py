"""What one more of something costs: a further hop, KiB or policy entry; a further request, and idling.

A slope is fitted within each block and tested over executions (statistics over rows of a pooled fit would
cover .89 instead of .95). It is a straight line by construction: the levels stand beside it to show a bend.

CPU per request falls with the rate because part of it is there at no load. So CPU per *second* is fitted on
the rate: the slope is the cost of a further request, the intercept what idling costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from meshwise.analysis.contrast import Contrast, Naming, cell_scope
from meshwise.findings.finding import Kind
from meshwise.findings.metric import Scale
from meshwise.stats.regression import slope_coefficients
from meshwise.study.model import Cell, MeshName


@dataclass(frozen=True)
class Step:
    """One step of a factor, in words and as a unit."""

    factor: str
    size: int
    words: str
    unit: str


STEPS = (
    Step("length", 1, "each further {shape} node", "/node"),
    Step("request_bytes", 1024, "each further KiB of request", "/KiB"),
    Step("response_bytes", 1024, "each further KiB of response", "/KiB"),
    Step("policy_count", 100, "each further hundred policy entries", "/100 entries"),
)
CPU_METRICS = frozenset({"cpu_us_per_request", "pod_cpu_us_per_request", "proxy_cpu_us_per_request"})
LATENCY_AND_CPU = CPU_METRICS | {"response_p50_us", "response_p90_us", "response_p99_us", "response_mean_us"}


def slopes(cells: Sequence[Cell], naming: Naming) -> Iterator[Contrast]:
    """One contrast per factor of STEPS and group of cells that differ in it only; two per group for the
    rate."""
    for step in STEPS:
        for group in _groups(cells, step.factor):
            x = np.array([getattr(cell, step.factor) / step.size for cell in group])
            yield _contrast(
                group,
                step.factor,
                naming,
                slope_coefficients(x),
                "slope",
                step.words.format(shape=group[0].shape),
                step.unit,
            )
    for group in _groups(cells, "rate_rps"):
        if group[0].mesh is MeshName.NONE:
            continue
        rate = np.array([cell.rate_rps for cell in group])
        slope = slope_coefficients(rate)
        intercept = 1 / len(rate) - slope * rate.mean()
        for coefficients, part, words, unit in (
            (slope * rate, "per request", "each further request", ""),
            (intercept * rate, "idle", "idling", "/s"),
        ):
            yield _contrast(group, "rate_rps", naming, coefficients, part, words, unit)


def _groups(cells: Sequence[Cell], factor: str) -> list[list[Cell]]:
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        rest = tuple(getattr(cell, each.name) for each in fields(cell) if each.name != factor)
        groups.setdefault(rest, []).append(cell)
    return [sorted(group) for group in groups.values() if len(group) >= 2]


def _contrast(
    group: list[Cell], factor: str, naming: Naming, coefficients: np.ndarray, part: str, words: str, unit: str
) -> Contrast:
    first, last = group[0], group[-1]
    scope = cell_scope(first)
    scope |= {factor: f"{scope[factor]} to {getattr(last, factor)}", "factor": factor, "part": part}
    place = "none" if first.mesh is MeshName.NONE else f"{first.mesh}/{first.posture.name}"
    return Contrast(
        kind=Kind.DIFFERENCE,
        family=f"slope/{first.mesh}/{factor}/{part}",
        terms=tuple(zip(group, map(float, coefficients), strict=True)),
        from_name=str(getattr(first, factor)),
        to_name=str(getattr(last, factor)),
        scope=scope,
        key=f"{place}/{factor}-{part.replace(' ', '-')}/{naming.key(first, without=factor)}",
        across_processes=False,
        scale=Scale.DIFFERENCE,
        metrics=CPU_METRICS if factor == "rate_rps" else LATENCY_AND_CPU,
        step_words=words,
        step_unit=unit,
    )
