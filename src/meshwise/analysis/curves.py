"""Whole distributions and the course of a study over time, for pictures. Findings are not made of these.

Laws of this file:
- A cell's curve is the median over its trials of each trial's own quantile: requests of different trials are
  never pooled, because one bad trial would then shape every tail.
- A curve ends where a percentile has fewer than NEEDED_EXCEEDANCES requests above it, or failures reach it.
- Drift is a trial's median response time over the median of its cell's trials: all cells on one scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from meshwise.measure.trial import NEEDED_EXCEEDANCES
from meshwise.stats.arrays import FloatArray
from meshwise.stats.quantile import quantiles
from meshwise.study.model import Cell, Role, Trial

GRID: FloatArray = np.concatenate(
    [
        [0.001],
        np.arange(0.01, 0.895, 0.01),
        np.arange(0.9, 0.9895, 0.002),
        np.arange(0.99, 0.9989, 0.0002),
        np.arange(0.999, 0.99989, 0.00005),
        [0.9999],
    ]
)
"""Where a distribution is read: denser where it is steep to look at."""


@dataclass(frozen=True)
class TrialQuantiles:
    """One trial's response times at GRID, in us; inf where failures reach, NaN where nothing was asked."""

    trial: Trial
    response_us: FloatArray
    requests: int
    started_unix_ns: int | None = None

    @property
    def median_us(self) -> float:
        return float(self.response_us[int(np.argmin(np.abs(GRID - 0.5)))])


@dataclass(frozen=True)
class Curve:
    """A cell's distribution of response time: `share` of requests answered within `response_us`."""

    cell: Cell
    share: FloatArray
    response_us: FloatArray
    trials: int


@dataclass(frozen=True)
class DriftPoint:
    """One trial in the course of the study. `deviation` is a share: 0.02 is 2 % above its cell's median."""

    trial: Trial
    started_unix_ns: int | None
    median_us: float
    deviation: float


def trial_quantiles(
    trial: Trial, requests: pl.DataFrame, started_unix_ns: int | None = None
) -> TrialQuantiles:
    """`requests` as in `archive.schema`; warm-up and clients outside the mesh are left out."""
    chosen = requests.filter(pl.col("intended_ns") >= 0)
    if "client" in chosen.columns:
        chosen = chosen.filter(pl.col("client").cast(pl.String).fill_null("") != "outside")
    answered = (pl.col("error").cast(pl.String).fill_null("") == "") & pl.col("done_ns").is_not_null()
    response = (
        pl.when(answered).then((pl.col("done_ns") - pl.col("intended_ns")) / 1e3).otherwise(float("inf"))
    )
    times = np.sort(chosen.select(response.alias("us"))["us"].to_numpy())
    return TrialQuantiles(trial, quantiles(times, GRID), len(times), started_unix_ns)


def curves(trials: Iterable[TrialQuantiles]) -> tuple[Curve, ...]:
    """One curve per cell, from the trials of the cell itself (the controls' repetitions stay out)."""
    by_cell: dict[Cell, list[TrialQuantiles]] = {}
    for each in trials:
        if each.trial.role is Role.CELL and each.requests:
            by_cell.setdefault(each.trial.cell, []).append(each)
    return tuple(_curve(cell, members) for cell, members in by_cell.items())


def _curve(cell: Cell, members: Sequence[TrialQuantiles]) -> Curve:
    middle = np.median(np.array([member.response_us for member in members]), axis=0)
    requests = float(np.median([member.requests for member in members]))
    shown = np.isfinite(middle) & (requests * (1 - GRID) >= NEEDED_EXCEEDANCES)
    return Curve(cell, GRID[shown], middle[shown], len(members))


def drift(trials: Sequence[TrialQuantiles]) -> tuple[DriftPoint, ...]:
    """Every trial that has a finite median, in the order given (that of running)."""
    medians: dict[Cell, list[float]] = {}
    for each in trials:
        if np.isfinite(each.median_us):
            medians.setdefault(each.trial.cell, []).append(each.median_us)
    middle = {cell: float(np.median(values)) for cell, values in medians.items()}
    return tuple(
        DriftPoint(
            each.trial, each.started_unix_ns, each.median_us, each.median_us / middle[each.trial.cell] - 1
        )
        for each in trials
        if np.isfinite(each.median_us) and middle[each.trial.cell] > 0
    )
