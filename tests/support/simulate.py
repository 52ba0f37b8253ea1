"""Many studies of known truth, and how often the analysis is right about them.

The bars are binomial: `3 * sqrt(p * (1 - p) / repetitions)` around the nominal rate.
benchmarks/analysis_coverage.py runs the same with more repetitions than a test may take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from meshwise.analysis.contrast import Naming
from meshwise.analysis.findings import comparisons, controls_of
from meshwise.analysis.grid import Grid
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Finding
from meshwise.findings.subject import Kind
from meshwise.stats.interval import hodges_lehmann, t_interval, tost
from meshwise.stats.verdict import Verdict
from meshwise.study.model import MeshName
from tests.support.synthetic import ladder_cells, synthetic_study

LADDER = ladder_cells(MeshName.ISTIO)
BOTH = ladder_cells(MeshName.ISTIO, MeshName.LINKERD)
METRIC = "response_p50_us"


@dataclass(frozen=True)
class Rate:
    """How often something happened, and the range that its nominal rate leaves to chance."""

    name: str
    hits: int
    repetitions: int
    nominal: float

    @property
    def share(self) -> float:
        return self.hits / self.repetitions

    @property
    def slack(self) -> float:
        return 3 * float(np.sqrt(self.nominal * (1 - self.nominal) / self.repetitions))

    @property
    def at_most(self) -> bool:
        return self.share <= self.nominal + self.slack

    @property
    def about(self) -> bool:
        return abs(self.share - self.nominal) <= self.slack

    @property
    def at_least(self) -> bool:
        return self.share >= self.nominal - self.slack


def steps_of(
    cells: Any, seed: int, settings: Settings | None = None, *, block_by_block: bool = False, **study: Any
) -> list[Finding]:
    """The increments and differences that one study finds. `block_by_block` pretends that every block was an
    execution of its own: docs/how-it-measures.md says why that is wrong."""
    asked = settings or Settings("simulated", seed, (METRIC,), cells=cells)
    results = synthetic_study(cells, seed=seed, **study)
    if block_by_block:
        results = [replace(r, trial=replace(r.trial, execution=r.trial.block)) for r in results]
    grid = Grid.of(results, cells)
    return comparisons(grid, controls_of(grid, asked.confidence), Naming.of(cells), asked)


def any_claim(
    name: str, repetitions: int, chosen: Callable[[Finding], bool], cells: Any = LADDER, **study: Any
) -> Rate:
    """In how many null studies the chosen family claims anything at all; nominal 5 %."""
    hits = sum(
        any(f.verdict is Verdict.DISTINGUISHABLE for f in steps_of(cells, seed, **study) if chosen(f))
        for seed in range(repetitions)
    )
    return Rate(name, hits, repetitions, 0.05)


def is_ladder(f: Finding) -> bool:
    return f.kind is Kind.INCREMENT and (f.scope["from"] != "none" or f.scope["to"] == "plaintext")


def is_between_meshes(f: Finding) -> bool:
    return f.kind is Kind.DIFFERENCE and f.scope["from"] == "linkerd"


def coverage(name: str, repetitions: int, truth: float, ratio: bool, **study: Any) -> Rate:
    """How often the interval of `permissive` to `strict` holds the true ratio (or difference), nominal 95
    %."""
    levels = [200.0, 200.0, 200.0, 200.0 * truth, 200.0, 200.0]
    hits = 0
    for seed in range(repetitions):
        (found,) = [
            f for f in steps_of(LADDER, seed, truth=levels, **study)
            if f.scope["from"] == "permissive" and f.scope["to"] == "strict"
        ]  # fmt: skip
        low, high = (found.ratio_low, found.ratio_high) if ratio else (found.low, found.high)
        assert low is not None
        assert high is not None
        # noise is lognormal around the truth, so the mean difference lies a little above the truth's
        wanted = truth if ratio else 200.0 * (truth - 1) * float(np.exp(study.get("s_b", 0.03) ** 2 / 2))
        hits += low <= wanted <= high
    return Rate(name, hits, repetitions, 0.95)


def interval_rates(repetitions: int, n: int, seed: int) -> list[Rate]:
    """t, Hodges-Lehmann and TOST on plain draws: (coverage of normal and contaminated, TOST at its
    margin)."""
    random = np.random.default_rng(seed)
    t_hits = exact_hits = bad_hits = tost_hits = 0
    level = 0.95
    for _ in range(repetitions):
        d = random.normal(0, 1, n)
        interval, (_, exact) = t_interval(d), hodges_lehmann(d)
        assert interval is not None
        assert exact is not None
        level = exact.confidence
        t_hits += not interval.excludes(0)
        exact_hits += not exact.excludes(0)
        bad = d + random.choice([0.0, 5.0, -5.0], n, p=[0.9, 0.05, 0.05])
        bad_exact = hodges_lehmann(bad)[1]
        assert bad_exact is not None
        bad_hits += not bad_exact.excludes(0)
        p = tost(d + 1.0, 1.0)  # the truth lies on the margin
        assert p is not None
        tost_hits += p < 0.05
    return [
        Rate(f"t covers, n={n}", t_hits, repetitions, 0.95),
        Rate(f"Hodges-Lehmann covers at its own level, n={n}", exact_hits, repetitions, level),
        Rate(f"Hodges-Lehmann covers with bad trials, n={n}", bad_hits, repetitions, level),
        Rate(f"TOST at the margin, n={n}", tost_hits, repetitions, 0.05),
    ]


def equivalence(name: str, repetitions: int, truth: float, margin: float, **study: Any) -> Rate:
    """How often `permissive` to `strict` is called equivalent within the margin; nominal 5 % at the
    margin."""
    levels = [200.0, 200.0, 200.0, 200.0 * truth, 200.0, 200.0]
    hits = 0
    for seed in range(repetitions):
        settings = replace(Settings("simulated", seed, (METRIC,), cells=LADDER), margin=margin)
        hits += any(
            f.equivalent_within == margin
            for f in steps_of(LADDER, seed, settings, truth=levels, **study)
            if f.scope["from"] == "permissive" and f.scope["to"] == "strict"
        )
    return Rate(name, hits, repetitions, 0.05)
