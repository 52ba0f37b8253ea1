"""What the study declared before its first trial, as far as the analysis needs it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from meshwise.findings.metric import MetricKey
from meshwise.study.model import Arrangement, Cell, NotApplicable, Search, Study, Trial


@dataclass(frozen=True)
class Settings:
    """Everything that chooses is here; the analysis itself chooses nothing after seeing data."""

    name: str
    seed: int
    primary_metrics: tuple[str, ...]
    confidence: float = 0.95
    outlier_rule: str = "none"
    margin: float | None = None
    """Equivalence margin as a share (.05: a change below 5 % does not matter); None: none was declared."""
    cells: tuple[Cell, ...] = ()
    """In the order of the study file."""
    design: tuple[Trial, ...] = field(default=(), repr=False)
    """Every planned trial; empty if unknown."""
    not_applicable: tuple[NotApplicable, ...] = ()
    search: Search | None = None
    """Of a saturation study."""
    arrangement: Arrangement = Arrangement.APART
    load_shape: str = ""
    """How the load moves within a trial, in words; empty if it does not."""
    twins_undisturbed: bool = False
    """Events happen to cells and not to their twins: what lies between them is no noise."""

    @classmethod
    def of(cls, study: Study, design: Sequence[Trial]) -> Settings:
        return cls(
            name=study.name,
            seed=study.seed,
            primary_metrics=study.primary_metrics,
            confidence=study.confidence,
            outlier_rule=study.outlier_rule,
            margin=study.margin,
            cells=study.cells,
            design=tuple(design),
            not_applicable=study.not_applicable,
            search=study.search,
            arrangement=study.arrangement,
            load_shape=study.trial.shape.words if study.trial.shape else "",
            twins_undisturbed=bool(study.trial.timeline) and study.arrangement is Arrangement.TOGETHER,
        )

    @property
    def primary(self) -> tuple[MetricKey, ...]:
        return tuple(MetricKey(name) for name in self.primary_metrics)

    @property
    def together(self) -> bool:
        return self.arrangement is Arrangement.TOGETHER

    @property
    def alpha(self) -> float:
        return 1 - self.confidence

    @property
    def hampel_k(self) -> float | None:
        """k of the outlier rule `hampel k`, else None."""
        match = re.fullmatch(r"hampel\s+([0-9.]+)", self.outlier_rule)
        return float(match[1]) if match else None

    def as_json(self) -> dict[str, Any]:
        moving = {"load_shape": self.load_shape} if self.load_shape else {}
        return moving | {
            "name": self.name,
            "seed": self.seed,
            "primary_metrics": list(self.primary_metrics),
            "arrangement": str(self.arrangement),
            "confidence": self.confidence,
            "outlier_rule": self.outlier_rule,
            "margin": self.margin,
            "planned_trials": len(self.design),
            "not_applicable": [
                {
                    "cell": absent.cell.name,
                    "mesh": str(absent.cell.mesh),
                    "posture": absent.cell.posture.name,
                    "protocol": str(absent.cell.protocol),
                    "reason": absent.reason,
                }
                for absent in self.not_applicable
            ],
        }
