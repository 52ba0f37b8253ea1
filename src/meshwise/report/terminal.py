"""The report on a terminal: what was measured once on top, a table per metric, sentences to paste at the end.

The form follows benchstat and hyperfine: a column is read from top to bottom, so unit and number of decimals
are fixed per table; noise cannot be mistaken for a gain; the last lines can be pasted alone. Legible at 100
columns, without colour and when piped.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from meshwise.report import facts
from meshwise.report.blocks import (
    Block,
    Bounds,
    Entry,
    Judged,
    Paragraph,
    Section,
    Sentences,
    Setting,
    Sign,
    Style,
    Table,
)
from meshwise.report.content import Content
from meshwise.report.counted import counted_line
from meshwise.report.glossary import legend
from meshwise.report.protection import protection_line
from meshwise.report.rounds import rounds_line
from meshwise.report.sections import Report
from meshwise.report.tradeoff import tradeoff_line
from meshwise.report.words import Footnotes

UNBROKEN = "\ue000"
"""Stands for a blank at which a cell is not wrapped: rich wraps at no-break spaces too."""
_LEFT = (Setting.LABEL, Setting.MESH, Setting.PROSE, Setting.VERDICT, Setting.OUTCOME)
_WRAPPED = (Setting.LABEL, Setting.PROSE, Setting.VERDICT)
_LABEL_WIDTH, _VERDICT_WIDTH = 28, 21
"""What a terminal of any width leaves them."""
_OUTCOMES = {"stopped": "green", "let_through": "yellow", "not_applicable": "dim"}


def show(report: Report, console: Console) -> None:
    """Print the whole report. Piped, lines have no blanks at their ends."""
    with console.capture() as captured:
        notes = Footnotes()
        for section in report.in_terminal:
            _section(section, notes, console)
        _closing(report, notes, console)
    body = captured.get()
    with console.capture() as captured:
        _top(report.content, body, console)
    _written(captured.get() + body, console)


def _written(text: str, console: Console) -> None:
    lines = text.replace(UNBROKEN, " ").splitlines()
    console.file.write("".join(f"{line.rstrip()}\n" for line in lines))
    console.file.flush()


def _top(content: Content, body: str, console: Console) -> None:
    """`body`: what follows, whose words are explained."""
    if content.fake:
        console.print(Text(f"NOT A MEASUREMENT: {facts.FAKE}", "bold reverse"))
    lines = {
        "study": f"{content.name} · {facts.study_line(content)}",
        "fairness": facts.fidelity_line(content),
        "noise": facts.noise_line(content),
    }
    if counted := counted_line(content):
        lines["counted"] = counted
    if rounds := rounds_line(content):
        lines["rounds"] = rounds
    if protection := protection_line(content):
        lines["protects"] = protection
    if tradeoff := tradeoff_line(content):
        lines["costs"] = tradeoff
    lines["words"] = legend(" ".join((*lines.values(), body)))
    grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, line in lines.items():
        grid.add_row(name, Text(line, "dim" if name == "words" else ""))
    console.print(grid)


def show_table(table: Table, console: Console) -> None:
    """One table alone."""
    _table(table, Footnotes(), console)


def show_blocks(blocks: Iterable[Block], console: Console) -> None:
    """Some blocks alone; what they carry notes about says them itself. Piped, lines have no blanks at their
    ends."""
    with console.capture() as captured:
        _blocks(blocks, Footnotes(), console)
    _written(captured.get(), console)


def _section(section: Section, notes: Footnotes, console: Console) -> None:
    if section.topic:
        console.print()
        console.rule(Text(f" {section.topic} ", "bold"), align="left", style="dim", characters="─")
    _blocks(section.blocks, notes, console)


def _blocks(blocks: Iterable[Block], notes: Footnotes, console: Console) -> None:
    """Tables, and what is said in words; drawings are for the page."""
    for block in blocks:
        match block:
            case Table(page_only=False):
                console.print()
                _table(block, notes, console)
            case Paragraph(text, page_only=False):
                console.print(Padding(Text(text, "dim"), (0, 0, 0, 2)))
            case Sentences(texts, title):
                if title:
                    console.print()
                    console.print(Text(title, "bold"))
                for text in texts:
                    console.print(Padding(Text(text), (0, 0, 0, 2)))


def _table(table: Table, notes: Footnotes, console: Console) -> None:
    marks = notes.mark(table.notes)
    remark = (f" ({table.remark})" if table.remark else "", "dim")
    console.print(Text.assemble((table.title, "bold"), remark, f" {marks}" if marks else ""))
    if table.caption:
        console.print(Padding(Text(table.caption, "dim"), (0, 0, 0, 2)))
    grid = Grid(box=None, padding=(0, 1 if table.dense else 2, 0, 0), pad_edge=False, header_style="dim")
    shown = [place for place, column in enumerate(table.columns) if not column.spare]
    for place, column in ((place, table.columns[place]) for place in shown):
        grid.add_column(
            column.title if column.short is None else column.short,
            justify="left" if column.setting in _LEFT else "right",
            no_wrap=column.setting not in _WRAPPED,
            min_width=_least_width(table, place, column.setting),
        )
    aligned = {place: _brackets([row.entries[place] for row in table.rows]) for place in shown[1:]}
    group = ""
    for number, row in enumerate(table.rows):
        if row.group and row.group != group:
            grid.add_row(Text(row.group, "dim"))
        repeated = row.again and row.group == group
        label = "" if repeated else f"  {row.entries[0]}" if row.group else str(row.entries[0])
        group = row.group
        hanging = Padding(Text(label.strip()), (0, 0, 0, len(label) - len(label.lstrip())))
        grid.add_row(hanging, *(_set(aligned[place][number], notes) for place in shown[1:]))
    wide = table.style is Style.LADDER and any(each.setting is Setting.MESH for each in table.columns)
    console.print(Padding(grid, (0, 0, 0, 0 if wide else 2)))


def _least_width(table: Table, place: int, setting: Setting) -> int | None:
    """Of a column that is wrapped where the table is too wide: numbers never are, so that none is cut off."""
    if setting is Setting.LABEL:
        longest = max((len(str(row.entries[place])) + 2 * bool(row.group) for row in table.rows), default=0)
        return min(_LABEL_WIDTH, longest)
    return _VERDICT_WIDTH if setting is Setting.VERDICT else None


def _brackets(entries: list[Entry]) -> list[Entry]:
    """Intervals of one column with their numbers under one another."""
    found = [entry for entry in entries if isinstance(entry, Bounds)]
    low = max((len(entry.low) for entry in found), default=0)
    high = max((len(entry.high) for entry in found), default=0)
    return [
        f"[{entry.low:>{low}}, {entry.high:>{high}}]" if isinstance(entry, Bounds) else entry
        for entry in entries
    ]


def _set(entry: Entry, notes: Footnotes) -> str | Text:
    if isinstance(entry, Sign):
        return Text(str(entry), _OUTCOMES.get(entry.kind, ""))
    if not isinstance(entry, Judged):
        return str(entry)
    verdict, marks = entry.verdict, notes.mark(entry.notes)
    style = "dim" if not verdict.sure else "green" if "saves" in verdict.word else "yellow"
    shown = f"{verdict}\u00a0{marks}" if marks else str(verdict)
    return Text(shown.replace("\u00a0", UNBROKEN), style)


def _closing(report: Report, notes: Footnotes, console: Console) -> None:
    lines = [(f"{mark} ", f"{flag}; {remedy}" if remedy else flag) for mark, flag, remedy in notes.lines()]
    lines += [("! ", text) for text in report.warnings]
    lines += [("- ", text) for text in facts.not_applicable_lines(report.content)]
    if lines:
        console.print()
    for mark, text in lines:
        grid = Grid(box=None, show_header=False, padding=0, pad_edge=False)
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(mark, Text(text))
        console.print(grid)
    console.print()
    for text in report.sentences:
        console.print(Text(text))
