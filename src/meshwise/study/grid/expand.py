"""From the shape of a study file to its cells and controls. Pure; problems are gathered, not raised.

The grid is the union of its parts (`include`; without it the one part `factors`). In each part an
environment takes the postures that are its own: `none` belongs to the environment none and to no other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from meshwise.core import messages
from meshwise.study.factor import Factor
from meshwise.study.factors import BY_KEY
from meshwise.study.file.document import Path
from meshwise.study.file.keys import SearchPart, StudyFile, SubGrid, levels_said
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.grid.expressible import inexpressible
from meshwise.study.grid.match import matches, postures_named
from meshwise.study.grid.pattern import check_patterns
from meshwise.study.grid.topology import check_shape
from meshwise.study.model import (
    NO_MESH,
    Arrivals,
    Cell,
    Layer,
    MeshName,
    NotApplicable,
    Posture,
    Protocol,
    ServiceGraph,
)
from meshwise.study.security import LADDER_NAMES, POSTURES

MAX_CELLS = 400

NotApplicableReason = Callable[[Cell], str | None]


@dataclass(frozen=True)
class GridPart:
    """One part of the grid with all its levels, and where the file says each."""

    path: Path
    environments: Sequence[MeshName]
    postures: Sequence[Posture]
    levels: dict[str, list[Any]]
    said_at: dict[str, Path]

    def combinations(self) -> int:
        return len(self.environments) * len(self.postures) * math.prod(map(len, self.levels.values()))


def expand_cells(
    file: StudyFile, problems: list[Problem], graph: ServiceGraph | None = None
) -> tuple[Cell, ...]:
    """All cells of the study, exclusions applied, in the file's order; `graph` is that of its topology."""
    parts = _parts(file, problems)
    if sum(part.combinations() for part in parts) > 50 * MAX_CELLS:
        problems.append(_too_many(sum(part.combinations() for part in parts)))
        return ()
    cells: dict[Cell, None] = {}
    for part in parts:
        made = _cells_of(file, part, graph)
        if not made:
            reason = "this part makes no cell: none of its postures belongs to its environments"
            problems.append(
                impossible(part.path, reason, "posture `none` goes with environment `none`, only")
            )
        cells |= dict.fromkeys(made)
    _check_parts(file, parts, problems)
    for part in parts:
        check_shape(file.shape, part.levels, part.said_at, problems)
        check_patterns(file.shape, part.levels, part.said_at, problems)
    left = _without_excluded(file, tuple(cells), problems)
    if len(left) > MAX_CELLS:
        problems.append(_too_many(len(left)))
    missing = [mesh for mesh in file.environments if left and not any(cell.mesh is mesh for cell in left)]
    for mesh in missing:
        path = ("environments", file.environments.index(mesh))
        remedy = f"remove it, or add the posture `{'none' if mesh is MeshName.NONE else 'strict'}` for it"
        problems.append(impossible(path, f"environment `{mesh}` has no cell", remedy))
    return left


def _too_many(count: int) -> Problem:
    facts: dict[str, object] = {
        "reason": f"{count} cells are more than one study can measure well (at most {MAX_CELLS})",
        "remedy": "fewer levels, or parts of the grid under `include`",
    }
    return Problem(("factors",), messages.TOO_LARGE, facts)


def _parts(file: StudyFile, problems: list[Problem]) -> list[GridPart]:
    subgrids: list[tuple[Path, SubGrid]] = [(("factors",), SubGrid())]
    if file.include is not None:
        subgrids = [(("include", index), subgrid) for index, subgrid in enumerate(file.include)]
    return [_part(file, path, subgrid, problems) for path, subgrid in subgrids]


def _part(file: StudyFile, path: Path, subgrid: SubGrid, problems: list[Problem]) -> GridPart:
    said_at: dict[str, Path] = {}
    levels: dict[str, list[Any]] = {}
    for name, factor in BY_KEY.items():
        for source, place in ((subgrid, path), (file.factors, ("factors",))):
            if (given := levels_said(source, name)) is not None:
                levels[name] = given
                said_at[name] = (*place, name)
                _check_once(given, (*place, name), problems)
                break
        else:
            if factor.default is not None:
                levels[name] = [factor.default]
    if file.kind == "saturation":
        levels["rate"] = [0.0]
        if "rate" in said_at:
            remedy = "remove it; `search: {start: 200/s}` says where to begin"
            problems.append(impossible(said_at["rate"], "a saturation study searches the rate", remedy))
    levels |= {key: [factor.settled()] for key, factor in BY_KEY.items() if file.shape in factor.without}
    environments = [
        mesh for mesh in file.environments if subgrid.environment is None or mesh in subgrid.environment
    ]
    for index, mesh in enumerate(subgrid.environment or ()):
        if mesh not in file.environments:
            reason, remedy = f"environment `{mesh}` is not in this study", f"add `{mesh}` to `environments`"
            problems.append(impossible((*path, "environment", index), reason, remedy))
    postures, none_said_at = _postures(file, path, subgrid, problems)
    if none_said_at is not None and MeshName.NONE not in file.environments:
        remedy = "add `none` to `environments`, or leave the posture out"
        problems.append(impossible(none_said_at, "posture `none` needs the environment `none`", remedy))
    return GridPart(path, environments, postures, levels, said_at)


def _postures(
    file: StudyFile, path: Path, subgrid: SubGrid, problems: list[Problem]
) -> tuple[list[Posture], Path | None]:
    """The postures of a part, and where `none` is said by name (else None)."""
    for source, place in ((subgrid, path), (file.factors, ("factors",))):
        if source.posture is not None and source.features is not None:
            reason = "`posture` and `features` both say the postures"
            problems.append(impossible((*place, "features"), reason, "keep one of them"))
        if source.features is not None:
            return [NO_MESH, *postures_named(source)], None
        if source.posture is not None:
            _check_once(source.posture, (*place, "posture"), problems)
            said = (*place, "posture", source.posture.index("none")) if "none" in source.posture else None
            return postures_named(source), said
    return [POSTURES[name] for name in LADDER_NAMES], None


def _check_once(levels: Sequence[Any], path: Path, problems: list[Problem]) -> None:
    for index, level in enumerate(levels):
        if level in levels[:index]:
            problems.append(Problem((*path, index), messages.TWICE, {"what": "this level", "first": ""}))


def _cells_of(file: StudyFile, part: GridPart, graph: ServiceGraph | None) -> list[Cell]:
    cells = []
    for mesh, posture in itertools.product(part.environments, part.postures):
        if (mesh is MeshName.NONE) != (posture == NO_MESH):
            continue
        levels = {key: _levels(factor, part.levels.get(key), mesh, posture) for key, factor in BY_KEY.items()}
        for combination in itertools.product(*levels.values()):
            fields: dict[str, Any] = {"mesh": mesh, "posture": posture, "shape": file.shape, "graph": graph}
            for factor, level in zip(BY_KEY.values(), combination, strict=True):
                fields |= factor.split(level) if factor.split else {factor.field: level}
            for factor in BY_KEY.values():
                if not factor.default_of and not factor.means(fields.__getitem__):
                    fields[factor.field] = factor.settled()
            cells.append(Cell(**fields))
    return cells


def _levels(factor: Factor, levels: list[Any] | None, mesh: MeshName, posture: Posture) -> list[Any]:
    """The levels of a factor for one mesh and posture: a single one where it means nothing, so that it does
    not multiply the cells."""
    if factor.default_of:
        levels = levels or [factor.default_of[mesh]]
        return levels if factor.concerns(posture) else levels[:1]
    assert levels
    return levels if factor.concerns(posture) else [factor.settled()]


def _check_parts(file: StudyFile, parts: Sequence[GridPart], problems: list[Problem]) -> None:
    """Combinations that cannot be, each named where the file says it."""
    for part in parts:
        for protocol in (Protocol.HTTP1, Protocol.TCP):
            if protocol in part.levels["protocol"] and max(part.levels["streams"]) > 1:
                reason = f"{protocol} has one stream per connection"
                remedy = "give http2 and grpc a part of their own under `include`, with `streams` there"
                problems.append(impossible(part.said_at["streams"], reason, remedy))
        slowest = min(part.levels["rate"]) or (file.search or SearchPart()).start
        if file.trial.duration < 1e9 / slowest:
            reason = f"a trial is shorter than the time between two requests at {slowest:g}/s"
            problems.append(impossible(("trial", "duration"), reason, "longer trials, or a higher rate"))
        if file.load.arrivals is Arrivals.CLOSED and len(part.levels["rate"]) > 1:
            reason = "closed arrivals have no rate, so levels of it are the same cell"
            problems.append(impossible(part.said_at["rate"], reason, "one level of `rate`, or open arrivals"))
    for key, factor in BY_KEY.items():
        if factor.needs_posture is None:
            continue
        words, remedy = factor.needs_posture
        saying = [part for part in parts if key in part.said_at and max(part.levels[key]) > factor.settled()]
        for path in {part.said_at[key] for part in saying}:
            meant = [part for part in saying if part.said_at[key] == path]
            if not any(factor.concerns(each) for part in meant for each in part.postures):
                reason = f"`{key}` means something only in a posture that is {words}, and there is none here"
                problems.append(impossible(path, reason, remedy))


def _without_excluded(file: StudyFile, cells: tuple[Cell, ...], problems: list[Problem]) -> tuple[Cell, ...]:
    for index, match in enumerate(file.exclude):
        if cells and not any(matches(match, cell) for cell in cells):
            facts: dict[str, object] = {
                "what": "this exclusion",
                "remedy": "`meshwise plan` lists the cells; correct it or remove it",
            }
            problems.append(Problem(("exclude", index), messages.MATCHES_NOTHING, facts))
    left = tuple(cell for cell in cells if not any(matches(match, cell) for match in file.exclude))
    if cells and not left:
        problems.append(impossible(("exclude",), "every cell is excluded", "exclude less"))
    return left


def of_layer(
    layer: Layer | None, cells: tuple[Cell, ...], file: StudyFile, problems: list[Problem]
) -> tuple[tuple[Cell, ...], tuple[MeshName, ...]]:
    """The cells of a layer (all without one), and the environments that have any."""
    if layer is None:
        return cells, tuple(file.environments)
    left = tuple(cell for cell in cells if cell.protocol.layer is layer)
    if cells and not left:
        there = ", ".join(f"`{protocol}`" for protocol in dict.fromkeys(cell.protocol for cell in cells))
        wanted = ", ".join(f"`{protocol}`" for protocol in Protocol if protocol.layer is layer)
        reason = f"`--level {layer}` keeps only cells of {wanted}, and the study has only {there}"
        problems.append(impossible(("factors", "protocol"), reason, "leave it out, or add such a protocol"))
    kept = {cell.mesh for cell in left}
    return left, tuple(mesh for mesh in file.environments if mesh in kept)


def split_applicable(
    cells: Sequence[Cell], not_applicable: NotApplicableReason
) -> tuple[tuple[Cell, ...], tuple[NotApplicable, ...]]:
    """The cells that can be measured, and those that their mesh cannot express, with why."""
    reasons = [(cell, inexpressible(cell) or not_applicable(cell)) for cell in cells]
    return (
        tuple(cell for cell, reason in reasons if not reason),
        tuple(NotApplicable(cell, reason) for cell, reason in reasons if reason),
    )


def blocks_per_execution(file: StudyFile, problems: list[Problem]) -> int:
    """Executions share the blocks evenly: the interval over executions is exact only when balanced."""
    executions = file.executions or file.blocks
    if file.blocks % executions:
        reason = f"{file.blocks} blocks cannot be shared evenly by {executions} executions"
        problems.append(impossible(("executions",), reason, "make `executions` a divisor of `blocks`"))
        return 1
    return file.blocks // executions
