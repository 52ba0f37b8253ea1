"""Trials arranged as cells x blocks: what every later step works on.

Rules of this file:
- Of a round the attempt in which most arms went well counts, of equal ones the last, and it alone: an arm is
  compared with those that ran beside it. A cell that has no good trial there is NaN there.
- A percentile is estimable in a cell or it is not: decided by the median trial, because leaving out single
  trials by their own tail would be leaving out by outcome.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from meshwise.findings.metric import MetricKey, PartsCompared, Scale
from meshwise.measure.times import NEEDED_EXCEEDANCES
from meshwise.measure.trial import TrialResult
from meshwise.stats.arrays import FloatArray, IntArray
from meshwise.study.model import Cell, Role

MOST_COMPARED = 8
"""Workloads, the client among them, up to which each sidecar's own metrics are compared."""


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
        rounds: dict[Hashable, dict[int, list[TrialResult]]] = {}
        for result in results:
            rounds.setdefault(_round(result), {}).setdefault(result.trial.attempt, []).append(result)
        kept = tuple(result for attempts in rounds.values() for result in _fullest(attempts))
        seen = {result.trial.cell for result in kept}
        ordered = [cell for cell in cells if cell in seen]
        ordered += sorted(seen - set(ordered))
        of_block = {result.trial.block: result.trial.execution for result in kept}
        blocks = tuple(sorted(of_block))
        executions = np.array([of_block[block] for block in blocks], dtype=np.int64)
        return cls(tuple(ordered), blocks, executions, kept)

    def beside(self, cell: Cell) -> int:
        """How many other arms ran at the same time as the cell's trials, at most; 0 apart."""
        arms = Counter(map(_round, self.results))
        own = self.by_place.get((Role.CELL, cell), {})
        return max((arms[_round(result)] - 1 for result in own.values()), default=0)

    def undisturbed_twin(self, cell: Cell) -> bool:
        """Whether something was done to the cell's trials, and nothing to its twin beside it."""
        return any(each.events is not None for each in self.by_place.get((Role.TWIN, cell), {}).values())

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
    def _arrays(self) -> dict[tuple[MetricKey, Role, bool], FloatArray]:
        return {}

    def values(self, metric: MetricKey, role: Role = Role.CELL, *, joined: bool = True) -> FloatArray:
        """Cells x blocks; NaN where there is no trial or the cell's percentile is not estimable.
        `joined`: the parts of a divided round are brought to the moments of its first."""
        found = self._arrays.get((metric, role, joined))
        if found is None:
            found = np.full((len(self.cells), len(self.blocks)), np.nan)
            for row, cell in enumerate(self.cells):
                if not self.estimable(metric, cell):
                    continue
                trials = self.by_place.get((role, cell), {})
                for column, block in enumerate(self.blocks):
                    if block in trials:
                        to_first = self._to_first_part(trials[block], metric) if joined else 1.0
                        found[row, column] = trials[block].values.get(metric, np.nan) * to_first
            self._arrays[metric, role, joined] = found
        return found

    def halves(self, metric: MetricKey) -> tuple[FloatArray, FloatArray]:
        """Cells x blocks of both halves of the trials that were divided; NaN elsewhere, and where half a
        trial has too few requests for the percentile."""
        both = np.full((2, len(self.cells), len(self.blocks)), np.nan)
        for row, cell in enumerate(self.cells):
            count = self.exceedances(metric, cell)
            if count is not None and count / 2 < NEEDED_EXCEEDANCES:
                continue
            trials = self.by_place.get((Role.CELL, cell), {})
            for column, block in enumerate(self.blocks):
                if block in trials and metric in trials[block].halves:
                    both[:, row, column] = trials[block].halves[metric]
        return both[0], both[1]

    def in_one_part(self, cells: Iterable[Cell]) -> bool:
        """Whether the trials of these cells ran at the same time wherever they ran in the same block."""
        rounds: dict[int, set[Hashable]] = {}
        for cell in cells:
            for block, result in self.by_place.get((Role.CELL, cell), {}).items():
                rounds.setdefault(block, set()).add(_round(result))
        return all(len(each) == 1 for each in rounds.values())

    def _to_first_part(self, result: TrialResult, metric: MetricKey) -> float:
        """What brings an arm of a further part of a divided round to the moments of the first part: how the
        arm that both parts have differs between them. 1 in a round that is whole; NaN where that arm is
        missing: the parts cannot be compared then."""
        if metric.entry.scale is not Scale.LOG:
            return 1.0
        reference = self._references.get(_round(result))
        if reference is None:
            return np.nan if (result.trial.role, result.trial.cell) in self._in_further_parts else 1.0
        first = self.by_place.get((Role.CELL, reference.trial.cell), {}).get(reference.trial.block)
        if first is None:
            return np.nan
        there, here = first.values.get(metric, np.nan), reference.values.get(metric, np.nan)
        if there == here == 0:
            return 1.0
        return there / here if here and np.isfinite(there) and np.isfinite(here) else np.nan

    @cached_property
    def _references(self) -> dict[Hashable, TrialResult]:
        return {_round(each): each for each in self.results if each.trial.role is Role.REFERENCE}

    @cached_property
    def _in_further_parts(self) -> frozenset[tuple[Role, Cell]]:
        """Arms of rounds that have a reference: in every block the same."""
        return frozenset(
            (each.trial.role, each.trial.cell) for each in self.results if _round(each) in self._references
        )

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


def _round(result: TrialResult) -> Hashable:
    trial = result.trial
    return trial.round if trial.round >= 0 else (trial.cell, trial.block, trial.role)


def _fullest(attempts: Mapping[int, Sequence[TrialResult]]) -> Sequence[TrialResult]:
    return attempts[max(attempts, key=lambda attempt: (len(attempts[attempt]), attempt))]


def compared(keys: Iterable[MetricKey], cells: Sequence[Cell]) -> list[MetricKey]:
    """Without what is only described, and without parts where they would be too many."""
    small = max((len(cell.topology.workloads) for cell in cells), default=0) <= MOST_COMPARED
    shown = (PartsCompared.ALWAYS, *((PartsCompared.IN_SMALL,) if small else ()))
    return [key for key in keys if key.entry.compared and (not key.part or key.entry.parts_compared in shown)]
