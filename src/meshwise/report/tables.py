"""Ladders, differences, slopes and interactions as tables."""

from __future__ import annotations

from meshwise.findings.flag import EXPLORATORY as EXPLORATORY_FLAG
from meshwise.findings.metric import Inference, metric_of
from meshwise.findings.subject import Kind, LevelStep, SlopePart
from meshwise.report import facts, words
from meshwise.report.blocks import (
    EXPLORATORY,
    Row,
    Setting,
    Style,
    Table,
    TableColumn,
    bounds,
    judged,
    mesh_column,
    mesh_entry,
)
from meshwise.report.content import CONTEXT, FREE, Content, Ladder, Rung, form_of
from meshwise.report.growth import Growth, Pair, Together
from meshwise.report.words import judged_words, verdict_words
from meshwise.stats.verdict import Verdict
from meshwise.study.factors import BY_FIELD

INTERVAL, VERDICT = TableColumn("interval", Setting.INTERVAL), TableColumn("verdict", Setting.VERDICT)
_COUNTED_SHORT = "instr. per\nrequest"
MOST_POINTS = 4
"""Levels that a terminal has room for beside a slope: the first, the last and those next to the first."""


def ladder_table(
    name: str, ladder: Ladder, *, many: bool, style: Style = Style.LADDER, counted: Ladder | None = None
) -> Table:
    """A row per rung and mesh; `many`: of several meshes. `counted`: instructions per request of the same
    rungs, which have a column of their own. What was counted itself has no column against no mesh."""
    form, common = ladder.form, tuple(ladder.common_notes)
    confidence = next((f"{rung.value.confidence:.0%}" for rung in ladder.rungs if rung.value), "95%")
    apart = any(rung.alone for rung in ladder.rungs)
    against_none = ladder.titled.inference is not Inference.EXACT
    stepped = against_none or any(rung.step for rung in ladder.rungs)
    rows, before = [], ""
    for rung in ladder.rungs:
        value, step, over_none = rung.value, rung.step, rung.over_none
        entries = (
            rung.variant or rung.posture,
            *mesh_entry(rung.mesh, many=many),
            form.level(value),
            bounds(form, value),
            *([form.value(rung.alone.estimate) if rung.alone else ""] if apart else []),
            *([form.signed(step.estimate) if step else "", bounds(form, step)] if stepped else []),
            *([form.signed(over_none.estimate) if over_none else ""] if against_none else []),
            *([_counted_entry(rung, counted, many=many)] if counted else []),
            *([judged(judged_words(step, over_none, form), rung.judged, value, without=common)] * stepped),
        )
        rows.append(Row(entries, rung.posture if rung.variant else "", rung.label == before))
        before = rung.label
    columns = (
        TableColumn("posture", Setting.LABEL, ""), *mesh_column(many=many),
        TableColumn("value", Setting.STRONG), TableColumn(f"{confidence} interval", Setting.INTERVAL),
        *([TableColumn("alone")] if apart else []),
        *([TableColumn("step", Setting.STRONG), INTERVAL] if stepped else []),
        *([TableColumn("vs none")] if against_none else []),
        *([TableColumn("instructions per request", short=_COUNTED_SHORT)] if counted else []),
        *([VERDICT] if stepped else []),
    )  # fmt: skip
    return Table(
        name, _with_unit(ladder.titled.title, form.unit), columns, tuple(rows), style,
        EXPLORATORY if ladder.exploratory else "", notes=common,
        dense=many or counted is not None or any(rung.variant for rung in ladder.rungs),
    )  # fmt: skip


def alone_words(ladder: Ladder, *, many: bool) -> str:
    """Which rungs have another level alone, with its interval, and why; empty without one."""
    form = ladder.form
    told = [
        f"{f'{rung.mesh} ' * many}{rung.label} {form.value(rung.alone.estimate)} "
        f"{form.interval(rung.alone.low, rung.alone.high)} over {rung.alone.n} executions"
        for rung in ladder.rungs
        if rung.alone
    ]
    why = "beside other arms caches are colder and CPUs are shared; steps are taken within rounds"
    return f"alone: {'; '.join(told)} ({why})" if told else ""


def _counted_entry(rung: Rung, counted: Ladder, *, many: bool) -> str:
    """`347215 +0.2%`: the count of the same rung, and the share that its step adds where that is sure; with
    several meshes there is room for the count only."""
    found = counted.rung_like(rung)
    if found is None or found.value is None or found.value.estimate is None:
        return ""
    step, value = found.step, f"{found.value.estimate:.0f}"
    if many or step is None or step.ratio is None:
        return value
    sure = step.verdict is Verdict.DISTINGUISHABLE
    return f"{value} {100 * (step.ratio - 1):+.1f}%" if sure else f"{value} ~"


def _with_unit(title: str, unit: str) -> str:
    return f"{title}, {unit}" if unit else title


def difference_table(name: str, ladder: Ladder) -> Table:
    """Between meshes, at a posture or of a step."""
    form, found = ladder.form, ladder.differences
    ratios = any(finding.ratio is not None for finding in found)
    rows = tuple(
        Row(
            (
                facts.difference_place(finding, ladder.free),
                form.signed(finding.estimate),
                bounds(form, finding),
                *(["" if finding.ratio is None else f"{finding.ratio:.2f}"] if ratios else []),
                judged(verdict_words(finding, form), finding),
            )
        )
        for finding in found
    )
    columns = (
        TableColumn("at", Setting.LABEL), TableColumn("difference", Setting.STRONG), INTERVAL,
        *([TableColumn("ratio")] if ratios else []), VERDICT,
    )  # fmt: skip
    title = _with_unit(f"{facts.difference_name(found[0])}, {ladder.titled.title}", form.unit)
    return Table(name, title, columns, rows, Style.LADDER)


def growth_table(name: str, growth: Growth) -> Table:
    """A row per posture: the metric at each level of the factor, and the slope through them."""
    form, common = growth.form, tuple(growth.common_notes)
    many = len({line.mesh for line in growth.lines} - {"none"}) > 1
    shown = growth.point_names if growth.part is not SlopePart.IDLE else ()
    rows, before = [], ("", "")
    for line in growth.lines:
        entries = (
            line.posture,
            *mesh_entry(line.mesh, many=many),
            *(growth.level_form.value(at.estimate) if at else "" for at in line.levels if shown),
            form.signed(line.slope.estimate),
            bounds(form, line.slope),
            judged(verdict_words(line.slope, form), line.slope, without=common),
        )
        rows.append(Row(entries, line.setting, (line.setting, line.posture) == before))
        before = line.setting, line.posture
    last = len(shown) - 1
    spare = range(MOST_POINTS - 1, last) if last >= MOST_POINTS else ()
    columns = (
        TableColumn("posture", Setting.LABEL, ""), *mesh_column(many=many),
        *(TableColumn(point, spare=place in spare) for place, point in enumerate(shown)),
        TableColumn(f"slope, {form.unit}", Setting.STRONG, "slope"), INTERVAL, VERDICT,
    )  # fmt: skip
    points = ", ".join(point for place, point in enumerate(shown) if place not in spare)
    remark = f"{growth.factor_words} {points}: value in {growth.level_unit}; " if shown else ""
    return Table(
        name, f"{growth.step}: {growth.titled.title}", columns, tuple(rows), Style.EFFECTS,
        EXPLORATORY if growth.exploratory else "", f"{remark}slope in {form.unit}", common, dense=True,
    )  # fmt: skip


def level_table(name: str, content: Content, factor: str, metric: str) -> Table | None:
    """A row per posture and level of a factor: what it adds to none of it, or to another. None if nothing is
    compared so."""
    found = [
        (finding, finding.subject)
        for finding in content.of_kind(Kind.DIFFERENCE)
        if finding.metric == metric
        and not finding.part
        and isinstance(finding.subject, LevelStep)
        and finding.subject.factor == factor
    ]
    if not found:
        return None
    steps = [finding for finding, _ in found]
    form, many = form_of(steps), len({finding.levels["mesh"] for finding in steps} - {"none"}) > 1
    common = tuple(words.common_notes(steps))
    others = words.varying_within(
        [each.levels for each in steps], [n for n in (*CONTEXT, *FREE) if n != factor]
    )
    rows = []
    for finding, subject in found:
        at = finding.levels
        further = [words.level(name, at.get(name)) for name in others if name != "protocol"]
        label = ", ".join(filter(None, [str(at["posture"]), *further]))
        share = "" if finding.ratio is None else f"{100 * (finding.ratio - 1):+.1f}%"
        rows.append(
            Row(
                (
                    subject.words,
                    *mesh_entry(str(at["mesh"]), many=many),
                    form.signed(finding.estimate),
                    bounds(form, finding),
                    share,
                    judged(verdict_words(finding, form), finding, without=common),
                ),
                label,
            )
        )
    columns = (
        TableColumn("level", Setting.LABEL, ""), *mesh_column(many=many),
        TableColumn("adds", Setting.STRONG), INTERVAL, TableColumn("share"), VERDICT,
    )  # fmt: skip
    none = " to none" if BY_FIELD[factor].says_none else ""
    title = f"what each level adds{none}: {_with_unit(metric_of(metric).title, form.unit)}"
    exploratory = EXPLORATORY if all(each.flagged(EXPLORATORY_FLAG) for each in steps) else ""
    return Table(name, title, columns, tuple(rows), Style.EFFECTS, exploratory, notes=common, dense=many)


def together_table(name: str, together: Together) -> Table:
    """A row per pair of features: the four levels, and what both cost beyond the sum."""
    form, common = together.form, tuple(together.common_notes)
    many = len({pair.mesh for pair in together.pairs}) > 1
    settings = any(pair.setting for pair in together.pairs)

    def row(pair: Pair) -> Row:
        return Row(
            (
                *([pair.setting] if settings else []),
                *mesh_entry(pair.mesh, many=many),
                f"{pair.mtls} × {pair.authorization}",
                *(form.value(level.estimate) if level else "" for level in pair.levels),
                form.signed(pair.interaction.estimate),
                bounds(form, pair.interaction),
                judged(verdict_words(pair.interaction, form), pair.interaction, without=common),
            )
        )

    columns = (
        *([TableColumn("load", Setting.LABEL)] if settings else []), *mesh_column(many=many),
        TableColumn("features", Setting.LABEL), TableColumn("neither"), TableColumn("mTLS"),
        TableColumn("authorization", short="authz"), TableColumn("both"),
        TableColumn("beyond the sum", Setting.STRONG, "extra"), INTERVAL, VERDICT,
    )  # fmt: skip
    return Table(
        name, f"together and alone: {together.titled.title}, {form.unit}", columns,
        tuple(map(row, together.pairs)), Style.EFFECTS, EXPLORATORY if together.exploratory else "",
        notes=common, dense=True,
    )  # fmt: skip
