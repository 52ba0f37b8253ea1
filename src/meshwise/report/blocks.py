"""What the report says, as blocks that are made once: terminal, page and JSON only set them.

A text is ready to be set, in plain characters; a number has its column's form. Notes to a number travel with
it: the code that sets them gives them marks, in the order in which a reader meets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from markupsafe import Markup

from meshwise.findings.finding import Finding
from meshwise.findings.protection import AttemptOutcome
from meshwise.report.words import Form, Note, VerdictWords, notes_of

EXPLORATORY = "exploratory: not a primary metric of the study"


class Setting(StrEnum):
    """How a column is set; its class on the page."""

    LABEL = "label"
    MESH = "mesh"
    PROSE = "prose"
    NUMBER = "n"
    STRONG = "n strong"
    """A number that the row is about."""
    INTERVAL = "i"
    VERDICT = "v"
    OUTCOME = "o"


@dataclass(frozen=True)
class TableColumn:
    title: str
    setting: Setting = Setting.NUMBER
    short: str | None = None
    """Of a terminal; None: the title."""
    spare: bool = False
    """A terminal has no room for it."""


@dataclass(frozen=True)
class Bounds:
    low: str
    high: str

    def __str__(self) -> str:
        return f"[{self.low}, {self.high}]"


@dataclass(frozen=True)
class Ranged:
    """A value whose interval stands below it where there is room."""

    value: str
    interval: str

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Judged:
    verdict: VerdictWords
    notes: tuple[Note, ...] = ()

    def __str__(self) -> str:
        return str(self.verdict)


_MARKS = {
    AttemptOutcome.STOPPED: "✓",
    AttemptOutcome.LET_THROUGH: "✗",
    AttemptOutcome.NOT_APPLICABLE: "–",
    AttemptOutcome.UNDECIDED: "?",
}


@dataclass(frozen=True)
class Sign:
    """What came of an attempt; a phone has room for its mark only."""

    word: str
    kind: str
    """An `AttemptOutcome`; empty: not tried."""
    marks: str = ""

    @property
    def mark(self) -> str:
        return _MARKS[AttemptOutcome(self.kind)] if self.kind else ""

    def __str__(self) -> str:
        return f"{self.word}{self.marks}"


Entry = str | Bounds | Ranged | Judged | Sign


@dataclass(frozen=True)
class Row:
    entries: tuple[Entry, ...]
    """One per column; the first is the row's label."""
    group: str = ""
    """Heading above this row, where it differs from that of the row before."""
    again: bool = False
    """Its label is that of the row before."""


class Style(StrEnum):
    LADDER = "ladder"
    """On a phone a row becomes a few lines."""
    EFFECTS = "effects"
    PLAIN = "plain"


@dataclass(frozen=True)
class Table:
    name: str
    """Unique in the page."""
    title: str
    columns: tuple[TableColumn, ...]
    rows: tuple[Row, ...]
    style: Style = Style.PLAIN
    remark: str = ""
    """Beside the title."""
    caption: str = ""
    notes: tuple[Note, ...] = ()
    """What all its rows carry."""
    dense: bool = False
    """So wide that a terminal has no room to spare."""
    page_only: bool = False
    terminal_only: bool = False


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str
    page_only: bool = True


@dataclass(frozen=True)
class Sentences:
    """Findings' own sentences."""

    texts: tuple[str, ...]
    title: str = ""


@dataclass(frozen=True)
class Figure:
    drawing: Markup
    caption: str
    legend: tuple[tuple[str, str], ...] = ()
    """Class and words of every key."""


@dataclass(frozen=True)
class Figures:
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Drawing:
    """One that needs the whole width."""

    drawing: Markup
    label: str


@dataclass(frozen=True)
class Details:
    """What few open."""

    title: str
    tables: tuple[Table, ...]


Block = Table | Heading | Paragraph | Sentences | Figures | Drawing | Details


@dataclass(frozen=True)
class Section:
    name: str
    label: str
    blocks: tuple[Block, ...]
    topic: str = ""
    """What a terminal rules off above it; empty: nothing."""


def figures(found: Sequence[Figure]) -> tuple[Figures, ...]:
    return (Figures(tuple(found)),) if found else ()


def bounds(form: Form, finding: Finding | None) -> Entry:
    """Empty where there is no interval."""
    if finding is None or finding.low is None or finding.high is None:
        return ""
    return Bounds(form.bound(finding.low), form.bound(finding.high))


def judged(verdict: VerdictWords, *findings: Finding | None, without: Sequence[Note] = ()) -> Judged:
    """A verdict with the notes of the findings that it rests on."""
    found = dict.fromkeys(note for finding in findings for note in notes_of(finding))
    return Judged(verdict, tuple(note for note in found if note not in without))


def mesh_column(*, many: bool) -> tuple[TableColumn, ...]:
    """Where there are several meshes."""
    return (TableColumn("mesh", Setting.MESH),) if many else ()


def mesh_entry(mesh: str, *, many: bool) -> tuple[str, ...]:
    return ("" if mesh == "none" else mesh,) if many else ()
