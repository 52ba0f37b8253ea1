"""Where the variation of a metric comes from: cells (the question), executions, blocks, and the rest."""

from __future__ import annotations

import numpy as np

from meshwise.analysis import sentence
from meshwise.analysis.grid import Grid
from meshwise.findings.finding import Finding
from meshwise.findings.flag import CONFOUNDED, INCOMPLETE, WITHOUT_ZEROS
from meshwise.findings.metric import MetricKey, Scale
from meshwise.findings.subject import VarianceShare
from meshwise.stats.components import Shares, decompose, resampled
from meshwise.stats.quantile import quantile


def variance_findings(grid: Grid, key: MetricKey, confidence: float, seed: int) -> list[Finding]:
    """Five findings (four shares and omega squared), or none where nothing can be said."""
    metric = key.entry
    values = grid.values(key)
    kept = np.isfinite(values).any(axis=1)
    if metric.scale is Scale.LOG:
        kept &= ~(values <= 0).any(axis=1)
    flags = []
    if zeros := int((np.isfinite(values).any(axis=1) & ~kept).sum()):
        flags.append(WITHOUT_ZEROS(cells=zeros))
    values = values[kept]
    whole = np.isfinite(values).all(axis=0)
    if not whole.any():
        return []
    y = np.log(values[:, whole]) if metric.scale is Scale.LOG else values[:, whole]
    executions = grid.executions[whole]
    shares = decompose(y, executions)
    if shares is None:
        return []
    drawn = resampled(y, executions, seed)
    if lost := len(grid.blocks) - int(whole.sum()):
        flags.append(INCOMPLETE(blocks=lost))
    if np.isnan(shares.share["block"]):
        flags.append(CONFOUNDED())
    rows = [(source, value, [each.share[source] for each in drawn]) for source, value in shares.share.items()]
    rows.append(("omega_squared", shares.omega_squared, [each.omega_squared for each in drawn]))
    line = _line(metric.words, shares)
    return [
        Finding(
            id=f"variance/{source}/{key}",
            subject=VarianceShare(source),
            key=key,
            estimate=value,
            low=_range(samples, (1 - confidence) / 2),
            high=_range(samples, (1 + confidence) / 2),
            confidence=confidence,
            unit="ratio",
            n=len(np.unique(executions)),
            method=f"components of a balanced decomposition ({metric.scale} scale); bootstrap range",
            flags=tuple(flags),
            sentence=line,
        )
        for source, value, samples in rows
        if not np.isnan(value)
    ]


def _range(samples: list[float], p: float) -> float | None:
    return quantile(np.sort(samples), p) if samples and not np.isnan(samples).any() else None


def _line(words: str, shares: Shares) -> str:
    parts = ", ".join(
        f"{source} {sentence.number(100 * value)} %"
        for source, value in shares.share.items()
        if not np.isnan(value)
    )
    return f"Of the variation in {words}: {parts}."
