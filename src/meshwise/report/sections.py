"""The whole report as sections of blocks, made once for terminal, page and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from meshwise.findings.finding import Finding
from meshwise.findings.flag import EXPLORATORY
from meshwise.findings.metric import CPU, INSTRUCTIONS
from meshwise.findings.subject import Kind, LevelStep, MeshDifference, SlopePart
from meshwise.report import counted, events, facts, pictures, protection, saturation, traces, tradeoff
from meshwise.report.blocks import (
    Block,
    Details,
    Drawing,
    Heading,
    Paragraph,
    Section,
    Style,
    figures,
)
from meshwise.report.charts import slug
from meshwise.report.content import Content, Slice
from meshwise.report.graph_svg import graph_drawing
from meshwise.report.growth import Growth, Together, growths, togethers
from meshwise.report.operations import operation_tables
from meshwise.report.places import figures as place_figures
from meshwise.report.places import place_tables
from meshwise.report.record import Record
from meshwise.report.rounds import rounds_section
from meshwise.report.tables import (
    alone_words,
    difference_table,
    growth_table,
    ladder_table,
    level_table,
    together_table,
)
from meshwise.stats.verdict import Verdict
from meshwise.study.factors import BY_FIELD
from meshwise.study.model import TopologyKind

_PLAIN = (TopologyKind.CHAIN, TopologyKind.FANOUT)
"""Topologies that need no drawing."""


@dataclass(frozen=True)
class Report:
    content: Content
    slices: tuple[Section, ...]
    effects: tuple[Section, ...]
    """What one more of something costs, and features together."""
    saturation: tuple[Section, ...]
    sentences: tuple[str, ...]
    """To be pasted alone: the findings' own."""
    warnings: tuple[str, ...]
    rounds: Section | None = None
    """What ran at the same time."""
    counted: tuple[Section, ...] = ()
    """Instructions and system calls."""
    protection: tuple[Section, ...] = ()
    """What postures stop."""
    tradeoff: tuple[Section, ...] = ()
    """What they cost against what they stop."""
    events: tuple[Section, ...] = ()
    """What was done while it ran."""
    traces: tuple[Section, ...] = ()
    """Where the time of a traced request goes."""

    @property
    def in_terminal(self) -> tuple[Section, ...]:
        """The last is what stays on the screen."""
        measured = (
            *self.slices, *self.traces, *self.counted, *self.effects, *self.saturation, *self.events
        )  # fmt: skip
        return (*measured, *self.protection, *self.tradeoff)

    @property
    def on_page(self) -> tuple[Section, ...]:
        first = (
            *self.tradeoff, *self.saturation, *self.events, *self.effects, *self.slices, *self.traces,
            *self.counted,
        )  # fmt: skip
        return (*first, *self.protection, *filter(None, [self.rounds]))


def report_of(content: Content, record: Record) -> Report:
    searched = saturation.section(content)
    return Report(
        content,
        tuple(_slice(content, part, record) for part in content.slices),
        tuple(_effects(content)),
        (searched,) if searched else (),
        tuple(_sentences(content)),
        tuple(
            finding.sentence or f"{finding.metric}: {finding.verdict}"
            for finding in content.of_kind(Kind.CHECK)
            if finding.verdict is Verdict.WARNING
        ),
        rounds_section(content),
        tuple(filter(None, [counted.section(content)])),
        tuple(filter(None, [protection.section(content)])),
        tuple(filter(None, [tradeoff.section(content)])),
        tuple(filter(None, [events.section(content)])),
        tuple(filter(None, [traces.section(content)])),
    )


def _sentences(content: Content) -> Iterator[str]:
    """What a reader pays for: where something grows, no mesh and the highest posture of every mesh;
    features together; the highest rung of every mesh over no mesh, and between meshes; what it stops."""
    if content.fake:
        yield f"Not a measurement: {facts.FAKE}."
        return
    found = [line.slope for growth in growths(content) for line in growth.highest]
    found += [pair.interaction for table in togethers(content) for pair in table.pairs]
    for part in content.slices:
        ladders = [ladder for metric in content.primary if (ladder := part.ladder(metric))]
        for mesh in part.meshes:
            for ladder in ladders:
                found += [r.over_none for r in ladder.rungs if r.mesh == mesh and r.over_none][-1:]
        for ladder in ladders:
            found += [f for f in ladder.differences if isinstance(f.subject, MeshDifference)][-1:]
    found += _counted_steps(content)
    declared = [finding for finding in found if finding.sentence and not finding.flagged(EXPLORATORY)]
    yield from dict.fromkeys(finding.sentence for finding in declared)
    yield from events.sentences(content)
    yield from protection.highest(content)


def _counted_steps(content: Content) -> Iterator[Finding]:
    """Of what was counted the sure steps, of every setting."""
    for part in content.counted:
        ladder = part.ladder(INSTRUCTIONS)
        for rung in ladder.rungs if ladder else ():
            if rung.step and rung.step.verdict is Verdict.DISTINGUISHABLE:
                yield rung.step


def _slice(content: Content, part: Slice, record: Record) -> Section:
    name, many = slug(part.label), len(part.meshes) > 1
    primary = [ladder for metric in content.primary if (ladder := part.ladder(metric))]
    blocks: list[Block] = []
    if primary:
        share = 100 * (content.study.get("confidence") or 0.95)
        about = (
            f"Lines across a mark are {share:.0f} % intervals over blocks. A step counts where it leaves the "
            "band of the noise floor; a hollow mark and ~ mean: not distinguishable."
        )
        marks = figures(list(pictures.ladders(name, part, primary)))
        blocks += [Heading("The ladder"), *marks, Paragraph(about)]
    beside = content.counted_beside(part)
    of_cpu = [ladder for ladder in primary if ladder.metric == CPU]
    own = next(iter([*of_cpu, *primary]), None)
    for number, ladder in enumerate(primary, 1):
        blocks.append(
            ladder_table(
                f"{name}-table-{number}", ladder, many=many, counted=beside if ladder is own else None
            )
        )
        if alone := alone_words(ladder, many=many):
            blocks.append(Paragraph(alone, page_only=False))
        if ladder.differences:
            blocks.append(difference_table(f"{name}-difference-{number}", ladder))
    blocks += _where(name, content, part, record)
    blocks += operation_tables(name, content, part)
    if courses := list(pictures.course_figures(part, content.pictures.courses)):
        about = (
            f"The load moves: {facts.load_line(content)}. A window's value is the median over a posture's "
            "trials; requests belong to the window in which they were meant to be sent. The findings are of "
            "the whole trial."
        )
        blocks += [Heading("Over a trial"), Paragraph(about), *figures(courses)]
    if steps := list(pictures.step_figures(part, content.pictures.step_courses)):
        about = (
            "How each step's ratio differs from its own mean, second by second, as a mean over executions. "
            "A level line: the step is the same from the first second to the last. One that drifts beyond "
            "what chance and the noise floor allow is named so."
        )
        blocks += [Heading("The steps by second"), Paragraph(about), *figures(steps)]
    times = [
        *pictures.distributions(name, part, content.pictures.curves),
        *pictures.drift(name, part, content.pictures.drift),
    ]
    if times:
        about = (
            "Distributions are the median over a posture's trials, quantile by quantile; the axis gives "
            "every further nine the same height. Trials of even blocks are diamonds."
        )
        blocks += [Heading("Distribution, and order of the trials"), Paragraph(about), *figures(times)]
    if usage := list(pictures.usage(name, content, part)):
        blocks += [Heading("CPU and memory by process"), *figures(usage)]
    further = [
        ladder_table(f"{name}-further-{number}", ladder, many=many, style=Style.PLAIN)
        for number, ladder in enumerate(part.ladders, 1)
        if ladder.metric not in content.primary and any(rung.step or rung.value for rung in ladder.rungs)
    ]
    if further:
        blocks.append(Details(f"Further metrics ({len(further)})", tuple(further)))
    meshes = " and ".join(part.meshes)
    return Section(name, part.label, tuple(blocks), f"{part.label}, {meshes}" if meshes else part.label)


def _where(name: str, content: Content, part: Slice, record: Record) -> Iterator[Block]:
    """Where in a topology the cost is: the drawn call graph, and tables by place."""
    shape = part.levels.get("shape"), part.levels.get("length")
    own = [each for each in record.topologies if (str(each.shape), each.length) == shape]
    drawn = next((each for each in own if each.shape not in _PLAIN), None)
    tables = list(place_tables(name, content, part))
    if drawn is not None or tables:
        yield Heading("Where the cost is")
    if drawn is not None:
        yield Paragraph(
            "CPU per request of the client: each sidecar's on the highest rung of its mesh, each service's "
            "own. A thick frame demands something of its callers in every posture."
        )
        yield Drawing(
            Markup(graph_drawing(f"{name}-graph", drawn, place_figures(content, part))), "call graph"
        )
    yield from tables


def _effects(content: Content) -> Iterator[Section]:
    groups: dict[tuple[str, str], list[Growth]] = {}
    for growth in growths(content):
        groups.setdefault((growth.factor, growth.part), []).append(growth)
    for group in groups.values():
        name = f"growth-{slug(group[0].factor)}-{slug(group[0].part)}"
        drawn = [figure for growth in group for figure in pictures.growth_figures(name, growth)]
        tables = [growth_table(f"{name}-table-{number}", growth) for number, growth in enumerate(group, 1)]
        steps = (
            level_table(f"{name}-levels-{number}", content, growth.factor, growth.metric)
            for number, growth in enumerate(group, 1)
        )
        tables += filter(None, steps)
        blocks: list[Block] = [Paragraph(_about(group[0])), *figures(drawn), *tables]
        yield Section(name, f"What {group[0].step} costs", tuple(blocks))
    for factor in dict.fromkeys(step.factor for step in _level_steps(content)):
        if factor not in {group_factor for group_factor, _ in groups}:
            yield from _kinds(content, factor)
    if found := togethers(content):
        yield _together(found)


def _level_steps(content: Content) -> Iterator[LevelStep]:
    for finding in content.of_kind(Kind.DIFFERENCE):
        if isinstance(finding.subject, LevelStep):
            yield finding.subject


def _kinds(content: Content, factor: str) -> Iterator[Section]:
    """What levels that are no numbers make of the primary metrics."""
    name = f"levels-{slug(factor)}"
    found = (
        level_table(f"{name}-{number}", content, factor, metric)
        for number, metric in enumerate(content.primary, 1)
    )
    if tables := tuple(filter(None, found)):
        yield Section(name, f"What each level of `{BY_FIELD[factor].key}` costs", tables)


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


def _together(found: Sequence[Together]) -> Section:
    name = "together"
    about = (
        "Do the features cost more together than alone? What both cost beyond the sum of each on its own: "
        "above zero they are dearer together. Percentiles beyond the median do not add up, so for them this "
        "only describes."
    )
    blocks: list[Block] = [Paragraph(about), *figures(list(pictures.together_figures(name, found)))]
    for number, table in enumerate(found, 1):
        blocks.append(together_table(f"{name}-table-{number}", table))
        if table.described:
            remark = "described, not judged: such percentiles do not add up"
            blocks.append(Paragraph(remark, page_only=False))
    return Section(name, "Together and alone", tuple(blocks))
