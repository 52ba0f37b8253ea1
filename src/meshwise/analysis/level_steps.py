"""What each level of a factor adds to none of it, or to another, where the table of factors asks for that
(`stepped`): a slope is one number for all levels, and says of a small one only what the largest makes of it;
kinds (of keys, of names) have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from meshwise.analysis.contrast import Contrast, Naming, cell_scope, place_of
from meshwise.analysis.slope import LATENCY_AND_CPU
from meshwise.findings.subject import LevelStep
from meshwise.study.factor import Factor
from meshwise.study.factors import FACTORS
from meshwise.study.model import Cell


def level_steps(cells: Sequence[Cell], naming: Naming) -> Iterator[Contrast]:
    """One contrast for every cell against the one that has none of such a factor, or its ordinary level, and
    is the same in all else. Of kinds without such a cell the study's first is the one."""
    for factor in (each for each in FACTORS if each.stepped):
        bases = {_rest(cell, factor): cell for cell in cells if _level(cell, factor) == factor.settled()}
        for cell in cells:
            if not factor.numeric:
                bases.setdefault(_rest(cell, factor), cell)
            base = bases.get(_rest(cell, factor))
            if base is not None and base != cell:
                yield _contrast(base, cell, factor, naming)


def _level(cell: Cell, factor: Factor) -> object:
    return getattr(cell, factor.field)


def _rest(cell: Cell, factor: Factor) -> tuple[object, ...]:
    return tuple(getattr(cell, each.name) for each in fields(cell) if each.name != factor.field)


def _contrast(lower: Cell, upper: Cell, factor: Factor, naming: Naming) -> Contrast:
    at, name = cell_scope(upper), factor.columns[0].name
    return Contrast(
        LevelStep(at, factor.field, cell_scope(lower)[name], at[name]),
        family=f"level/{upper.mesh}/{factor.field}",
        terms=((upper, 1), (lower, -1)),
        key=f"{place_of(upper)}/{factor.field}-{at[name]}/{naming.key(upper, without=factor.field)}",
        across_processes=False,
        metrics=LATENCY_AND_CPU | {"memory_bytes"},
    )
