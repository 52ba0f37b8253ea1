"""What a row of the table of factors says (`study.factors`): one factor, wherever it is met.

Rules of this file:
- Everything that a room needs to know of a factor is in its row; no room keeps a list of factors of its own.
- What a level *does* (a resource, an option of the instrument) is not here but in what carries it out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from meshwise.study.levels import MeshName
from meshwise.study.protocol import Protocol
from meshwise.study.security import Posture
from meshwise.study.topology import TopologyKind

if TYPE_CHECKING:
    from meshwise.study.model import Cell

Get = Callable[[str], Any]
"""The level of a field: of a cell, or of one that is being made."""


class FactorRole(Enum):
    """What a comparison does with the factor."""

    COMPARED = "compared"
    """Mesh and posture."""
    CONTEXT = "context"
    """Agrees in whatever is compared."""
    FREE = "free"
    """Means nothing in some postures; agrees where it means something in both."""
    CONSTANT = "constant"
    """One for the whole study."""


class ColumnKind(StrEnum):
    INT = "int"
    NUMBER = "number"
    TEXT = "text"
    REPEATED = "repeated"
    """Long text that repeats from row to row."""


@dataclass(frozen=True)
class CellColumn:
    """Of the archive's tables of trials."""

    name: str
    kind: ColumnKind
    meaning: str
    added: bool = False
    """Came after the first version: null in archives that are older than it."""


def column(name: str, kind: ColumnKind, meaning: str, added: bool = False) -> tuple[CellColumn, ...]:
    """The one column of a factor."""
    return (CellColumn(name, kind, meaning, added),)


@dataclass(frozen=True)
class SlopeUnit:
    """What a numeric factor's slope is per, and how it is said."""

    size: int
    """Of one step, in the field's unit."""
    words: str
    """`each further {shape} node`."""
    unit: str
    """`/node`."""
    axis: str
    """What the levels count: `nodes of the {shape}`."""


def in_every_posture(posture: Posture) -> bool:
    return True


def as_stored(value: Any) -> Any:
    """A level as the archive and findings have it: numbers as they are, words as text."""
    return value if value is None or isinstance(value, int | float) else str(value)


@dataclass(frozen=True, kw_only=True)
class Factor:
    field: str
    """Of `Cell`."""
    role: FactorRole
    columns: tuple[CellColumn, ...]
    read: Callable[[Any], Any] = as_stored
    """From the column's value to the level; of several columns from the row."""
    write: Callable[[Any], Any] = as_stored
    """The inverse; for several columns a mapping."""

    # In the study file
    key: str = ""
    """Empty: another key than one of `factors` says it."""
    type: Any = None
    """pydantic's, of one level."""
    about: str = ""
    default: Any = None
    """The level where the file says none."""
    default_of: Mapping[MeshName, Any] = dataclasses.field(default_factory=dict)
    """Instead, where it depends on the mesh."""
    neutral: Any = None
    """The level where the factor means nothing; None: the default (of one that depends on the mesh: the
    first that the study says)."""
    split: Callable[[Any], Mapping[str, Any]] | None = None
    """From a level as the file says it to several fields of the cell."""
    join: Callable[[Cell], Any] | None = None
    """The inverse."""

    # Whom it concerns
    concerns: Callable[[Posture], bool] = in_every_posture
    protocols: frozenset[Protocol] = frozenset(Protocol)
    needs: tuple[str, Any] | None = None
    """A field of the cell and the level of it that leaves this factor without a meaning."""
    without: Mapping[TopologyKind, str] = dataclasses.field(default_factory=dict)
    """Kinds of topology in which it means nothing, and why."""
    needs_posture: tuple[str, str] | None = None
    """Words for the postures that it needs, and what to do where a study has none of them."""

    # Words
    heading: str = ""
    """Of a column in `plan`."""
    text: Callable[[Any], str] = str
    """A level as people write it, in `plan`."""
    short: Callable[[Any], str] | None = None
    """In a label of the report: `16 connections`; empty: it need not be said."""
    spoken: Callable[[Any, str], str] | None = None
    """In a sentence, with the kind of topology; empty: it need not be said. None: it never is."""
    says_none: bool = False
    """Its neutral level says by itself that there is none of it, and is shown: 0 policies, streaming none."""
    ordinary: tuple[Any, ...] = ()
    """Levels that need no word where every cell has one of them."""
    numeric: bool = False
    named: Callable[[Cell], str] | None = None
    """Its part of a cell's name; empty: none."""
    growth: SlopeUnit | None = None
    stepped: bool = False
    """Each level is compared with the one at which there is none of it, or the ordinary one."""
    alike: bool = False
    """Meshes are compared at equal levels of it only; of others they are at the nearest, and that is said."""

    def level(self, cell: Cell) -> Any:
        """As the study file says it."""
        return self.join(cell) if self.join else getattr(cell, self.field)

    def settled(self) -> Any:
        """The level where the factor means nothing."""
        return self.default if self.neutral is None else self.neutral

    def means(self, get: Get) -> bool:
        """Whether a level says anything about this cell."""
        return (
            self.concerns(get("posture"))
            and get("protocol") in self.protocols
            and get("shape") not in self.without
            and (self.needs is None or get(self.needs[0]) != self.needs[1])
        )

    def means_to(self, cell: Cell) -> bool:
        return self.means(partial(getattr, cell))

    def label(self, value: Any) -> str:
        """A level in a label: `800/s`, `request 1KiB`, `16 connections`."""
        if value is None:
            return ""
        if self.short is None or (self.numeric and not isinstance(value, int | float)):
            return f"{self.field.replace('_', ' ')} {value}"
        return self.short(value)

    def to_columns(self, cell: Cell) -> Mapping[str, Any]:
        value = self.write(getattr(cell, self.field))
        return value if len(self.columns) > 1 else {self.columns[0].name: value}

    def of_columns(self, row: Mapping[str, Any]) -> Any:
        """Raises KeyError, ValueError for a row that is none."""
        if len(self.columns) > 1:
            return self.read(row)
        column = self.columns[0]
        value = row.get(column.name) if column.added else row[column.name]
        return self.settled() if column.added and value is None else self.read(value)
