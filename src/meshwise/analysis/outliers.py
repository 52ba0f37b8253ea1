"""Trials that the study's outlier rule flags. They stay in every finding; a second result without them stands
beside.

`hampel k`: further than k * 1.4826 * MAD from the median of their cell (Hampel 1974), on the metric's own
scale. `cause`: trials that carry a flag of their own (that a neighbour in the round was absent is none).
Dropping by such a rule would break the intervals (coverage .85 to .92 at k = 3).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meshwise.analysis.grid import Grid
from meshwise.analysis.settings import Settings
from meshwise.findings.flag import COMPANY
from meshwise.findings.metric import MetricKey, Scale
from meshwise.measure.trial import TrialResult
from meshwise.stats.outliers import hampel
from meshwise.study.model import Role

BoolArray = npt.NDArray[np.bool_]


def flagged(grid: Grid, key: MetricKey, settings: Settings) -> BoolArray | None:
    """Cells x blocks, true where the rule flags the trial; None if nothing is flagged."""
    if settings.hampel_k is not None:
        values = grid.values(key)
        log = key.entry.scale is Scale.LOG and not (values <= 0).any()
        found = np.array([hampel(np.log(row) if log else row, settings.hampel_k) for row in values])
    elif settings.outlier_rule == "cause":
        found = np.array(
            [
                [block in trials and _has_cause(trials[block]) for block in grid.blocks]
                for trials in (grid.by_place.get((Role.CELL, cell), {}) for cell in grid.cells)
            ]
        )
    else:
        return None
    return found if found.any() else None


def _has_cause(result: TrialResult) -> bool:
    return any(flag.kind is not COMPANY for flag in result.flags)
