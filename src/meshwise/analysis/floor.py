"""The noise floor: how far apart two trials of one and the same cell lie on this machine.

Controls: `same`, the cell twice in a block on the same processes (time noise); `twin`, the cell on a second
set of processes as well (what memory layout does), which counts wherever different processes are compared;
`halves`, two halves of one arm's requests, divided at random (time alone, within a round), which is shown
beside the others and judges nothing. Control cells are pooled unless Levene's test objects; then the noisiest
counts (`stats.floor`). A twin to which nothing was done, while something was done to its cell, is no control:
they are meant to differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meshwise.analysis import sentence
from meshwise.analysis.grid import Grid
from meshwise.findings.finding import Finding, exp
from meshwise.findings.flag import UNEQUAL_NOISE
from meshwise.findings.metric import MetricKey, Scale
from meshwise.findings.subject import NoiseFloor
from meshwise.stats.arrays import FloatArray, execution_means
from meshwise.stats.floor import Noise, claimed, pooled
from meshwise.stats.interval import t_quantile
from meshwise.study.model import Role

CONTROL_NAMES = {Role.AA: "same", Role.TWIN: "twin"}
HALVES = "halves"


@dataclass(frozen=True)
class ControlNoise:
    """What one A/A control shows for one metric. `logs` is None where a value is 0."""

    role: Role | None
    """None: halves, which have no trials of their own."""
    absolute: Noise
    logs: Noise | None
    level: float | None
    """Geometric mean of the control cells' values, by which a share becomes a cost; None without `logs`."""
    cells: tuple[str, ...]
    """Names of the control cells."""
    pooled: bool
    claims: tuple[bool, ...]
    """Per control cell: whether its own t interval excludes 0, as it should in 5 %. None of halves: that
    they are alike is by construction, and tells nothing of the intervals."""

    @property
    def name(self) -> str:
        return CONTROL_NAMES[self.role] if self.role else HALVES

    def on(self, scale: Scale) -> Noise | None:
        return self.logs if scale is Scale.LOG else self.absolute


def controls(grid: Grid, metric: MetricKey, confidence: float, *, twins: bool = True) -> list[ControlNoise]:
    """The A/A controls of a metric that the study has, `same` first. Without `twins` where they differ from
    their cells by more than their processes."""
    names = [role for role in CONTROL_NAMES if twins or role is not Role.TWIN]
    roles: tuple[Role | None, ...] = (*names, None)
    found = (control(grid, metric, role, confidence) for role in roles)
    return [each for each in found if each is not None]


def control(grid: Grid, metric: MetricKey, role: Role | None, confidence: float) -> ControlNoise | None:
    base, again = (grid.values(metric), grid.values(metric, role)) if role else grid.halves(metric)
    share = 1.0 if role else _OF_HALVES
    absolute: list[FloatArray] = []
    logs: list[FloatArray] = []
    claims: list[bool] = []
    cells: list[str] = []
    levels: list[float] = []
    for cell, one, other in zip(grid.cells, base, again, strict=True):
        if role is Role.TWIN and grid.undisturbed_twin(cell):
            continue
        both = np.isfinite(one) & np.isfinite(other)
        if not both.any() or not (one[both].any() or other[both].any()):
            continue
        executions = grid.executions[both]
        difference = share * execution_means(other[both] - one[both], executions)
        absolute.append(difference)
        cells.append(cell.name)
        inferred = difference
        if (one[both] > 0).all() and (other[both] > 0).all():
            inferred = share * execution_means(np.log(other[both]) - np.log(one[both]), executions)
            logs.append(inferred)
            levels.append(float(np.log(one[both]).mean()))
        if len(inferred) >= 2 and role:
            claims.append(claimed(inferred, confidence))
    if not absolute:
        return None
    noise, alike = pooled(absolute)
    log_noise, level = None, None
    if len(logs) == len(absolute):
        log_noise, alike = pooled(logs)
        level = float(np.exp(np.mean(levels)))
    return ControlNoise(role, noise, log_noise, level, tuple(cells), alike, tuple(claims))


_OF_HALVES = 0.5**0.5
"""A half has half the requests: two of them differ by sqrt(2) more than two whole arms do."""


def floor_for(
    found: list[ControlNoise], scale: Scale, n: int, confidence: float, *, across: bool
) -> float | None:
    """The floor of a comparison of n units: of time noise, and across processes the larger of both
    controls'."""
    if not n:
        return None
    wanted = CONTROL_NAMES if across else {Role.AA: ""}
    noises = [control.on(scale) for control in found if control.role in wanted]
    floors = [noise.floor(n, confidence) for noise in noises if noise is not None]
    return max(floors) if floors else None


def floor_finding(control: ControlNoise, key: MetricKey, n: int, confidence: float) -> Finding:
    """The floor of a plain comparison of all `n` units, with the range that its own uncertainty leaves."""
    metric = key.entry
    name = control.name
    costs: list[float | None] = list(_bounds(control.absolute, n, confidence))
    ratios: list[float | None] = [None, None, None]
    if control.logs is not None and control.level is not None and metric.scale is Scale.LOG:
        ratios = [exp(bound) for bound in _bounds(control.logs, n, confidence)]
        costs = [None if ratio is None else (ratio - 1) * control.level for ratio in ratios]
    return Finding(
        id=f"noise_floor/{name}/{key}",
        subject=NoiseFloor(name, control.cells),
        key=key,
        estimate=costs[0], low=costs[1], high=costs[2], confidence=confidence, unit=metric.unit,
        n=control.absolute.m,
        method="t(1-alpha/2, m) * rms of m A/A differences / sqrt(n); range by chi-square"
        + ("" if control.role else "; differences of halves / sqrt(2), as of whole arms"),
        flags=() if control.pooled else (UNEQUAL_NOISE(),),
        sentence=sentence.of_floor(metric, name, costs[0], ratios[0]),
        ratio=ratios[0], ratio_low=ratios[1], ratio_high=ratios[2],
    )  # fmt: skip


def _bounds(noise: Noise, n: int, confidence: float) -> tuple[float, float, float]:
    """Floor, and the range that its own uncertainty leaves."""
    factor = t_quantile(0.5 + confidence / 2, noise.m) / n**0.5
    low, high = noise.range(confidence)
    return noise.floor(n, confidence), low * factor, high * factor
