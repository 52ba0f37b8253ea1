"""The page's sections on what one more of something costs, and on features together: as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from meshwise.findings.subject import SlopePart
from meshwise.report import charts
from meshwise.report.charts import slug
from meshwise.report.content import Content, Rung
from meshwise.report.growth import Growth, Pair, Together, growths, togethers
from meshwise.report.html.sections import Figure
from meshwise.report.words import Footnotes, Form, VerdictWords, typeset, verdict_words

EXPLORATORY = "exploratory: not a primary metric of the study"


@dataclass(frozen=True)
class EffectRow:
    """One line of a table with several levels before the effect."""

    group: str
    """Heading above this row, where it differs from the row before."""
    label: str
    mesh: str
    levels: tuple[str, ...]
    effect: str
    interval: str
    verdict: VerdictWords
    marks: str


@dataclass(frozen=True)
class EffectTable:
    title: str
    unit: str
    first: str
    """Heading of the first column."""
    columns: tuple[str, ...]
    """Of the levels."""
    effect: str
    """Heading of the effect."""
    rows: tuple[EffectRow, ...]
    note: str = ""
    marks: str = ""


@dataclass(frozen=True)
class EffectSection:
    name: str
    label: str
    about: str
    figures: tuple[Figure, ...]
    tables: tuple[EffectTable, ...]
    many: bool


def effect_sections(content: Content, notes: Footnotes) -> tuple[EffectSection, ...]:
    """One section per factor that grows, one for interactions; none where the study has no such thing."""
    groups: dict[tuple[str, str], list[Growth]] = {}
    for growth in growths(content):
        groups.setdefault((growth.factor, growth.part), []).append(growth)
    found = [_growth_section(group, notes) for group in groups.values()]
    if tables := togethers(content):
        found.append(_together_section(tables, notes))
    return tuple(found)


def _growth_section(group: list[Growth], notes: Footnotes) -> EffectSection:
    first = group[0]
    name = f"growth-{slug(first.factor)}-{slug(first.part)}"
    label = f"What {first.step} costs"
    return EffectSection(
        name,
        label,
        _about(first),
        tuple(figure for growth in group for figure in _growth_figures(name, growth)),
        tuple(_growth_table(growth, notes) for growth in group),
        any(len(_meshes(growth)) > 1 for growth in group),
    )


def _about(growth: Growth) -> str:
    """How the slope comes about, and how to read the levels beside it."""
    if growth.part is SlopePart.IDLE:
        return (
            "CPU per second is fitted on the rate within each block; this is what is left of it at no load."
        )
    if growth.factor == "rate_rps":
        return (
            "CPU per second is fitted on the rate within each block; its slope is what a further request "
            "costs. The table shows CPU per request at each rate, of which idling is a part that falls with "
            "the rate."
        )
    return (
        f"A straight line is fitted within each block; its slope is what {growth.step} adds. The table shows "
        f"the values by {growth.factor_words}: where they do not rise evenly, the slope is only an average."
    )


def _meshes(growth: Growth) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.mesh for line in growth.lines if line.mesh != "none"))


def _growth_figures(name: str, growth: Growth) -> Iterator[Figure]:
    """A drawing per setting: their names would not fit beside the postures."""
    many = _meshes(growth) if len(_meshes(growth)) > 1 else ()
    for number, setting in enumerate(growth.settings):
        rows = [
            (Rung(line.mesh, line.posture, line.posture, line.slope), line.slope)
            for line in growth.lines
            if line.setting == setting
        ]
        told = f"{growth.titled.title}, {growth.form.unit}"
        title = f"What {growth.step} adds to {told}" + (f", {setting}" if setting else "")
        drawing = charts.effect_chart(
            f"{name}-{growth.metric}-{number}", rows, growth.form, title, "Slope of each posture"
        )
        if drawing:
            legend = tuple((f"mesh-{slug(mesh)} key-mark {mesh}", mesh) for mesh in many)
            yield Figure(Markup(drawing), f"{told}{f' ({setting})' if setting else ''}", legend)


def _growth_table(growth: Growth, notes: Footnotes) -> EffectTable:
    marks = notes.title_mark(growth.common_notes)
    shown = growth.part is not SlopePart.IDLE
    rows, before = [], ""
    for line in growth.lines:
        levels = tuple(growth.level_form.value(at.estimate) if at else "" for at in line.levels)
        rows.append(
            EffectRow(
                group=line.setting if line.setting != before else "",
                label=line.posture,
                mesh=line.mesh if line.mesh != "none" else "",
                levels=levels if shown else (),
                effect=typeset(growth.form.signed(line.slope.estimate)),
                interval=_interval(growth.form, line.slope.low, line.slope.high),
                verdict=verdict_words(line.slope, growth.form),
                marks=notes.mark(line.slope, without=growth.common_notes),
            )
        )
        before = line.setting
    return EffectTable(
        growth.titled.title,
        growth.level_unit if shown else "",
        "posture",
        growth.point_names if shown else (),
        f"slope, {growth.form.unit}",
        tuple(rows),
        EXPLORATORY if growth.exploratory else "",
        marks,
    )


def _together_section(tables: tuple[Together, ...], notes: Footnotes) -> EffectSection:
    name = "together"
    figures = []
    for table in tables:
        rows = [(Rung(p.mesh, p.setting, _pair_label(p), p.interaction), p.interaction) for p in table.pairs]
        told = f"{table.titled.title}, {table.form.unit}"
        drawing = charts.effect_chart(
            f"{name}-{table.metric}", rows, table.form, f"Beyond the sum of the parts: {told}", "Interaction"
        )
        figures.append(Figure(Markup(drawing), told))
    return EffectSection(
        name,
        "Together and alone",
        "Do the features cost more together than alone? What both cost beyond the sum of each on its own: "
        "above zero they are dearer together. Percentiles beyond the median do not add up, so for them this "
        "only describes.",
        tuple(figures),
        tuple(_together_table(table, notes) for table in tables),
        len({pair.mesh for table in tables for pair in table.pairs}) > 1,
    )


def _pair_label(pair: Pair) -> str:
    features = f"{pair.mtls} × {pair.authorization}"
    return f"{pair.setting}: {features}" if pair.setting else features


def _together_table(table: Together, notes: Footnotes) -> EffectTable:
    form = table.form
    marks = notes.title_mark(table.common_notes)
    rows = tuple(
        EffectRow(
            group="",
            label=_pair_label(pair),
            mesh=pair.mesh,
            levels=tuple(form.value(level.estimate) if level else "" for level in pair.levels),
            effect=typeset(form.signed(pair.interaction.estimate)),
            interval=_interval(form, pair.interaction.low, pair.interaction.high),
            verdict=verdict_words(pair.interaction, form),
            marks=notes.mark(pair.interaction, without=table.common_notes),
        )
        for pair in table.pairs
    )
    columns = ("neither", "mTLS", "authorization", "both")
    note = EXPLORATORY if table.exploratory else ""
    return EffectTable(
        table.titled.title, form.unit, "features", columns, "beyond the sum", rows, note, marks
    )


def _interval(form: Form, low: float | None, high: float | None) -> str:
    return typeset(form.interval(low, high))
