"""Where a curve stands out: stretches of bins that are higher than chance makes any, of all lengths at once.

The score of a stretch is its sum over the root of its weight, divided by the spread of just this number at
that length in null curves, so that what depends from bin to bin counts no more than it does there. The limit
is a quantile of the highest score of each null curve (a multi-scale scan statistic; for curves against
permuted ones Maris & Oostenveld 2007), so the chance that anything is found where nothing is holds for all
places and lengths together; a second stretch must exceed the highest of all. One-sided: what is lower than
usual is not looked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meshwise.stats.arrays import FloatArray, IntArray
from meshwise.stats.quantile import quantile

MOST_STRETCHES = 4
LENGTH_STEP = 1.25
"""From one length to the next."""


@dataclass(frozen=True)
class Stretch:
    start: int
    end: int
    """Behind its last bin."""
    score: float
    """Over the limit."""


def lengths(bins: int) -> IntArray:
    """1, 2, 3, ... and from there by LENGTH_STEP, up to all bins."""
    found = [1]
    while found[-1] < bins:
        found.append(min(bins, max(found[-1] + 1, int(found[-1] * LENGTH_STEP))))
    return np.array(found, dtype=np.int64)


def standing_out(
    curve: FloatArray, null: FloatArray, weight: FloatArray, confidence: float = 0.95
) -> tuple[Stretch, ...]:
    """Stretches of `curve`, in the order of time and apart from each other; empty if none stands out.

    `curve`: one number per bin, centred so that nothing is 0. `null`: draws x bins of curves made the same
    way where nothing was. `weight`: per bin, how many things its number is the sum of; a bin of weight 0 is
    never in a stretch alone.
    """
    sizes = lengths(len(curve))
    roots = [np.sqrt(np.maximum(_sums(weight, size), 1e-12)) for size in sizes]
    spreads, highest = [], np.full(len(null), -np.inf)
    for size, root in zip(sizes, roots, strict=True):
        scores = _sums(null, size) / root
        spread = float(scores.std())
        spreads.append(spread)
        if spread > 0:
            highest = np.maximum(highest, scores.max(axis=1) / spread)
    finite = np.sort(highest[np.isfinite(highest)])
    limit = quantile(finite, confidence) if len(finite) else np.inf
    found: list[Stretch] = []
    rest = curve.copy()
    while len(found) < MOST_STRETCHES:
        best = _best(rest, sizes, roots, spreads)
        if best is None or not best.score > limit:
            break
        found.append(Stretch(best.start, best.end, best.score / limit))
        limit = max(limit, float(finite[-1]))
        rest[max(0, best.start - 1) : best.end + 1] = 0.0
    return tuple(sorted(found, key=lambda each: each.start))


def _best(
    curve: FloatArray, sizes: IntArray, roots: list[FloatArray], spreads: list[float]
) -> Stretch | None:
    best = None
    for size, root, spread in zip(sizes, roots, spreads, strict=True):
        if spread <= 0:
            continue
        scores = _sums(curve, size) / root / spread
        place = int(scores.argmax())
        if best is None or scores[place] > best.score:
            best = Stretch(place, place + int(size), float(scores[place]))
    return best


def _sums(values: FloatArray, size: int) -> FloatArray:
    """Of every `size` neighbours along the last axis."""
    zero = np.zeros((*values.shape[:-1], 1))
    total = np.concatenate([zero, np.cumsum(values, axis=-1)], axis=-1)
    return np.asarray(total[..., size:] - total[..., :-size])
