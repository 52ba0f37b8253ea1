"""Which cells the A/A control repeats in each block: as the study says, or a default that is shown. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.core import messages
from meshwise.study.design.rounds import why_no_arm
from meshwise.study.design.weight import weight
from meshwise.study.file.keys import Match, StudyFile
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.grid.match import matches
from meshwise.study.model import Arrangement, Authorization, Cell, Control, Layer, MeshName, MtlsMode, Posture


def choose_control(
    file: StudyFile,
    cells: Sequence[Cell],
    arrangement: Arrangement,
    problems: list[Problem],
    layer: Layer | None = None,
) -> Control:
    """The A/A control as the file says, or the default: same processes for the lightest and the heaviest
    cell, twin processes for one cell of each mesh (noise floors differ with load, and layout bias
    shows only between sets of processes), no halves. In rounds of a study with events every cell with
    sidecars has a twin. Cut to one layer, a study may have lost what its file
    names; then the default stands in."""
    if not cells:
        return Control()
    searched = file.kind == "saturation"  # a search costs a dozen trials: repeated only where asked for
    light, heavy = min(cells, key=weight), max(cells, key=weight)
    same = (light,) if light == heavy else (light, heavy)
    meshes = [mesh for mesh in dict.fromkeys(cell.mesh for cell in cells) if mesh is not MeshName.NONE]
    twin = tuple(_typical([cell for cell in cells if cell.mesh is mesh]) for mesh in meshes) or (light,)
    together = arrangement is Arrangement.TOGETHER
    if file.events and together:  # each has one beside it to which nothing happens
        twin = tuple(cell for cell in cells if cell.mesh is not MeshName.NONE and why_no_arm(cell) is None)
    chosen = {
        "same": () if searched or together else same,
        "twin": () if searched else twin,
        "halves": (),
    }
    if file.control.halves and not together:
        reason = "two halves of one trial meet the same moments, which trials apart do not"
        problems.append(impossible(("control", "halves"), reason, "for trials apart it is `control: same`"))
    for name in chosen:
        given: list[Match] | None = getattr(file.control, name)
        if given is None:
            continue
        for index, match in enumerate(given):
            if layer is None and not any(matches(match, cell) for cell in cells):
                facts: dict[str, object] = {
                    "what": "this control",
                    "remedy": "a control repeats cells of the study; `meshwise plan` lists them",
                }
                problems.append(Problem(("control", name, index), messages.MATCHES_NOTHING, facts))
        named = tuple(cell for cell in cells if any(matches(match, cell) for match in given))
        if named or not given:
            chosen[name] = named
    return Control(**chosen)


def _typical(cells: Sequence[Cell]) -> Cell:
    """`strict` in its lightest form where the mesh has it, else the heaviest cell."""
    strict = [cell for cell in cells if cell.posture == Posture(MtlsMode.STRICT, Authorization.NONE)]
    return min(strict, key=weight) if strict else max(cells, key=weight)
