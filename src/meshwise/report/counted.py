"""What was counted: instructions and system calls per request, by step, sidecar, connection and rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from meshwise.core.units import plural
from meshwise.findings.finding import Finding
from meshwise.findings.metric import (
    CALLS,
    CALLS_BY_NAME,
    CPU,
    HANDSHAKE,
    INSTRUCTIONS,
    RESUMED,
    TRANSLATED_CPU,
    metric_of,
)
from meshwise.findings.subject import Kind, LadderStep
from meshwise.report import words
from meshwise.report.attributed import attributed, differential_lines
from meshwise.report.blocks import (
    Block,
    Heading,
    Paragraph,
    Row,
    Section,
    Setting,
    Table,
    TableColumn,
    bounds,
    mesh_column,
    mesh_entry,
)
from meshwise.report.charts import slug
from meshwise.report.content import (
    CONTEXT,
    FREE,
    Content,
    Ladder,
    Slice,
    form_of,
    free_of,
    half_width,
    variant_of,
)
from meshwise.report.growth import counted_growths
from meshwise.report.tables import difference_table, growth_table, ladder_table

_HANDSHAKES = (HANDSHAKE, RESUMED)
MOST_RUNGS = 12
"""Rows up to which a terminal has the further tables of a setting."""
MOST_CALLS = 8
"""System calls that are shown by name: the most frequent."""
_BATCHING = ("connections", "streams")
_ABOUT = (
    "Counted under {counter}, in {executions} lives of the proxies; what goes on while nothing is asked is "
    "subtracted, and intervals are over lives. Instructions are not time, and the kernel's are not among "
    "them: system calls per request stand beside them. ~: not distinguishable, for a change must exceed "
    "0.2 % and what the same cell changes by from one count to the next."
)
HOW_TO = "no; `meshwise count` with valgrind (`apt-get install valgrind`) tells finer steps, exactly"


def counted_line(content: Content) -> str:
    """What was counted, or how to: one line of the head. Empty without a sidecar to count."""
    counting = content.study.get("counting")
    if not isinstance(counting, dict):
        return HOW_TO if any(part.meshes for part in content.slices) else ""
    executions = plural(int(counting.get("executions") or 0), "execution")
    return f"instructions and system calls per request by {counting.get('counter')}, {executions}"


def section(content: Content) -> Section | None:
    """None where nothing was counted."""
    counting = content.study.get("counting")
    if not content.counted or not isinstance(counting, dict):
        return None
    about = _ABOUT.format(counter=counting.get("counter"), executions=counting.get("executions"))
    blocks: list[Block] = [Paragraph(about, page_only=False), *differential_lines(content)]
    several = len(content.counted) > 1
    for part in content.counted:
        if several:
            blocks.append(Heading(part.label))
        blocks += _slice(content, part, f"counted-{slug(part.label)}", several=several)
    blocks += _batching(content)
    blocks += _translated(content)
    blocks += [
        growth_table(f"counted-{slug(growth.metric)}-{number}", growth)
        for number, growth in enumerate(counted_growths(content), 1)
    ]
    return Section("counted", "Counted", tuple(blocks), "counted")


def _slice(content: Content, part: Slice, name: str, *, several: bool) -> Iterator[Block]:
    many = len(part.meshes) > 1
    found = part.ladder(INSTRUCTIONS)
    if found is not None:
        table = ladder_table(f"{name}-instructions", found, many=many)
        yield _titled(table, part.label) if several else table
        if found.differences:
            yield difference_table(f"{name}-difference", found)
    yield from _by_sidecar(content, part, name)
    handshakes = [ladder for metric in _HANDSHAKES if (ladder := part.ladder(metric))]
    if handshakes:
        yield _handshakes(f"{name}-handshakes", handshakes, many=many)
    yield from _by_name(content, part, name)
    yield from attributed(content, part, name)


def _titled(table: Table, label: str) -> Table:
    return replace(table, title=f"{label}: {table.title}")


def _of(content: Content, part: Slice, metric: str) -> list[Finding]:
    """Levels and steps of the parts of a metric, in this slice."""
    return [
        finding
        for finding in content.of_kind(Kind.LEVEL, Kind.INCREMENT)
        if finding.metric == metric
        and finding.part
        and all(finding.levels.get(name) == part.levels[name] for name in CONTEXT)
    ]


def _by_sidecar(content: Content, part: Slice, name: str) -> Iterator[Table]:
    """A row per rung: each sidecar's value, and what the step adds to it."""
    mine = _of(content, part, INSTRUCTIONS)
    levels = [finding for finding in mine if finding.kind is Kind.LEVEL and finding.estimate is not None]
    if not levels:
        return
    steps = {_place(f): f for f in mine if isinstance(f.subject, LadderStep)}
    form = form_of(mine)
    many = len(part.meshes) > 1
    free = free_of(levels)
    sidecars = list(dict.fromkeys(finding.part for finding in levels))
    rows: dict[tuple[str, str], dict[str, Finding]] = {}
    for finding in sorted(levels, key=lambda each: words.rung_order(str(each.levels["posture"]))):
        rows.setdefault((_rung(finding, free), str(finding.levels["mesh"])), {})[finding.part] = finding
    yield Table(
        f"{name}-sidecars",
        f"{metric_of(INSTRUCTIONS).title}, by sidecar",
        (TableColumn("posture", Setting.LABEL, ""), *mesh_column(many=many), *map(TableColumn, sidecars)),
        tuple(
            Row(
                (
                    posture,
                    *mesh_entry(mesh, many=many),
                    *(_with_step(form, own.get(each), steps) for each in sidecars),
                )
            )
            for (posture, mesh), own in rows.items()
        ),
        caption="value, and + what the rung adds to the one below",
        page_only=len(rows) > MOST_RUNGS,
    )


def _with_step(form: words.Form, level: Finding | None, steps: dict[tuple[object, ...], Finding]) -> str:
    if level is None:
        return ""
    step = steps.get(_place(level))
    if step is None:
        return form.level(level)
    half = half_width(step)
    sure = words.verdict_words(step, form).sure
    more = f"{form.signed(step.estimate)}" + ("" if half is None else f" ±{form.value(half)}")
    return f"{form.level(level)}  {more}{'' if sure else ' ~'}"


def _place(finding: Finding) -> tuple[object, ...]:
    return (finding.part, *(finding.levels.get(name) for name in ("mesh", "posture", *FREE)))


def _rung(finding: Finding, free: Sequence[str]) -> str:
    """The posture, with levels of `free` that mean something in it."""
    further = variant_of(finding.levels, free)
    return f"{finding.levels['posture']}, {further}" if further else str(finding.levels["posture"])


def _handshakes(name: str, ladders: Sequence[Ladder], *, many: bool) -> Table:
    """A row per rung: a new connection's cost, with a full handshake and resuming a session."""
    form = form_of(rung.value for ladder in ladders for rung in ladder.rungs)
    rows = []
    for rung in ladders[0].rungs:
        entries = []
        for ladder in ladders:
            same = ladder.rung_like(rung)
            value = same.value if same else None
            entries += [form.level(value) if value else "", bounds(form, value)]
        rows.append(Row((rung.label, *mesh_entry(rung.mesh, many=many), *entries)))
    interval = TableColumn("interval", Setting.INTERVAL)
    titles = {HANDSHAKE: "full handshake", RESUMED: "resumed"}
    columns = [TableColumn("posture", Setting.LABEL, ""), *mesh_column(many=many)]
    for ladder in ladders:
        columns += [TableColumn(titles[ladder.metric], Setting.STRONG), interval]
    return Table(
        name, f"instructions per TLS handshake, {form.unit}", tuple(columns), tuple(rows),
        caption="of the sidecar to which a new connection is opened, beside its request",
    )  # fmt: skip


def _by_name(content: Content, part: Slice, name: str) -> Iterator[Table]:
    """The most frequent system calls: a row per call, a column per rung."""
    levels = [finding for finding in _of(content, part, CALLS_BY_NAME) if finding.estimate is not None]
    total = part.ladder(CALLS)
    if not levels or total is None:
        return
    most: dict[str, float] = {}
    for finding in levels:
        most[finding.part] = max(most.get(finding.part, 0.0), finding.estimate or 0.0)
    names = sorted(most, key=lambda call: -most[call])[:MOST_CALLS]
    many = len(part.meshes) > 1
    form = form_of([*levels, *(rung.value for rung in total.rungs)])
    rows = []
    for rung in total.rungs:
        own = {
            finding.part: finding
            for finding in levels
            if rung.value is not None and finding.levels == rung.value.levels
        }
        values = (form.level(own[call]) if call in own else "" for call in names)
        rows.append(Row((rung.label, *mesh_entry(rung.mesh, many=many), form.level(rung.value), *values)))
    left = f"; {len(most) - len(names)} further calls are rarer" if len(most) > len(names) else ""
    yield Table(
        f"{name}-calls", metric_of(CALLS).title,
        (
            TableColumn("posture", Setting.LABEL, ""), *mesh_column(many=many),
            TableColumn("all", Setting.STRONG),
            *(TableColumn(call, spare=place >= 4) for place, call in enumerate(names)),
        ),
        tuple(rows), caption=f"by the call's name, the most frequent first{left}",
        page_only=len(rows) > MOST_RUNGS,
    )  # fmt: skip


def _translated(content: Content) -> Iterator[Table]:
    """A row per step: what was counted, what that is as time, and what was measured."""
    steps = [
        finding
        for finding in content.of_kind(Kind.INCREMENT)
        if isinstance(finding.subject, LadderStep) and not finding.part and finding.estimate is not None
    ]
    measured = {finding.id.removesuffix(CPU): finding for finding in steps if finding.metric == CPU}
    found = [
        (finding, measured[finding.id.removesuffix(TRANSLATED_CPU)])
        for finding in steps
        if finding.metric == TRANSLATED_CPU and finding.id.removesuffix(TRANSLATED_CPU) in measured
    ]
    if not found:
        return
    form = form_of(each for pair in found for each in pair)
    varying = words.varying_within([finding.levels for finding, _ in found], (*CONTEXT, *FREE))
    many = len({finding.levels["mesh"] for finding, _ in found}) > 1
    rows = tuple(
        Row(
            (
                _step_words(finding, varying),
                *mesh_entry(str(finding.levels["mesh"]), many=many),
                form.signed(finding.estimate),
                bounds(form, finding),
                form.signed(beside.estimate),
                bounds(form, beside),
            )
        )
        for finding, beside in found
    )
    interval = TableColumn("interval", Setting.INTERVAL)
    yield Table(
        "counted-translated", f"{metric_of(CPU).title}, {form.unit}: translated beside measured",
        (
            TableColumn("step", Setting.LABEL, ""), *mesh_column(many=many),
            TableColumn("translated", Setting.STRONG), interval,
            TableColumn("measured", Setting.STRONG), interval,
        ),
        rows,
        caption="translated: counted, times what an instruction takes on average, the kernel's time in it; "
        "arithmetic takes less; nobody measured it",
    )  # fmt: skip


def _step_words(finding: Finding, varying: Sequence[str]) -> str:
    assert isinstance(finding.subject, LadderStep)
    further = variant_of(finding.levels, [name for name in varying if name != "protocol"])
    protocol = str(finding.levels["protocol"]) if "protocol" in varying else ""
    step = f"{finding.subject.lower} → {finding.subject.upper}"
    return ", ".join(part for part in (protocol, step, further) if part)


def _batching(content: Content) -> Iterator[Table]:
    """Where the same was counted with several numbers of connections or streams: they beside one another."""
    groups: dict[tuple[object, ...], list[Slice]] = {}
    for part in content.counted:
        rest = tuple(part.levels[name] for name in CONTEXT if name not in _BATCHING)
        groups.setdefault(rest, []).append(part)
    for number, parts in enumerate((each for each in groups.values() if len(each) > 1), 1):
        parts = sorted(parts, key=lambda part: tuple(part.levels[name] for name in _BATCHING))
        ladders = [ladder for part in parts if (ladder := part.ladder(INSTRUCTIONS))]
        form = form_of(rung.value for ladder in ladders for rung in ladder.rungs)
        many = len(parts[0].meshes) > 1
        rows = []
        for rung in ladders[0].rungs:
            same = [ladder.rung_like(rung) for ladder in ladders]
            values = (form.level(each.value) if each and each.value else "" for each in same)
            rows.append(Row((rung.label, *mesh_entry(rung.mesh, many=many), *values)))
        columns = (TableColumn(_in_flight(part, parts)) for part in parts)
        protocol = parts[0].levels["protocol"]
        yield Table(
            f"counted-batching-{number}",
            f"{protocol}: {metric_of(INSTRUCTIONS).title}, by what is in flight",
            (TableColumn("posture", Setting.LABEL, ""), *mesh_column(many=many), *columns), tuple(rows),
            caption="under a counter threads wait for one another: less is batched than when they run freely",
        )  # fmt: skip


def _in_flight(part: Slice, parts: Sequence[Slice]) -> str:
    varying = [name for name in _BATCHING if len({each.levels[name] for each in parts}) > 1]
    return ", ".join(words.level(name, part.levels[name]) for name in varying)
