"""The noise of what is counted, in the place of an A/A control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from meshwise.analysis.contrast import Effect
from meshwise.findings.metric import Scale
from meshwise.study.model import Cell, MeshName


@dataclass(frozen=True)
class ExactNoise:
    """What changes of one metric may be claimed, as log ratios."""

    within: Mapping[MeshName, float]
    """Between cells of one mesh, which share their executions."""
    across: Mapping[MeshName, float]
    """Between executions."""
    levels: Mapping[Cell, float]
    """The metric's level, by which a share becomes a cost."""

    def floors(self, effect: Effect) -> dict[Scale, float | None]:
        """On each scale, for this comparison: each of its cells may be off by the rule's share of it."""
        terms = effect.contrast.terms
        in_mesh = {mesh: sum(c for cell, c in terms if cell.mesh is mesh) for mesh in self.within}
        # What an execution does to all cells cancels where those of a mesh are compared among themselves.
        rules = {mesh: (self.across if abs(c) > 1e-9 else self.within)[mesh] for mesh, c in in_mesh.items()}
        logs = [coefficient * rules[cell.mesh] for cell, coefficient in terms]
        costs = [c * float(np.expm1(rules[cell.mesh])) * self.levels[cell] for cell, c in terms]
        return {
            Scale.LOG: float(np.linalg.norm(logs)) / 2**0.5,
            Scale.DIFFERENCE: float(np.linalg.norm(costs)) / 2**0.5,
        }
