"""The fairness card: what is equal between the meshes that are compared, and what is not. Pure.

Rules of this file:
- Only cells that are compared with each other are asked (`compare.counterpart`); a trait that means nothing
  to any of them is left out.
- What a proof observed on the running proxies stands above what was configured, and each entry says which.
- What is known of one mesh only is not equal: it is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from meshwise.analysis.compare import counterpart, pairs
from meshwise.analysis.contrast import Contrast, has_mtls
from meshwise.archive.outcome import TrialStatus
from meshwise.archive.rows import cell_of
from meshwise.findings.finding import CONFIGURED, OBSERVED
from meshwise.findings.flag import UNEQUAL_TRAIT, Flag
from meshwise.mesh.traits import TRAITS, Trait
from meshwise.study.model import Cell, Layer, MeshName, Protocol

UNKNOWN = "unknown"
_DEFAULT_LEVEL = "default"

Facts = Mapping[Cell, Mapping[str, str]]
"""What proofs observed, per cell: fact -> value."""


@dataclass(frozen=True)
class Entry:
    trait: Trait
    values: Mapping[MeshName, str]
    equal: bool
    basis: str
    """`observed` if every value is, else `configured`."""

    @property
    def removable(self) -> str:
        """How to make it equal; empty when it is, or when it cannot be."""
        return "" if self.equal else self.trait.removed_by

    @property
    def why_not(self) -> str:
        return "" if self.equal or self.trait.removed_by else self.trait.otherwise

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.trait.what,
            "trait": self.trait.name,
            "equal": self.equal,
            **{str(mesh): value for mesh, value in self.values.items()},
            "basis": self.basis,
            "effect": self.trait.effect,
            "removable": self.removable,
            "why_not": self.why_not,
        }


def facts_of(trials: pl.DataFrame) -> Facts:
    """`trials.parquet` -> facts of the proofs of good trials. Where trials of a cell differ, all values."""
    found: dict[Cell, dict[str, dict[str, None]]] = {}
    for row in trials.iter_rows(named=True):
        if row["status"] != TrialStatus.OK:
            continue
        observed = json.loads(row.get("proof") or "{}").get("facts", {})
        of_cell = found.setdefault(cell_of(row), {})
        for name, value in observed.items():
            of_cell.setdefault(name, {})[str(value)] = None
    return {cell: {name: _listed(values) for name, values in facts.items()} for cell, facts in found.items()}


def fairness(
    cells: Sequence[Cell], traits: Mapping[str, Mapping[str, str]], facts: Facts
) -> tuple[Entry, ...]:
    """One entry per trait that means something to a pair of compared cells and is known of one mesh at least,
    in the vocabulary's order. `traits`: mesh -> trait -> value, as the environment has it."""
    compared = [
        (cell, other)
        for first, second in pairs(cells)
        for cell in cells
        if cell.mesh is first and (other := counterpart(cell, second, cells)) is not None
    ]
    entries = (_entry(trait, compared, traits, facts) for trait in TRAITS)
    return tuple(entry for entry in entries if entry is not None)


def unlike(contrast: Contrast, traits: Mapping[str, Mapping[str, str]], facts: Facts) -> tuple[Flag, ...]:
    """Flags of a comparison between two meshes: what differs though a study could make it equal, beside the
    levels that differ in the study itself (`compare.unequal`)."""
    first = contrast.terms[0][0]
    others = [cell for cell, _ in contrast.terms if cell.mesh is not first.mesh]
    other = next((cell for cell in others if cell.posture == first.posture), None)
    if other is None:
        return ()
    flags = []
    for trait in TRAITS:
        if trait.factor and getattr(first, trait.factor) == getattr(other, trait.factor):
            entry = _entry(trait, [(first, other)], traits, facts)
            if entry and not entry.equal and UNKNOWN not in entry.values.values():
                differing = ", ".join(f"{value} in {mesh}" for mesh, value in entry.values.items())
                flags.append(UNEQUAL_TRAIT(what=trait.what, values=differing))
    return tuple(flags)


def _entry(
    trait: Trait,
    compared: Iterable[tuple[Cell, Cell]],
    traits: Mapping[str, Mapping[str, str]],
    facts: Facts,
) -> Entry | None:
    concerned = [pair for pair in compared if all(_concerns(trait, cell) for cell in pair)]
    by_mesh: dict[MeshName, dict[str, None]] = {}
    observed, equal = True, True
    for pair in concerned:
        values = []
        for cell in pair:
            value, basis = _value(trait, cell, traits, facts)
            by_mesh.setdefault(cell.mesh, {})[value] = None
            observed &= basis == OBSERVED
            values.append(value)
        equal &= values[0] == values[1] != UNKNOWN
    if all(value == UNKNOWN for values in by_mesh.values() for value in values):
        return None
    basis = OBSERVED if observed else CONFIGURED
    return Entry(trait, {mesh: _listed(values) for mesh, values in by_mesh.items()}, equal, basis)


def _concerns(trait: Trait, cell: Cell) -> bool:
    return not (
        (trait.l7 and cell.protocol.layer is Layer.L4)
        or (trait.http1 and cell.protocol is not Protocol.HTTP1)
        or (trait.mtls and not has_mtls(cell))
    )


def _value(
    trait: Trait, cell: Cell, traits: Mapping[str, Mapping[str, str]], facts: Facts
) -> tuple[str, str]:
    if trait.fact and (observed := facts.get(cell, {}).get(trait.fact)):
        return observed, OBSERVED
    if trait.factor and (level := str(getattr(cell, trait.factor))) != _DEFAULT_LEVEL:
        return level, CONFIGURED
    return traits.get(cell.mesh, {}).get(trait.name, UNKNOWN), CONFIGURED


def _listed(values: Iterable[str]) -> str:
    return " or ".join(values)
