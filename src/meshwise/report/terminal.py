"""The report on a terminal: what was measured once on top, a table per metric, sentences to paste at the end.

The form follows benchstat and hyperfine: eyes run down one column, unit and number of decimals are fixed per
table, noise cannot be mistaken for a gain, and the last lines can be pasted alone. Legible at 100 columns,
without colour and when piped.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from meshwise.findings.finding import Finding
from meshwise.findings.subject import SlopePart
from meshwise.report import facts, saturation, sentences
from meshwise.report.content import Content, Ladder, Slice
from meshwise.report.growth import Growth, Together, growths, togethers
from meshwise.report.operations import OperationTable, of_slice
from meshwise.report.places import place_tables
from meshwise.report.words import Footnotes, Form, VerdictWords, judged_words, verdict_words
from meshwise.stats.verdict import Verdict

EXPLORATORY = " (exploratory: not a primary metric of the study)"
LEFT_ALIGNED = ("", "mesh", "at", "load", "features")
MOST_POINTS = 4
"""Levels that have room beside a slope: the first, the last and those next to the first."""
UNBROKEN = "\ue000"
"""Stands for a blank at which a cell is not wrapped: rich wraps at no-break spaces too."""


def show(content: Content, console: Console) -> None:
    """Print the whole report. Piped, lines have no blanks at their ends."""
    with console.capture() as captured:
        _show(content, console)
    text = captured.get().replace(UNBROKEN, " ")
    console.file.write("".join(f"{line.rstrip()}\n" for line in text.splitlines()))
    console.file.flush()


def _show(content: Content, console: Console) -> None:
    _top(content, console)
    notes = Footnotes()
    for part in content.slices:
        console.print()
        console.rule(Text(f" {_heading(content, part)} ", "bold"), align="left", style="dim", characters="─")
        for metric in content.primary:
            if (ladder := part.ladder(metric)) is not None:
                console.print()
                _ladder(ladder, part, notes, console)
        _places(content, part, console)
        for operations in of_slice(content, part):
            console.print()
            _operations(operations, console)
    for growth in growths(content):
        console.print()
        _growth(growth, notes, console)
    for table in togethers(content):
        console.print()
        _together(table, notes, console)
    saturation.show(content, console)
    _closing(content, notes, console)


def _places(content: Content, part: Slice, console: Console) -> None:
    """CPU by place, where the topology has several."""
    for found in place_tables(content, part)[:1]:
        console.print()
        _title(found.title, False, "", console)
        many = len(part.meshes) > 1
        table = _table(2, "", *(["mesh"] if many else []), *found.postures)
        for row in found.rows:
            table.add_row(
                row.place, *([row.mesh] if many else []), *(t.replace(" ", UNBROKEN) for t in row.rungs)
            )
        console.print(Padding(table, (0, 0, 0, 2)))


def _top(content: Content, console: Console) -> None:
    if content.fake:
        console.print(Text(f"NOT A MEASUREMENT: {facts.FAKE}", "bold reverse"))
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("study", Text(f"{content.name} · {facts.study_line(content)}"))
    grid.add_row("fairness", Text(facts.fidelity_line(content)))
    grid.add_row("noise", Text(facts.noise_line(content)))
    console.print(grid)


def _heading(content: Content, part: Slice) -> str:
    meshes = " and ".join(part.meshes)
    return f"{part.label}, {meshes}" if meshes else part.label


def _ladder(ladder: Ladder, part: Slice, notes: Footnotes, console: Console) -> None:
    form = ladder.form
    unit = f", {form.unit}" if form.unit else ""
    common = ladder.common_notes
    _title(ladder.titled.title + unit, ladder.exploratory, notes.title_mark(common), console)
    many = len(part.meshes) > 1
    confidence = next((f"{rung.value.confidence:.0%}" for rung in ladder.rungs if rung.value), "95%")
    variants = any(rung.variant for rung in ladder.rungs)
    table = _table(
        1 if many or variants else 2,
        "",
        *(["mesh"] if many else []),
        "value",
        f"{confidence} interval",
        "step",
        "interval",
        "vs none",
        "verdict",
    )
    values = _brackets(form, [rung.value for rung in ladder.rungs])
    steps = _brackets(form, [rung.step for rung in ladder.rungs])
    named = posture = ""
    for rung, value, step in zip(ladder.rungs, values, steps, strict=True):
        if rung.variant and rung.posture != posture:
            table.add_row(rung.posture)
        posture = rung.posture
        name = "" if rung.label == named else f"  {rung.variant}" if rung.variant else rung.label
        named = rung.label
        table.add_row(
            name,
            *([rung.mesh if rung.mesh != "none" else ""] if many else []),
            form.level(rung.value),
            value,
            form.signed(rung.step.estimate) if rung.step else "",
            step,
            form.signed(rung.over_none.estimate) if rung.over_none else "",
            _verdict(
                judged_words(rung.step, rung.over_none, form),
                notes.mark(rung.judged, rung.value, without=common),
            ),
        )
    console.print(Padding(table, (0, 0, 0, 0 if many else 2)))
    if ladder.differences:
        _differences(ladder, notes, console)


def _table(gap: int, *headings: str) -> Table:
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for heading in headings:
        if heading == "verdict":
            table.add_column(heading, min_width=21)
        elif heading in LEFT_ALIGNED:
            table.add_column(heading, no_wrap=True)
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    return table


def _brackets(form: Form, findings: Sequence[Finding | None]) -> list[str]:
    """Intervals of one column with their numbers under one another."""
    bounds = [
        (form.bound(finding.low), form.bound(finding.high))
        if finding and finding.low is not None and finding.high is not None
        else None
        for finding in findings
    ]
    low = max((len(pair[0]) for pair in bounds if pair), default=0)
    high = max((len(pair[1]) for pair in bounds if pair), default=0)
    return [f"[{pair[0]:>{low}}, {pair[1]:>{high}}]" if pair else "" for pair in bounds]


def _verdict(verdict: VerdictWords, marks: str) -> Text:
    style = "dim" if not verdict.sure else "green" if "saves" in verdict.word else "yellow"
    told = f"{verdict}\u00a0{marks}" if marks else str(verdict)
    return Text(told.replace("\u00a0", UNBROKEN), style)


def _differences(ladder: Ladder, notes: Footnotes, console: Console) -> None:
    form = ladder.form
    first = ladder.differences[0]
    console.print()
    console.print(Text(f"{facts.difference_name(first)}, {ladder.titled.title}, {form.unit}", "bold"))
    ratios = any(finding.ratio is not None for finding in ladder.differences)
    table = _table(2, "at", "difference", "interval", *(["ratio"] if ratios else []), "verdict")
    brackets = _brackets(form, ladder.differences)
    for finding, bracket in zip(ladder.differences, brackets, strict=True):
        table.add_row(
            facts.difference_place(finding, ladder.free),
            form.signed(finding.estimate),
            bracket,
            *([f"{finding.ratio:.2f}" if finding.ratio is not None else ""] if ratios else []),
            _verdict(verdict_words(finding, form), notes.mark(finding)),
        )
    console.print(Padding(table, (0, 0, 0, 2)))


def _operations(operations: OperationTable, console: Console) -> None:
    unit = f", {operations.form.unit}" if operations.form.unit else ""
    _title(operations.title + unit, False, "", console)
    meshes = len({row.mesh for row in operations.rows} - {""}) > 1
    table = _table(2, "", *(["mesh"] if meshes else []), *operations.operations)
    for row in operations.rows:
        values = [value for value, _ in operations.cells(row)]
        table.add_row(row.label, *([row.mesh] if meshes else []), *values)
    console.print(Padding(table, (0, 0, 0, 2)))


def _growth(growth: Growth, notes: Footnotes, console: Console) -> None:
    """A line per posture: the metric at each level of the factor, and the slope through them."""
    titled, form = growth.titled, growth.form
    _title(
        f"{growth.step}: {titled.title}", growth.exploratory, notes.title_mark(growth.common_notes), console
    )
    meshes = len({line.mesh for line in growth.lines} - {"none"}) > 1
    shown = _few(len(growth.points)) if growth.part is not SlopePart.IDLE else []
    table = _table(
        1,
        "",
        *(["mesh"] if meshes else []),
        *(growth.point_names[place] for place in shown),
        "slope",
        "interval",
        "verdict",
    )
    brackets = _brackets(form, [line.slope for line in growth.lines])
    before = named = ""
    for line, bracket in zip(growth.lines, brackets, strict=True):
        if line.setting != before:
            table.add_row(Text(line.setting, "dim"))
            named = ""
        name = "" if line.posture == named else line.posture
        before, named = line.setting, line.posture
        levels = [line.levels[place] for place in shown]
        table.add_row(
            f"  {name}" if line.setting else name,
            *([line.mesh if line.mesh != "none" else ""] if meshes else []),
            *(growth.level_form.value(level.estimate) if level else "" for level in levels),
            form.signed(line.slope.estimate),
            bracket,
            _verdict(verdict_words(line.slope, form), notes.mark(line.slope, without=growth.common_notes)),
        )
    points = ", ".join(growth.point_names[place] for place in shown)
    told = f"{growth.factor_words} {points}: value in {growth.level_unit}; " if shown else ""
    console.print(Padding(Text(f"{told}slope in {form.unit}", "dim"), (0, 0, 0, 2)))
    console.print(Padding(table, (0, 0, 0, 2)))


def _few(count: int) -> list[int]:
    return list(range(count)) if count <= MOST_POINTS else [*range(MOST_POINTS - 1), count - 1]


def _together(together: Together, notes: Footnotes, console: Console) -> None:
    form = together.form
    common = together.common_notes
    title = f"together and alone: {together.titled.title}, {form.unit}"
    _title(title, together.exploratory, notes.title_mark(common), console)
    many = len({pair.mesh for pair in together.pairs}) > 1
    settings = any(pair.setting for pair in together.pairs)
    table = _table(
        1,
        *(["load"] if settings else []),
        *(["mesh"] if many else []),
        "features",
        "neither", "mTLS", "authz", "both", "extra", "interval", "verdict",
    )  # fmt: skip
    brackets = _brackets(form, [pair.interaction for pair in together.pairs])
    for pair, bracket in zip(together.pairs, brackets, strict=True):
        table.add_row(
            *([pair.setting] if settings else []),
            *([pair.mesh] if many else []),
            f"{pair.mtls} × {pair.authorization}",
            *(form.value(level.estimate) if level else "" for level in pair.levels),
            form.signed(pair.interaction.estimate),
            bracket,
            _verdict(verdict_words(pair.interaction, form), notes.mark(pair.interaction, without=common)),
        )
    console.print(Padding(table, (0, 0, 0, 2)))
    if together.described:
        console.print(
            Padding(Text("described, not judged: such percentiles do not add up", "dim"), (0, 0, 0, 2))
        )


def _title(text: str, exploratory: bool, marks: str, console: Console) -> None:
    note = EXPLORATORY if exploratory else ""
    console.print(Text.assemble((text, "bold"), (note, "dim"), f" {marks}" if marks else ""))


def _closing(content: Content, notes: Footnotes, console: Console) -> None:
    troubles = [finding for finding in content.of_kind("check") if finding.verdict is Verdict.WARNING]
    lines = [(mark, flag, remedy) for mark, flag, remedy in notes.lines()]
    if lines or troubles or content.not_applicable:
        console.print()
    for mark, flag, remedy in lines:
        _hanging(console, f"{mark} ", f"{flag}; {remedy}" if remedy else flag)
    for finding in troubles:
        _hanging(console, "! ", finding.sentence or f"{finding.metric}: {finding.verdict}")
    for line in facts.not_applicable_lines(content):
        _hanging(console, "- ", line)
    console.print()
    for sentence in sentences.closing(content):
        _hanging(console, "", sentence)


def _hanging(console: Console, mark: str, text: str) -> None:
    grid = Table(box=None, show_header=False, padding=0, pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(mark, Text(text))
    console.print(grid if mark else Text(text))
