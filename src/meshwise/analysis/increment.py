"""Which differences along a mesh's ladder are asked for: each rung against the one below, and against no
mesh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshwise.analysis.contrast import Contrast, Naming, agree, cell_scope, context, partner
from meshwise.findings.subject import AgainstNone, LadderStep
from meshwise.study.model import LADDER, Cell, MeshName

BOTTOM = -1
"""The rung of "no mesh", below every ladder."""


def rung(cell: Cell) -> int | None:
    """Place on the ladder; None for a posture that is not on it (factorial studies)."""
    if cell.mesh is MeshName.NONE:
        return BOTTOM
    return LADDER.index(cell.posture) if cell.posture in LADDER else None


def below(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The cell one rung down, in the same mesh and setting: the nearest rung that the study has. Levels that
    mean something in both (key with mTLS, policy count with authorization) must agree."""
    height = rung(cell)
    if height is None or height == BOTTOM:
        return None
    fitting = [
        other
        for other in cells
        if other.mesh in (cell.mesh, MeshName.NONE)
        and context(other) == context(cell)
        and (step := rung(other)) is not None
        and step < height
        and agree(other, cell)
    ]
    if not fitting:
        return None
    nearest = max(rung(other) or 0 if rung(other) != BOTTOM else BOTTOM for other in fitting)
    return partner(cell, [other for other in fitting if rung(other) == nearest])


def ladder(cells: Sequence[Cell], naming: Naming) -> Iterator[Contrast]:
    """One contrast per rung and setting: what this step adds to the one below."""
    for cell in cells:
        lower = below(cell, cells)
        if lower is not None:
            yield step(lower, cell, naming, f"ladder/{cell.mesh}")


def against_none(cells: Sequence[Cell], naming: Naming) -> Iterator[Contrast]:
    """Every cell of a mesh against no mesh, but for the first rung, whose increment is the same."""
    bare = [cell for cell in cells if cell.mesh is MeshName.NONE]
    for cell in cells:
        if cell.mesh is MeshName.NONE:
            continue
        base = partner(cell, bare)
        if base is not None and below(cell, cells) != base:
            yield step(base, cell, naming, f"against none/{cell.mesh}")


def step(lower: Cell, upper: Cell, naming: Naming, family: str) -> Contrast:
    at, names = cell_scope(upper), (lower.posture.name, upper.posture.name)
    return Contrast(
        AgainstNone(at, names[1]) if lower.mesh is MeshName.NONE else LadderStep(at, *names),
        family,
        terms=((upper, 1), (lower, -1)),
        key=f"{upper.mesh}/{names[0]}..{names[1]}/{naming.key(upper)}",
        across_processes=lower.mesh != upper.mesh,
    )
