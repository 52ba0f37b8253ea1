"""Contrasts: cells with coefficients (a difference: +1 and -1), summed within each block.

Every comparison of the analysis is one (statistics by contrasts, not by models: no sphericity, no
convergence). A block without one of the terms loses that pair only, and the finding says so. Blocks are
averaged within their execution; the executions are the units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meshwise.analysis.grid import Grid
from meshwise.findings.flag import Flag
from meshwise.findings.metric import Metric, MetricKey, Scale
from meshwise.findings.subject import LevelStep, ScopeValue, Slope, Subject
from meshwise.stats.arrays import BoolArray, FloatArray, execution_means
from meshwise.study.factor import FactorRole, as_stored
from meshwise.study.factors import CONTEXT_FIELDS, FACTORS, FREE_FIELDS, concerns
from meshwise.study.model import Cell, MeshName, MtlsMode, Protocol


@dataclass(frozen=True)
class Contrast:
    """`sum(coefficient * cell)`, the coefficients of a comparison summing to 0."""

    subject: Subject
    family: str
    """Comparisons whose claims are held together against multiplicity, beside the metric."""
    terms: tuple[tuple[Cell, float], ...]
    key: str
    """The finding's id without kind and metric."""
    across_processes: bool
    """Whether it compares different processes, whose memory layouts differ."""
    scale: Scale | None = None
    """Scale of the verdict; None: the metric's own."""
    metrics: frozenset[str] | None = None
    """Metrics that it is asked of; None: all."""
    flags: tuple[Flag, ...] = ()
    in_rounds: bool = False
    """Its cells ran at the same time, so their ratio is steady while the level of both varies with the
    machine's speed: the cost is the ratio at the mean level of what is subtracted."""

    @property
    def noise_factor(self) -> float:
        """How much noisier than a plain difference of two cells."""
        return float(np.sqrt(sum(coefficient**2 for _, coefficient in self.terms) / 2))


@dataclass(frozen=True)
class Effect:
    """A contrast of one metric: one value per unit (execution), on both scales."""

    contrast: Contrast
    key: MetricKey
    absolute: FloatArray
    logs: FloatArray | None
    """Natural logs of the ratio; None where a value is 0."""
    blocks: int
    lost_blocks: int
    base: float | None = None
    """Level of what is subtracted, by which a share becomes a cost; None unless it is a ratio of two."""
    infinite_blocks: int = 0
    """Blocks in which failures made a term infinite; then there are no values."""

    @property
    def metric(self) -> Metric:
        return self.key.entry

    @property
    def scale(self) -> Scale:
        wanted = self.contrast.scale or self.metric.scale
        return Scale.DIFFERENCE if self.logs is None else wanted

    @property
    def inferred(self) -> FloatArray:
        """The values on the scale of the verdict."""
        return self.logs if self.scale is Scale.LOG and self.logs is not None else self.absolute

    @property
    def n(self) -> int:
        return len(self.absolute)


def evaluate(
    grid: Grid, contrast: Contrast, key: MetricKey, without: BoolArray | None = None
) -> Effect | None:
    """The contrast's value per execution; None where a term was never measured, or all is 0 in every term.
    `without` (cells x blocks, true where a trial is to be left out) gives the variant without outliers."""
    if contrast.metrics is not None and key.metric not in contrast.metrics:
        return None
    values = grid.values(key, joined=not grid.in_one_part(cell for cell, _ in contrast.terms))
    rows = [grid.cells.index(cell) if cell in grid.cells else -1 for cell, _ in contrast.terms]
    if -1 in rows:
        return None
    chosen = values[rows]
    present = ~np.isnan(chosen).any(axis=0)
    planned = len(grid.blocks)
    if without is not None:
        present &= ~without[rows].any(axis=0)
    if not present.any() or np.isnan(chosen).all(axis=1).any():
        return None
    kept = chosen[:, present]
    if not kept.any():
        return None
    infinite = int(np.isinf(kept).any(axis=0).sum())
    coefficients = np.array([coefficient for _, coefficient in contrast.terms], dtype=np.float64)
    executions = grid.executions[present]
    logs = base = None
    if infinite:
        absolute = np.empty(0)
    else:
        absolute = execution_means(coefficients @ kept, executions)
        if (kept > 0).all() and not isinstance(contrast.subject, Slope):
            logs = execution_means(coefficients @ np.log(kept), executions)
            if len(rows) == 2:
                base = float(np.exp(np.log(kept[coefficients < 0]).mean()))
                if contrast.in_rounds:
                    absolute = base * np.expm1(logs)
    count = int(present.sum())
    return Effect(contrast, key, absolute, logs, count, planned - count, base, infinite)


def context(cell: Cell) -> tuple[ScopeValue, ...]:
    """What must agree between cells that are compared."""
    return tuple(as_stored(getattr(cell, field)) for field in CONTEXT_FIELDS)


def agree(one: Cell, other: Cell) -> bool:
    """Whether the free factors that mean something in both (key with mTLS, policies with authorization) have
    equal levels."""
    return all(
        getattr(one, field) == getattr(other, field)
        for field in FREE_FIELDS
        if concerns(field, one.posture) and concerns(field, other.posture)
    )


def partner(cell: Cell, candidates: Iterable[Cell]) -> Cell | None:
    """The candidate in the same context with the fewest other free levels; the smallest of equals."""
    fitting = [candidate for candidate in candidates if context(candidate) == context(cell)]
    if not fitting:
        return None

    def distance(candidate: Cell) -> tuple[int, Cell]:
        return sum(getattr(candidate, field) != getattr(cell, field) for field in FREE_FIELDS), candidate

    return min(fitting, key=distance)


def has_mtls(cell: Cell) -> bool:
    return cell.posture.mtls not in (None, MtlsMode.DISABLE)


def cell_scope(cell: Cell) -> dict[str, ScopeValue]:
    """Every factor's level, as a finding carries it."""
    return {
        factor.columns[0].name: factor.to_columns(cell)[factor.columns[0].name]
        for factor in FACTORS
        if factor.role is not FactorRole.CONSTANT
    }


def place_of(cell: Cell) -> str:
    """`istio/strict`, or `none`: a cell's place in the id of a finding."""
    return "none" if cell.mesh is MeshName.NONE else f"{cell.mesh}/{cell.posture.name}"


@dataclass(frozen=True)
class Naming:
    """Short names for cells: protocol and rate always, other factors where they vary with these two and the
    mesh fixed (http2 has streams where http1 has connections: that need not be said each time)."""

    varying: Mapping[tuple[MeshName, Protocol], frozenset[str]]

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> Naming:
        factors = [*(factor.field for factor in FACTORS if factor.spoken is not None), "shape"]
        varying = {}
        for place in {(cell.mesh, cell.protocol) for cell in cells}:
            scopes = [cell_scope(cell) for cell in cells if (cell.mesh, cell.protocol) == place]
            varying[place] = frozenset(f for f in factors if len({scope[f] for scope in scopes}) > 1)
        return cls(varying)

    def key(self, cell: Cell, without: str = "") -> str:
        """`http1/800rps/length=3`: the part of an id that tells the setting, unique in mesh and posture."""
        scope = cell_scope(cell)
        telling = self.varying[cell.mesh, cell.protocol] - {without}
        parts = [str(cell.protocol)] + [f"{cell.rate_rps:g}rps"] * (
            without != "rate_rps" and cell.rate_rps > 0
        )
        return "/".join([*parts, *(f"{factor}={scope[factor]}" for factor in scope if factor in telling)])

    def place(self, cell: Cell) -> str:
        """``istio `strict`, http1 at 800/s``: for a sentence."""
        posture = "no mesh" if cell.mesh is MeshName.NONE else f"{cell.mesh} `{cell.posture.name}`"
        return f"{posture}, {self.words(cell)}"

    def setting(self, contrast: Contrast) -> str:
        """The words for what all cells of a contrast share."""
        subject = contrast.subject
        if isinstance(subject, Slope):
            return self.words(contrast.terms[-1][0], subject.factor)
        if isinstance(subject, LevelStep):
            return self.words(contrast.terms[0][0], subject.factor)
        return self.words(contrast.terms[0][0])

    def words(self, cell: Cell, without: str = "") -> str:
        """`http1 at 800/s, chain of 3`: what varies and means something in this posture."""
        telling = self.varying[cell.mesh, cell.protocol] - {without}
        level_words = (
            factor.spoken(getattr(cell, factor.field), str(cell.shape))
            for factor in FACTORS
            if factor.spoken is not None and factor.field in telling and factor.means_to(cell)
        )
        spoken = [words for words in level_words if words]
        rate = "" if without == "rate_rps" or not cell.rate_rps else f" at {cell.rate_rps:g}/s"
        return ", ".join([f"{cell.protocol}{rate}", *spoken])
