"""A cell in another posture than its own: what a change of posture within a trial brings. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshwise.study.factors import BY_KEY
from meshwise.study.model import Cell, Posture


def in_posture(cell: Cell, posture: Posture) -> Cell:
    """What means nothing in that posture is as where it is left out. Clients in plaintext, and requests that
    are forbidden, are the load's and no resource's: that they are still there where they are refused is no
    contradiction."""
    fields: dict[str, Any] = {
        factor.field: factor.settled()
        for factor in BY_KEY.values()
        if not factor.default_of and not factor.concerns(posture)
    }
    return replace(cell, **{**fields, "posture": posture, "plaintext_share": 0.0, "forbidden_share": 0.0})
