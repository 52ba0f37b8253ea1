"""From counting trials to findings: levels, steps, mesh differences and slopes of what a request costs in
instructions and system calls.

Same pipeline as what is timed, with the life of the proxies in the place of the block: all cells of a mesh
are counted in each life, so what the layout of memory does to all of them cancels in a step, and intervals
are over lives. What may be claimed has a rule of its own (`stats.exact`) in the place of the A/A control.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from meshwise.analysis.assess import assess
from meshwise.analysis.checks import Outcome
from meshwise.analysis.compare import between_increments, between_meshes
from meshwise.analysis.contrast import Contrast, Effect, Naming, evaluate
from meshwise.analysis.exact import ExactNoise
from meshwise.analysis.fairness import Facts, unlike
from meshwise.analysis.flames import flames
from meshwise.analysis.grid import Grid, compared
from meshwise.analysis.increment import ladder
from meshwise.analysis.interaction import interactions
from meshwise.analysis.level import levels
from meshwise.analysis.settings import Settings
from meshwise.analysis.slope import counted_slopes
from meshwise.analysis.translated import translated
from meshwise.findings.finding import Finding, Findings, Provenance
from meshwise.findings.flag import FAILED, MISSING
from meshwise.findings.metric import INSTRUCTIONS, PER_KIB, PER_RULE, MetricKey, Scale
from meshwise.findings.subject import Slope, StudyCheck
from meshwise.measure.counts import CountedTrial
from meshwise.measure.trial import TrialResult
from meshwise.stats.arrays import FloatArray
from meshwise.stats.exact import between_executions, halves, noise_rule
from meshwise.stats.verdict import Verdict
from meshwise.study.model import Cell, MeshName, Role, Trial
from meshwise.telemetry.counting.seam import ARITHMETIC, CALIBRATION

PRIMARY = (INSTRUCTIONS, PER_KIB, PER_RULE)
_OF_TLS = ("tls_version", "tls_group", "tls_cipher", "server_key")
"""Facts of proofs without which counts may not be compared."""
SLOPES = {"request_bytes": PER_KIB, "response_bytes": PER_KIB, "policy_count": PER_RULE}
"""Factor -> what the slope of instructions per request along it is called."""


@dataclass(frozen=True)
class CountedStudy:
    """All counting trials of a study, arranged."""

    grid: Grid
    trials: tuple[CountedTrial, ...]
    outcomes: tuple[Outcome, ...] = ()
    """Of all counting trials, in the order of running."""
    design: tuple[Trial, ...] = ()
    facts: Facts = field(default_factory=dict)
    """Of their proofs."""

    @classmethod
    def of(
        cls,
        trials: Iterable[CountedTrial],
        cells: Sequence[Cell] = (),
        outcomes: Sequence[Outcome] = (),
        design: Sequence[Trial] = (),
        facts: Facts | None = None,
    ) -> CountedStudy:
        """`cells` gives their order."""
        counted = tuple(trials)
        lives = sorted({each.result.trial.life for each in counted})
        results = [_in_its_life(each.result, lives.index(each.result.trial.life)) for each in counted]
        return cls(Grid.of(results, cells), counted, tuple(outcomes), tuple(design), facts or {})

    @property
    def counters(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.counter for each in self.trials))

    def as_json(self) -> dict[str, Any]:
        """For `study.counting` of findings.json: what a comparison with another run needs to know."""
        statuses = Counter(outcome.status for outcome in self.outcomes)
        return {
            "counter": ", ".join(self.counters),
            "executions": len(self.grid.blocks),
            "trials": {status: statuses[status] for status in ("ok", "failed", "unproven")},
            "cells": [cell.name for cell in self.grid.cells],
            "attributed": {
                mesh: any(each.functions for each in self.trials if each.result.trial.cell.mesh is mesh)
                for mesh in dict.fromkeys(cell.mesh for cell in self.grid.cells)
            },
            "tls": {
                cell.name: {name: observed[name] for name in _OF_TLS if name in observed}
                for cell in self.grid.cells
                if (observed := self.facts.get(cell, {}))
            },
        }

    def noise(self, key: MetricKey) -> ExactNoise | None:
        """None where a value is not positive: then there is no share of it. Where differences are judged,
        what is nought in a cell (TLS in plaintext) has no noise there."""
        values = self.grid.values(key)
        known = ~np.isnan(values)
        if key.entry.scale is Scale.DIFFERENCE:
            known &= values > 0
        if not known.any() or not (values[known] > 0).all():
            return None
        logs = np.full(values.shape, np.nan)
        logs[known] = np.log(values[known])
        meshes = dict.fromkeys(cell.mesh for cell in self.grid.cells)
        rows = {
            mesh: [row for row, cell in enumerate(self.grid.cells) if cell.mesh is mesh] for mesh in meshes
        }
        windows = {mesh: self._windows(key, mesh) for mesh in meshes}
        return ExactNoise(
            {mesh: self._rule(windows[mesh], logs[rows[mesh]], common=True) for mesh in meshes},
            {mesh: self._rule(windows[mesh], logs[rows[mesh]], common=False) for mesh in meshes},
            {
                cell: float(np.exp(np.nanmean(logs[row]))) if known[row].any() else 0.0
                for row, cell in enumerate(self.grid.cells)
            },
        )

    def _windows(self, key: MetricKey, mesh: MeshName) -> FloatArray:
        """Of every trial, how its windows differ from one another."""
        own = [each for each in self.trials if each.result.trial.cell.mesh is mesh and key in each.windows]
        found = (halves(each.windows[key]) for each in own)
        return np.array([each for each in found if each is not None])

    @staticmethod
    def _rule(windows: FloatArray, logs: FloatArray, *, common: bool) -> float:
        n = max(1, int((~np.isnan(logs)).any(axis=0).sum()))
        return max(noise_rule(windows, n), noise_rule(between_executions(logs, common=common), n))


def with_counts(document: Findings, counted: CountedStudy, settings: Settings) -> Findings:
    """The document with what was counted."""
    traits = document.environment.get("traits", {})
    found = (*document.findings, *counted_findings(counted, settings, traits))
    return replace(
        document,
        study=dict(document.study) | {"counting": counted.as_json()},
        findings=(*found, *translated(found, settings.confidence, _arithmetic_ns(document))),
        pictures=replace(document.pictures, flames=flames(counted.trials, counted.grid.cells)),
    )


def _arithmetic_ns(document: Findings) -> float | None:
    measured = document.environment.get(CALIBRATION) or {}
    return float(measured[ARITHMETIC]) if ARITHMETIC in measured else None


def counted_findings(
    counted: CountedStudy, settings: Settings, traits: Mapping[str, Mapping[str, str]] | None = None
) -> Iterator[Finding]:
    """What is missing, then levels, increments and differences of every metric that was counted; those of
    two meshes with what is not equal. `traits`: mesh -> trait -> value, as the environment has it."""
    yield completeness(counted, settings)
    grid = counted.grid
    naming = Naming.of(grid.cells)
    own = replace(settings, primary_metrics=PRIMARY)
    noises = {key: noise for key in grid.metrics if (noise := counted.noise(key)) is not None}
    for level in levels(grid, naming, own):
        yield _of_level(level, noises.get(level.key), grid)
    keys = [key for key in compared(grid.metrics, grid.cells) if key in noises]
    contrasts = [
        replace(each, flags=(*each.flags, *unlike(each, traits or {}, counted.facts)))
        for each in counted_contrasts(grid, naming)
    ]
    effects = [
        _named(effect)
        for contrast in contrasts
        for key in keys
        if (effect := evaluate(grid, contrast, key)) is not None
    ]
    noises |= {MetricKey(name, key.part): noises[key] for key in keys for name in _slopes_of(key)}
    for found in assess(effects, {}, own, grid, {}, naming, noises):
        yield replace(found, provenance=Provenance.COUNTED)


def counted_contrasts(grid: Grid, naming: Naming) -> list[Contrast]:
    """As of what is timed, but against no mesh: without a sidecar there is nothing to count."""
    return [
        *ladder(grid.cells, naming),
        *interactions(grid.cells, naming),
        *counted_slopes(grid.cells, naming),
        *between_meshes(grid.cells, naming),
        *between_increments(grid.cells, naming),
    ]


def completeness(counted: CountedStudy, settings: Settings) -> Finding:
    """How many of the counting trials that were planned have no count."""
    found = {(each.result.trial.cell, each.result.trial.life) for each in counted.trials}
    missing = [trial for trial in counted.design if (trial.cell, trial.life) not in found]
    planned = len(counted.design)
    reasons = {o.trial.cell.name: o.failure.partition("\n")[0] for o in counted.outcomes if o.failure}
    return Finding(
        id="check/counted", subject=StudyCheck(), key=MetricKey("counted"),
        estimate=float(len(missing)), low=None, high=None, confidence=settings.confidence, unit="trials",
        n=planned, method="count", verdict=Verdict.WARNING if missing else Verdict.OK,
        flags=tuple(
            FAILED(cell=name, reason=reasons[name]) if name in reasons else MISSING(cell=name)
            for name in sorted({trial.cell.name for trial in missing})
        ),
        sentence=f"{len(missing)} of {planned} counting trials are missing; comparisons say what they lost."
        if missing else f"All {planned} counting trials were counted.",
    )  # fmt: skip


def _named(effect: Effect) -> Effect:
    """A slope of instructions per request along some factors has a name of its own."""
    subject = effect.contrast.subject
    name = SLOPES.get(subject.factor) if isinstance(subject, Slope) else None
    return replace(effect, key=MetricKey(name, effect.key.part)) if name in _slopes_of(effect.key) else effect


def _slopes_of(key: MetricKey) -> frozenset[str]:
    return frozenset(SLOPES.values()) if key.metric == INSTRUCTIONS else frozenset()


def _in_its_life(result: TrialResult, life: int) -> TrialResult:
    """The trial as the rest of the analysis sees one: its life is its block and its execution."""
    trial = replace(result.trial, role=Role.CELL, block=life, execution=life, round=-1)
    return replace(result, trial=trial)


def _of_level(level: Finding, noise: ExactNoise | None, grid: Grid) -> Finding:
    """With the change that a comparison with another run must exceed."""
    found = replace(level, provenance=Provenance.COUNTED)
    mesh = MeshName(str(level.levels["mesh"]))
    if noise is None or level.estimate is None:
        return found
    share = float(np.expm1(noise.across[mesh]))
    return replace(found, floor=share * level.estimate, floor_ratio=1 + share)
