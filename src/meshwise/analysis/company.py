"""Rounds: how busy their CPUs were, which arms were saturated, and what may therefore not be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshwise.analysis.contrast import Contrast
from meshwise.analysis.grid import Grid
from meshwise.analysis.settings import Settings
from meshwise.findings.flag import ACROSS_ARRANGEMENTS, CROWDED, SATURATED_ARM, Flag
from meshwise.findings.metric import Metric, MetricKey
from meshwise.measure.trial import TrialResult
from meshwise.study.design.rounds import CROWDED_SHARE, why_no_arm
from meshwise.study.model import Cell, Role

TAIL = 0.99
"""Percentile from which on waiting decides."""
MOST_NAMED = 2


@dataclass(frozen=True)
class RoundSeen:
    """One round of two arms or more that were measured."""

    number: int
    block: int
    arms: int
    busy: float | None
    """Share of the pods' CPUs that was used."""
    saturated: tuple[tuple[str, str], ...] = ()
    """Cell and why, of arms that were saturated."""

    @property
    def crowded(self) -> bool:
        return self.busy is not None and self.busy > CROWDED_SHARE

    def as_json(self) -> dict[str, Any]:
        return {
            "round": self.number,
            "block": self.block,
            "arms": self.arms,
            "busy": self.busy,
            "crowded": self.crowded,
            "saturated": [f"{cell}: {why}" for cell, why in self.saturated],
        }


def rounds_of(grid: Grid) -> tuple[RoundSeen, ...]:
    """In their order. Trials apart, and arms that were left alone, are none."""
    arms: dict[int, list[TrialResult]] = {}
    for result in grid.results:
        if result.trial.round >= 0:
            arms.setdefault(result.trial.round, []).append(result)
    return tuple(_seen(number, each) for number, each in sorted(arms.items()) if len(each) > 1)


def _seen(number: int, arms: list[TrialResult]) -> RoundSeen:
    told = [arm.pods_busy for arm in arms if arm.pods_busy is not None]
    saturated = tuple((arm.trial.cell.name, arm.saturated) for arm in arms if arm.saturated)
    return RoundSeen(
        number,
        arms[0].trial.block,
        len(arms),
        max(told) if told else None,
        saturated,
    )


def shared_waiting(
    rounds: Mapping[int, RoundSeen], grid: Grid, contrast: Contrast, key: MetricKey
) -> tuple[Flag, ...]:
    """Flags of a comparison of times in whose rounds arms waited for one another. `rounds` by number."""
    metric = key.entry
    if not is_time(metric):
        return ()
    numbers = {
        result.trial.round
        for cell, _ in contrast.terms
        for result in grid.by_place.get((Role.CELL, cell), {}).values()
    }
    own = [rounds[number] for number in sorted(numbers) if number in rounds]
    flags = []
    crowded = [each.busy for each in own if each.crowded and each.busy is not None]
    if crowded and metric.percentile is not None and metric.percentile >= TAIL:
        flags.append(
            CROWDED(percent=100 * max(crowded), limit=100 * CROWDED_SHARE, count=len(crowded), of=len(own))
        )
    full = [each for each in own if each.saturated]
    if full:
        named = list(dict.fromkeys(f"{cell}: {why}" for each in full for cell, why in each.saturated))
        more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
        arms = "; ".join([*named[:MOST_NAMED], *more])
        flags.append(SATURATED_ARM(count=len(full), of=len(own), arms=arms))
    return tuple(flags)


def arms_beside(settings: Settings) -> dict[Cell, int]:
    """Cell -> how many other arms its trials are meant to have beside them. Of a study without a design only
    that some have none is known."""
    arms = Counter(trial.round for trial in settings.design)
    planned = {trial.cell: arms[trial.round] - 1 for trial in settings.design if trial.role is Role.CELL}
    return {cell: planned.get(cell, 0 if why_no_arm(cell) else 1) for cell in settings.cells} | planned


def across_arrangements(contrast: Contrast, beside: Mapping[Cell, int]) -> tuple[Flag, ...]:
    """A flag where some of the cells had company and others had none. `beside` as `arms_beside` gives it."""
    most = max(beside.get(cell, 0) for cell, _ in contrast.terms)
    apart = [cell.name for cell, _ in contrast.terms if not beside.get(cell, 0)]
    return (ACROSS_ARRANGEMENTS(apart="; ".join(apart), arms=most),) if apart and most else ()


def is_time(metric: Metric) -> bool:
    """Whether it is a time of requests, which waiting is part of."""
    return metric.percentile is not None or (metric.fails and metric.unit == "us")
