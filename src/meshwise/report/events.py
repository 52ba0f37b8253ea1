"""What was done to trials while they ran, and what it did: a table and a drawing for each event of a cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from markupsafe import Markup

from meshwise.core.units import plural
from meshwise.findings.finding import Finding
from meshwise.findings.metric import METRICS
from meshwise.findings.pictures import EventCourse
from meshwise.findings.subject import Against, EventEffect, Kind
from meshwise.report import words
from meshwise.report.blocks import (
    Block,
    Drawing,
    Entry,
    Figure,
    Heading,
    Judged,
    Paragraph,
    Row,
    Section,
    Sentences,
    Setting,
    Style,
    Table,
    TableColumn,
    bounds,
    figures,
    judged,
)
from meshwise.report.content import Content, form_of
from meshwise.report.event_chart import course_chart, tail_words, timeline_chart
from meshwise.report.words import verdict_words
from meshwise.stats.verdict import Verdict

_Place = tuple[tuple[tuple[str, object], ...], str]
"""Levels of the cell, and the event."""
LAST_OLD, FIRST_NEW = "event_last_old_ms", "event_first_new_ms"


_COUNTED = ("requests", "handshakes")
"""Units that titles say."""


def section(content: Content) -> Section | None:
    """None without events."""
    found: dict[_Place, list[Finding]] = {}
    for finding in content.of_kind(Kind.EVENT):
        found.setdefault(_place(finding), []).append(finding)
    if not found:
        return None
    about = (
        "Each row is what an event did each time it was done, as a mean over executions: more than at other "
        "times of the same trials, and than the twin shows at the same times, to which nothing was done. "
        "Within a trial it is the middle of its occurrences, so that no stall of the machine makes an event. "
        "The stretch in which it is counted was found: for each execution in the others. A request is "
        "disturbed if it failed, or took longer than 99 % of the undisturbed requests near it."
    )
    blocks: list[Block] = [Paragraph(about)]
    varying = words.varying([dict(place[0]) for place in found], list(dict(next(iter(found))[0])))
    for number, ((levels, event), own) in enumerate(found.items()):
        name = f"event-{number}"
        where = _where(dict(levels), varying)
        blocks += [Heading(f"{event}: {where}"), *_drawn(name, content, own, event, where)]
        blocks.append(_table(name, event, where, own))
        rules = LAST_OLD, FIRST_NEW
        if told := [each.sentence for each in own if each.metric in rules and not each.part]:
            blocks.append(Sentences(tuple(told)))
    blocks += _timelines(content)
    return Section("events", "While it runs", tuple(blocks), "what was done while it ran")


def sentences(content: Content) -> Iterator[str]:
    """Of each event whether it disturbs requests, its failures, and the last request under an old rule."""
    for finding in content.of_kind(Kind.EVENT):
        subject = finding.subject
        assert isinstance(subject, EventEffect)
        first = finding.metric == "event_disturbed_requests" and subject.against is Against.PLACEBO
        failed = finding.metric == "event_failures" and subject.against is Against.PLACEBO
        if (
            first
            or (failed and finding.event and finding.event.failures)
            or (finding.metric == LAST_OLD and not finding.part)
        ):
            yield finding.sentence


def _place(finding: Finding) -> _Place:
    subject = finding.subject
    assert isinstance(subject, EventEffect)
    return tuple(subject.at.items()), subject.event


def _where(levels: dict[str, object], varying: Sequence[str]) -> str:
    said = [words.level(name, levels[name]) for name in varying if name not in ("mesh", "posture")]
    return ", ".join([f"{levels['mesh']} {levels['posture']}", *(each for each in said if each)])


def _table(name: str, event: str, where: str, own: Sequence[Finding]) -> Table:
    """A row per metric: each time, its verdict; and the same against the twin, if there is one."""
    by_key: dict[str, dict[Against, Finding]] = {}
    for each in own:
        subject = each.subject
        assert isinstance(subject, EventEffect)
        by_key.setdefault(str(each.key), {})[subject.against] = each
    twins = any(Against.ARM in each for each in by_key.values())
    facts = next(each.event for each in own if each.event)
    executions = max(each.n for each in own)
    shared = tuple(words.common_notes(each for each in own if each.verdict and each.estimate is not None))
    order = list(METRICS)
    keys = sorted(by_key, key=lambda key: order.index(key.partition("@")[0]))
    rows = tuple(_row(by_key[key], shared, twins=twins) for key in keys)
    columns = (
        TableColumn("each time", Setting.LABEL, ""),
        TableColumn("more than usual", Setting.STRONG, "more"), TableColumn("interval", Setting.INTERVAL),
        TableColumn("verdict", Setting.VERDICT),
        *([TableColumn("than the twin", Setting.STRONG, "twin"),
           TableColumn("interval", Setting.INTERVAL, spare=True),
           TableColumn("verdict", Setting.OUTCOME)] if twins else []),
    )  # fmt: skip
    times = f"{plural(facts.occurrences, 'time')} in {plural(executions, 'execution')}"
    whose = " of clients inside the mesh" if any(each.metric == LAST_OLD for each in own) else ""
    failed = f", {plural(facts.failures, 'request') if facts.failures else 'no request'}{whose} failed"
    return Table(
        f"{name}-table", f"{event}, {where}", columns, rows, Style.PLAIN, f"{times}{failed}", notes=shared,
        dense=True,
    )  # fmt: skip


def _row(found: dict[Against, Finding], shared: Sequence[words.Note], *, twins: bool) -> Row:
    first = found.get(Against.PLACEBO) or found.get(Against.NOTHING) or next(iter(found.values()))
    form = form_of(found.values(), first.unit)
    twin = found.get(Against.ARM)
    unit = "" if form.unit in _COUNTED else f", {form.unit}"
    title = first.key.entry.title + (f", {first.part}" if first.part else "") + unit
    plain = Against.NOTHING in found
    beside_only = first is twin
    number = form.value(first.estimate) if plain else form.signed(first.estimate)
    entries: tuple[Entry, ...] = (title, "", "", judged(words.VerdictWords("")))
    if not beside_only:
        entries = (title, number, bounds(form, first), _verdict(first, form, shared))
    if twins:
        beside = ("", "", "") if twin is None else (
            form.signed(twin.estimate), bounds(form, twin), _short(twin)
        )  # fmt: skip
        entries = (*entries, *beside)
    return Row(entries)


def _verdict(finding: Finding, form: words.Form, shared: Sequence[words.Note]) -> Judged | str:
    if finding.verdict is None:
        return judged(words.VerdictWords(""), finding, without=shared)
    return judged(verdict_words(finding, form), finding, without=shared)


def _short(finding: Finding) -> str:
    """There is no room for what would not have been seen."""
    if finding.verdict is Verdict.DISTINGUISHABLE:
        return str(finding.direction or "")
    return "~" if finding.verdict is Verdict.NOT_DISTINGUISHABLE else "n/a"


def _drawn(name: str, content: Content, own: Sequence[Finding], event: str, where: str) -> Iterator[Block]:
    levels, _ = _place(own[0])
    courses = [
        each
        for each in content.pictures.event_courses
        if each.event == event and tuple(each.at.items()) == levels
    ]
    first = next((each for each in courses if not each.twin), None)
    if first is None:
        return
    twin = next((each for each in courses if each.twin), None)
    title = f"Around {event}, {where}: response time, failures and CPU"
    if drawing := course_chart(f"{name}-course", title, first, twin):
        yield from figures([Figure(Markup(drawing), title, tuple(_legend(first, twin)))])


def _legend(own: EventCourse, twin: EventCourse | None) -> Iterator[tuple[str, str]]:
    tail = tail_words(own.tail)
    yield "line-cell-median key-line", "median"
    if np.isfinite(own.tail_us).any():
        yield "line-cell-tail key-line", tail
    if twin is not None:
        yield "line-twin-median key-line", "twin, median"
        if np.isfinite(twin.tail_us).any():
            yield "line-twin-tail key-line", f"twin, {tail}"
    if own.windows_ms.size:
        yield "event-window key-bar", "more disturbed than usual"


def _timelines(content: Content) -> Iterator[Block]:
    drawn: list[Block] = []
    for number, timeline in enumerate(content.pictures.event_timelines):
        title = f"{timeline.at['mesh']} {timeline.at['posture']}: one trial, {timeline.trial_id}"
        if drawing := timeline_chart(f"event-timeline-{number}", title, timeline):
            kinds = ", ".join(dict.fromkeys(timeline.events))
            twin = "; dashed grey: its twin" if timeline.twin_us.size else ""
            lines = f"The thin line is the median, the strong one the {tail_words(timeline.tail)}{twin}"
            drawn.append(Paragraph(f"{title}. {lines}. Marked: {kinds}, from beginning to end."))
            drawn.append(Drawing(Markup(drawing), title))
    if drawn:
        yield Heading("Whole trials, with what was done to them")
        yield from drawn
