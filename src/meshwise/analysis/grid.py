"""Trials arranged as cells x blocks: what every later step works on.

Rules of this file:
- Per cell, block and role the last successful attempt counts; a cell that has none there is NaN there.
- A percentile is estimable in a cell or it is not: decided by the median trial, because leaving out single
  trials by their own tail would be leaving out by outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from meshwise.findings.metric import MetricKey
from meshwise.measure.times import NEEDED_EXCEEDANCES
from meshwise.measure.trial import TrialResult
from meshwise.stats.arrays import FloatArray, IntArray
from meshwise.study.model import Cell, Role


@dataclass(frozen=True)
class Grid:
    """The measured trials of a study; arrays are cells x blocks, NaN where nothing was measured."""

    cells: tuple[Cell, ...]
    blocks: tuple[int, ...]
    executions: IntArray
    """Per block: which life of the processes it belongs to."""
    results: tuple[TrialResult, ...]

    @classmethod
    def of(cls, results: Iterable[TrialResult], cells: Sequence[Cell] = ()) -> Grid:
        """`cells` gives their order (a study's own); cells without a result stay out."""
        best: dict[tuple[Cell, int, Role], TrialResult] = {}
        for result in results:
            key = (result.trial.cell, result.trial.block, result.trial.role)
            if key not in best or best[key].trial.attempt < result.trial.attempt:
                best[key] = result
        kept = tuple(best.values())
        seen = {result.trial.cell for result in kept}
        ordered = [cell for cell in cells if cell in seen]
        ordered += sorted(seen - set(ordered))
        of_block = {result.trial.block: result.trial.execution for result in kept}
        blocks = tuple(sorted(of_block))
        executions = np.array([of_block[block] for block in blocks], dtype=np.int64)
        return cls(tuple(ordered), blocks, executions, kept)

    @cached_property
    def metrics(self) -> tuple[MetricKey, ...]:
        """All metrics seen, in the order as trials gave them."""
        keys: dict[MetricKey, None] = {}
        for result in self.results:
            keys |= dict.fromkeys(result.values)
        return tuple(keys)

    @cached_property
    def by_place(self) -> dict[tuple[Role, Cell], dict[int, TrialResult]]:
        places: dict[tuple[Role, Cell], dict[int, TrialResult]] = {}
        for result in self.results:
            places.setdefault((result.trial.role, result.trial.cell), {})[result.trial.block] = result
        return places

    @cached_property
    def _arrays(self) -> dict[tuple[MetricKey, Role], FloatArray]:
        return {}

    def values(self, metric: MetricKey, role: Role = Role.CELL) -> FloatArray:
        """Cells x blocks; NaN where there is no trial or the cell's percentile is not estimable."""
        found = self._arrays.get((metric, role))
        if found is None:
            found = np.full((len(self.cells), len(self.blocks)), np.nan)
            for row, cell in enumerate(self.cells):
                if not self.estimable(metric, cell):
                    continue
                trials = self.by_place.get((role, cell), {})
                for column, block in enumerate(self.blocks):
                    if block in trials:
                        found[row, column] = trials[block].values.get(metric, np.nan)
            self._arrays[metric, role] = found
        return found

    def exceedances(self, metric: MetricKey, cell: Cell) -> float | None:
        """Median effective exceedances of the cell's trials; None for what is no percentile."""
        counts = [
            result.exceedances[metric]
            for result in self.by_place.get((Role.CELL, cell), {}).values()
            if metric in result.exceedances
        ]
        return float(np.median(counts)) if counts else None

    def estimable(self, metric: MetricKey, cell: Cell) -> bool:
        count = self.exceedances(metric, cell)
        return count is None or count >= NEEDED_EXCEEDANCES
