"""Mesh against mesh: at equal posture and setting, and the difference of their increments.

The sign is first minus second in the order none, istio, linkerd (`istio - linkerd`); `from` is the second.
What could not be made equal (a key type that only one mesh issues) is a flag of the finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from meshwise.analysis.contrast import Contrast, Naming, cell_scope, partner
from meshwise.analysis.increment import below
from meshwise.findings.flag import UNEQUAL_LEVEL, Flag
from meshwise.findings.metric import Scale
from meshwise.findings.subject import MeshDifference, StepDifference
from meshwise.study.factors import ALIKE_FIELDS, FREE_FIELDS, concerns
from meshwise.study.model import Cell, MeshName

Pair = tuple[MeshName, MeshName]


def pairs(cells: Sequence[Cell]) -> list[Pair]:
    present = [mesh for mesh in MeshName if mesh is not MeshName.NONE and any(c.mesh is mesh for c in cells)]
    return list(combinations(present, 2))


def counterpart(cell: Cell, mesh: MeshName, cells: Sequence[Cell]) -> Cell | None:
    """The other mesh's cell with the same posture and setting."""
    return partner(
        cell,
        [
            other
            for other in cells
            if other.mesh is mesh
            and other.posture == cell.posture
            and all(getattr(other, name) == getattr(cell, name) for name in ALIKE_FIELDS)
        ],
    )


def between_meshes(cells: Sequence[Cell], naming: Naming) -> Iterator[Contrast]:
    """Per posture and setting: first mesh minus second."""
    for first, second in pairs(cells):
        for cell in cells:
            other = counterpart(cell, second, cells) if cell.mesh is first else None
            if other is not None:
                yield Contrast(
                    MeshDifference(cell_scope(cell), first, second),
                    family=f"meshes/{first} - {second}",
                    terms=((cell, 1), (other, -1)),
                    key=f"{first}-{second}/{cell.posture.name}/{naming.key(cell)}",
                    across_processes=True,
                    flags=unequal(cell, other),
                )


def between_increments(cells: Sequence[Cell], naming: Naming) -> Iterator[Contrast]:
    """Per step of the ladder: what the step adds in the first mesh minus what it adds in the second. Part of
    what the layout of processes does to a level cancels in an increment, but not all of it."""
    for first, second in pairs(cells):
        for upper in cells:
            lower = below(upper, cells) if upper.mesh is first else None
            if lower is None or lower.mesh is not first:
                continue
            other_upper = counterpart(upper, second, cells)
            other_lower = None if other_upper is None else below(other_upper, cells)
            if other_upper is None or other_lower is None or other_lower.posture != lower.posture:
                continue
            names = lower.posture.name, upper.posture.name
            yield Contrast(
                StepDifference(cell_scope(upper), first, second, *names),
                family=f"mesh increments/{first} - {second}",
                terms=((upper, 1), (lower, -1), (other_upper, -1), (other_lower, 1)),
                key=f"{first}-{second}/{names[0]}..{names[1]}/{naming.key(upper)}",
                across_processes=True,
                scale=Scale.DIFFERENCE,
                flags=unequal(upper, other_upper),
            )


def unequal(cell: Cell, other: Cell) -> tuple[Flag, ...]:
    return tuple(
        UNEQUAL_LEVEL(
            factor=factor,
            level=getattr(cell, factor),
            mesh=cell.mesh,
            other_level=getattr(other, factor),
            other_mesh=other.mesh,
        )
        for factor in FREE_FIELDS
        if getattr(cell, factor) != getattr(other, factor) and concerns(factor, cell.posture)
    )
