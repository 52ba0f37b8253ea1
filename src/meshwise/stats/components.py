"""Components of variance: cells (the question), executions, blocks, and the rest; and their resampling.

Balanced decomposition of y = mean + cell + execution + block within execution + residual over the blocks that
are complete. Shares are method-of-moments components (negative ones are 0, and are not
thereby shown to be absent: they are imprecise at few executions, so each has a bootstrap range over
executions). `omega_squared` is the cells' effect size with the blocks' sum of squares removed; eta squared
would flatter: with no effect at 6 levels and 8 blocks it averages .126, omega squared .001.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from meshwise.stats.arrays import FloatArray, IntArray

RESAMPLES = 499
SOURCES = ("cell", "execution", "block", "residual")


@dataclass(frozen=True)
class Shares:
    """Shares of the four components (sum 1; `block` NaN where every block is its own execution), and
    omega^2."""

    share: Mapping[str, float]
    omega_squared: float


def decompose(y: FloatArray, executions: IntArray) -> Shares | None:
    """`y` cells x blocks without NaN; None below two cells or blocks, or without variation."""
    cells, blocks = y.shape
    if cells < 2 or blocks < 2:
        return None
    lives, index = np.unique(executions, return_inverse=True)
    per_execution = np.bincount(index)
    grand = y.mean()
    by_cell, by_block = y.mean(axis=1), y.mean(axis=0)
    ss_cell = blocks * float(((by_cell - grand) ** 2).sum())
    ss_error = float(((y - by_cell[:, None] - by_block[None, :] + grand) ** 2).sum())
    ms_error = ss_error / ((cells - 1) * (blocks - 1))
    ss_total = float(((y - grand) ** 2).sum())
    if ss_total <= 1e-18 * max(grand**2, 1e-300) * y.size:
        return None
    by_execution = np.bincount(index, weights=by_block) / per_execution
    ss_block = cells * float(((by_block - by_execution[index]) ** 2).sum())
    ss_execution = cells * float((per_execution * (by_execution - grand) ** 2).sum())
    component = {"cell": max(0.0, (ss_cell / (cells - 1) - ms_error) / blocks), "residual": ms_error}
    if len(lives) < blocks:
        ms_block = ss_block / (blocks - len(lives))
        component["block"] = max(0.0, (ms_block - ms_error) / cells)
        ms_execution = ss_execution / (len(lives) - 1) if len(lives) > 1 else ms_block
        typical = float((blocks - (per_execution**2).sum() / blocks) / max(len(lives) - 1, 1))
        component["execution"] = max(0.0, (ms_execution - ms_block) / (cells * typical)) if typical else 0.0
    else:  # a block is an execution: what they bring cannot be told apart
        component["execution"] = max(0.0, (ss_execution / (blocks - 1) - ms_error) / cells)
    total = sum(component.values())
    omega = (ss_cell - (cells - 1) * ms_error) / (ss_cell + ss_error + ms_error)
    share = {source: component[source] / total if source in component else float("nan") for source in SOURCES}
    return Shares(share, max(0.0, omega))


def resampled(y: FloatArray, executions: IntArray, seed: int) -> list[Shares]:
    """Shares of studies of resampled executions; a range, not an interval with exact coverage."""
    random = np.random.default_rng([seed, 0x5641])
    lives = np.unique(executions)
    drawn = []
    for _ in range(RESAMPLES if len(lives) > 2 else 0):
        chosen = random.choice(lives, len(lives))
        columns = [np.flatnonzero(executions == life) for life in chosen]
        renamed = np.repeat(np.arange(len(lives)), [len(each) for each in columns])
        shares = decompose(y[:, np.concatenate(columns)], renamed)
        if shares is not None:
            drawn.append(shares)
    return drawn
