"""Response time against time within a trial, for loads that move. For pictures: findings are of all of it.

Laws of this file:
- A request belongs to the window of its intended time, so that a queue shows where its cause was.
- As everywhere, requests of different trials are never pooled: a window's value is the median over a cell's
  trials of each trial's own quantile. All trials of a study have the same shape, so their windows agree.
- A quantile needs NEEDED_EXCEEDANCES requests above it; where fewer than half of the trials have them, as
  in a pause, there is no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from meshwise.measure.trial import NEEDED_EXCEEDANCES
from meshwise.stats.arrays import FloatArray
from meshwise.stats.quantile import quantile
from meshwise.study.model import Cell, Role, Trial

WINDOWS = 48
QUANTILES = (0.5, 0.9)


@dataclass(frozen=True)
class TrialCourse:
    """One trial in WINDOWS equal windows."""

    trial: Trial
    duration_ns: int
    intended_rps: FloatArray
    response_us: FloatArray
    """A row per quantile; inf where failures reach it, NaN where too few were asked."""


@dataclass(frozen=True)
class Course:
    """A cell over its trials."""

    cell: Cell
    middle_s: FloatArray
    """Of each window."""
    intended_rps: FloatArray
    response_us: FloatArray
    """A row per quantile of QUANTILES."""
    trials: int


def trial_course(trial: Trial, requests: pl.DataFrame, duration_ns: int) -> TrialCourse:
    """`requests` as in `archive.schema`; the rate counts all clients, the times those inside the mesh."""
    inside = requests.filter((pl.col("intended_ns") >= 0) & (pl.col("intended_ns") < duration_ns))
    answered = (pl.col("error").cast(pl.String).fill_null("") == "") & pl.col("done_ns").is_not_null()
    response = (
        pl.when(answered).then((pl.col("done_ns") - pl.col("intended_ns")) / 1e3).otherwise(float("inf"))
    )
    outside = pl.lit(False)
    if "client" in inside.columns:
        outside = pl.col("client").cast(pl.String).fill_null("") == "outside"
    table = inside.select(pl.col("intended_ns"), response.alias("us"), outside.alias("outside"))
    window = table["intended_ns"].to_numpy() * WINDOWS // duration_ns
    rate = np.bincount(window, minlength=WINDOWS).astype(np.float64) * (WINDOWS * 1e9 / duration_ns)
    own = ~table["outside"].to_numpy()
    times, window = table["us"].to_numpy()[own], window[own]
    order = np.lexsort((times, window))
    times, edges = times[order], np.searchsorted(window[order], np.arange(WINDOWS + 1))
    found = np.full((len(QUANTILES), WINDOWS), np.nan)
    for number in range(WINDOWS):
        part = times[edges[number] : edges[number + 1]]
        for row, p in enumerate(QUANTILES):
            if len(part) * (1 - p) >= NEEDED_EXCEEDANCES - 1e-9:
                found[row, number] = quantile(part, p)
    return TrialCourse(trial, duration_ns, rate, found)


def courses(trials: Iterable[TrialCourse]) -> tuple[Course, ...]:
    """One per cell, from the trials of the cell itself (the controls' repetitions stay out)."""
    by_cell: dict[Cell, list[TrialCourse]] = {}
    for each in trials:
        if each.trial.role is Role.CELL:
            by_cell.setdefault(each.trial.cell, []).append(each)
    return tuple(_course(cell, members) for cell, members in by_cell.items())


def _median(rows: Sequence[FloatArray]) -> FloatArray:
    found: FloatArray = np.median(rows, axis=0)
    return found


def _course(cell: Cell, members: Sequence[TrialCourse]) -> Course:
    every = np.array([member.response_us for member in members])
    known = ~np.isnan(every)
    middle = np.full(every.shape[1:], np.nan)
    enough = known.sum(axis=0) * 2 >= len(members)
    for row, number in zip(*np.nonzero(enough), strict=True):
        middle[row, number] = np.median(every[known[:, row, number], row, number])
    length_s = members[0].duration_ns / 1e9 / WINDOWS
    return Course(
        cell,
        (np.arange(WINDOWS, dtype=np.float64) + 0.5) * length_s,
        _median([member.intended_rps for member in members]),
        middle,
        len(members),
    )
