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
from meshwise.findings.subject import ScopeValue, Slope, Subject
from meshwise.stats.arrays import BoolArray, FloatArray, execution_means
from meshwise.study.model import Authorization, Cell, MeshName, MtlsMode, Protocol, Streaming

FREE_FACTORS = ("key_type", "policy_count", "plaintext_share", "http1_transport", "tls_group", "stores")
"""Factors that mean nothing in some postures; all others must agree in what is compared."""


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
    values = grid.values(key)
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
    count = int(present.sum())
    return Effect(contrast, key, absolute, logs, count, planned - count, base, infinite)


def context(cell: Cell) -> tuple[ScopeValue, ...]:
    """What must agree between cells that are compared."""
    return (
        cell.protocol, cell.rate_rps, cell.request_bytes, cell.response_bytes,
        cell.connections, cell.streams, cell.shape, cell.length,
        cell.requests_per_connection, cell.churn_per_s, str(cell.streaming), cell.messages,
        cell.request_sizes, cell.response_sizes,
    )  # fmt: skip


def partner(cell: Cell, candidates: Iterable[Cell]) -> Cell | None:
    """The candidate in the same context with the fewest other free levels; the smallest of equals."""
    fitting = [candidate for candidate in candidates if context(candidate) == context(cell)]
    if not fitting:
        return None

    def distance(candidate: Cell) -> tuple[int, Cell]:
        return sum(getattr(candidate, factor) != getattr(cell, factor) for factor in FREE_FACTORS), candidate

    return min(fitting, key=distance)


def has_mtls(cell: Cell) -> bool:
    return cell.posture.mtls not in (None, MtlsMode.DISABLE)


def cell_scope(cell: Cell) -> dict[str, ScopeValue]:
    """Every factor's level, as a finding carries it."""
    return {
        "mesh": str(cell.mesh), "posture": cell.posture.name, "protocol": str(cell.protocol),
        "rate_rps": cell.rate_rps, "request_bytes": cell.request_bytes, "response_bytes": cell.response_bytes,
        "connections": cell.connections, "streams": cell.streams, "shape": str(cell.shape),
        "length": cell.length, "key_type": str(cell.key_type), "policy_count": cell.policy_count,
        "plaintext_share": cell.plaintext_share, "http1_transport": str(cell.http1_transport),
        "tls_group": str(cell.tls_group), "stores": str(cell.stores),
        "requests_per_connection": cell.requests_per_connection, "churn_per_s": cell.churn_per_s,
        "streaming": str(cell.streaming), "messages": cell.messages,
        "request_sizes": cell.request_sizes, "response_sizes": cell.response_sizes,
    }  # fmt: skip


_SPOKEN = {
    "request_bytes": "{:d} B requests", "response_bytes": "{:d} B responses",
    "connections": "{:d} connections", "streams": "{:d} streams each", "length": "{shape} of {:d}",
    "key_type": "{} keys",
    "policy_count": "{:d} policy entries", "plaintext_share": "{:.0%} plaintext clients",
    "http1_transport": "{} between sidecars", "tls_group": "TLS group {}", "stores": "{} stores",
    "requests_per_connection": "{:d} requests per connection", "churn_per_s": "{:g}/s of connections new",
    "streaming": "{} streams", "messages": "{:d} messages each",
    "request_sizes": "requests {}", "response_sizes": "responses {}",
}  # fmt: skip
_UNSAID = ("requests_per_connection", "churn_per_s", "request_sizes", "response_sizes")
"""Where they are 0 or empty nothing is said of them."""


@dataclass(frozen=True)
class Naming:
    """Short names for cells: protocol and rate always, other factors where they vary with these two and the
    mesh fixed (http2 has streams where http1 has connections; nobody needs to be told each time)."""

    varying: Mapping[tuple[MeshName, Protocol], frozenset[str]]

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> Naming:
        factors = [*_SPOKEN, "shape"]
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

    def setting(self, contrast: Contrast) -> str:
        """The words for what all cells of a contrast share."""
        subject = contrast.subject
        return self.words(contrast.terms[0][0], subject.factor if isinstance(subject, Slope) else "")

    def words(self, cell: Cell, without: str = "") -> str:
        """`http1 at 800/s, chain of 3`: what varies and means something in this posture."""
        scope = cell_scope(cell)
        silent = {without}
        if not has_mtls(cell):
            silent |= {"key_type", "tls_group"}
        if cell.posture.authorization is Authorization.NONE:
            silent.add("policy_count")
        if not cell.plaintext_share:
            silent.add("plaintext_share")
        if cell.posture.mtls is None:
            silent |= {"http1_transport", "stores"}
        silent |= {factor for factor in _UNSAID if not scope[factor]}
        if cell.streaming is Streaming.NONE:
            silent |= {"streaming", "messages"}
        spoken = [
            text.format(scope[factor], shape=cell.shape)
            for factor, text in _SPOKEN.items()
            if factor in self.varying[cell.mesh, cell.protocol] - silent
        ]
        rate = "" if without == "rate_rps" or not cell.rate_rps else f" at {cell.rate_rps:g}/s"
        return ", ".join([f"{cell.protocol}{rate}", *spoken])
