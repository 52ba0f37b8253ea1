"""The arrays that all statistics are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def execution_means(d: FloatArray, executions: IntArray) -> FloatArray:
    """Means over the blocks of each execution, the units of every interval. `d`: one value per block, no
    NaN."""
    lives, index = np.unique(executions, return_inverse=True)
    if len(lives) == len(executions):
        return d
    return np.asarray(np.bincount(index, weights=d) / np.bincount(index))
