"""Where a step's instructions are: functions of two neighbouring rungs, for the difference flame graph.

A function's own instructions, not those of what it calls: proxies are full of tasks that an event loop wakes,
so who called whom is not what a reader would take for the cause. Mean over the lives that counted both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from meshwise.analysis.contrast import cell_scope
from meshwise.analysis.increment import below
from meshwise.findings.pictures import Flame, FlameFunction
from meshwise.measure.counts import CountedTrial
from meshwise.measure.function_groups import Group, group_of
from meshwise.study.model import Cell, MeshName
from meshwise.telemetry.counting.seam import Function

MOST_SHOWN = 120
"""Functions of a step: half of them those that cost most, half those that change most."""
OTHERS = "(others)"
ByFunction = Mapping[Function, float]


def flames(trials: Sequence[CountedTrial], cells: Sequence[Cell]) -> tuple[Flame, ...]:
    """One for each step of each ladder whose functions are known in both rungs in some life."""
    known = {
        (each.result.trial.cell, each.result.trial.life): each.functions for each in trials if each.functions
    }
    return tuple(_steps(known, cells))


def _steps(
    known: Mapping[tuple[Cell, tuple[int, str]], ByFunction], cells: Sequence[Cell]
) -> Iterator[Flame]:
    for upper in cells:
        lower = below(upper, cells)
        if lower is None or lower.mesh is MeshName.NONE:
            continue
        lives = [life for cell, life in known if cell == upper and (lower, life) in known]
        if lives:
            before, after = (_mean([known[cell, life] for life in lives]) for cell in (lower, upper))
            functions = tuple(_shown(upper.mesh, before, after))
            yield Flame(cell_scope(upper), lower.posture.name, upper.posture.name, len(lives), functions)


def _mean(told: Sequence[ByFunction]) -> dict[Function, float]:
    found: dict[Function, float] = {}
    for own in told:
        for function, value in own.items():
            found[function] = found.get(function, 0.0) + value / len(told)
    return found


def _shown(mesh: MeshName, before: ByFunction, after: ByFunction) -> Iterator[FlameFunction]:
    """By group, the costliest first; what is not shown by name is in its group's `(others)`."""
    every = dict.fromkeys((*after, *before))
    cost = {each: max(before.get(each, 0.0), after.get(each, 0.0)) for each in every}
    change = {each: abs(after.get(each, 0.0) - before.get(each, 0.0)) for each in every}
    shown = {
        *sorted(every, key=lambda each: -cost[each])[: MOST_SHOWN // 2],
        *sorted(every, key=lambda each: -change[each])[: MOST_SHOWN // 2],
    }
    groups: dict[Group, list[Function]] = {}
    for each in sorted(every, key=lambda each: -cost[each]):
        groups.setdefault(group_of(mesh, each), []).append(each)
    for group in sorted(groups, key=lambda group: -_sum(after, groups[group])):
        for each in (own for own in groups[group] if own in shown):
            yield FlameFunction(str(group), each.name, before.get(each, 0.0), after.get(each, 0.0))
        if others := [own for own in groups[group] if own not in shown]:
            yield FlameFunction(str(group), OTHERS, _sum(before, others), _sum(after, others))


def _sum(told: ByFunction, functions: Sequence[Function]) -> float:
    return sum(told.get(each, 0.0) for each in functions)
