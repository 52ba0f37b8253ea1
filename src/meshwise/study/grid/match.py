"""Partial descriptions of cells: which cells an exclusion or a control means. Pure."""

from __future__ import annotations

import itertools

from meshwise.study.factors import BY_KEY
from meshwise.study.file.keys import Factors, Match, levels_said
from meshwise.study.model import Cell, Posture
from meshwise.study.security import LADDER_NAMES, POSTURES


def postures_named(factors: Factors) -> list[Posture]:
    """The postures that `posture` or `features` say, each once; none when neither is given."""
    if factors.features is not None:
        pairs = itertools.product(factors.features.mtls, factors.features.authorization)
        return [Posture(mtls, kind) for mtls, kind in pairs]
    names = (LADDER_NAMES if given == "ladder" else (given,) for given in factors.posture or ())
    return [POSTURES[name] for name in dict.fromkeys(itertools.chain(*names))]


def matches(match: Match, cell: Cell) -> bool:
    """Whether the cell has one of the named levels in every factor that the match names."""
    if match.environment is not None and cell.mesh not in match.environment:
        return False
    said = match.posture is not None or match.features is not None
    if said and cell.posture not in postures_named(match):
        return False
    return all(
        (levels := levels_said(match, key)) is None or factor.level(cell) in levels
        for key, factor in BY_KEY.items()
    )
