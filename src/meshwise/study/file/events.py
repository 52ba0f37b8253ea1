"""What `events` of a study file mean together. Pure; problems are gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from meshwise.core.units import format_duration
from meshwise.study.changed import in_posture
from meshwise.study.file.event_keys import EventPart
from meshwise.study.file.problems import Problem, did_you_mean, impossible
from meshwise.study.model import Cell, MeshName
from meshwise.study.timeline import (
    ChangePosture,
    Declared,
    Fail,
    Failing,
    RenewalFault,
    Restart,
    Restarted,
    Rotate,
    Rotated,
    Skew,
    Timeline,
    event_name,
    kind_of,
    lasts_ns,
    least_period_ns,
    room_ns,
)
from meshwise.study.topology import CLIENT

MOST_EVENTS = 2000
"""Of a trial."""


def timeline_of(events: Sequence[EventPart]) -> Timeline:
    return Timeline(tuple(each.declared() for each in events))


def check_events(
    events: Sequence[EventPart],
    duration_ns: int,
    cells: Sequence[Cell],
    not_applicable: Callable[[Cell], str | None],
    problems: list[Problem],
) -> None:
    """What these entries cannot mean, each where the file says it."""
    found: list[Problem] = []
    for index, event in enumerate(events):
        found += _times(index, event, duration_ns)
        found += _who(index, event.declared(), cells, not_applicable)
    if not found:
        found += _together(timeline_of(events), duration_ns)
    problems += found


def _times(index: int, event: EventPart, duration_ns: int) -> Iterator[Problem]:
    act, over = event.act(), format_duration(duration_ns)
    name = event_name(act)
    if (event.at is None) == (event.every is None):
        reason = "this event does not say when" if event.at is None else "`at` and `every` both say when"
        yield impossible(("events", index), reason, "give it `at: 10s`, `at: [10s, 30s]` or `every: 10s`")
        return
    if isinstance(act, Fail) and act.what is not Failing.RENEWAL and act.how is RenewalFault.REFUSED:
        reason = f"`fail: {act.what}` cannot be refused, only renewals are"
        yield impossible(("events", index, "how"), reason, "write `gone`, or `slow`")
    if isinstance(act, Skew) and act.by_ns == 0:
        yield impossible(
            ("events", index, "skew"), "a clock that is right is no event", "write `1h`, or `-1h`"
        )
    if isinstance(act, Rotate) and not act.overlap and act.what is not Rotated.ANCHOR:
        reason = f"only of an anchor two are trusted at once, not of `rotate: {act.what}`"
        yield impossible(("events", index, "overlap"), reason, "leave it out, or write `rotate: anchor`")
    if isinstance(act, Fail | Skew) and act.lasts_ns == 0:
        yield impossible(("events", index, "lasts"), "it is over when it begins", "give it time: `10s`")
    if event.every is not None:
        if event.every < (least := least_period_ns(act)):
            why = f"`{name}` at most every {format_duration(least)}: before that the former is not over"
            yield impossible(
                ("events", index, "every"), why, f"write `every: {format_duration(least)}` or more"
            )
        elif not event.declared().times_ns(duration_ns):
            ends = "is over" if event.every < duration_ns else "begins"
            reason = f"the trial is over (after {over}) before the first `{name}` {ends}"
            yield impossible(("events", index, "every"), reason, "longer trials, or more often")
        return
    several = len(event.at or ()) > 1
    for place, at_ns in enumerate(event.at or ()):
        where = ("events", index, "at", place) if several else ("events", index, "at")
        if at_ns >= duration_ns:
            reason = f"the trial is over after {over}, before this `{name}`"
            yield impossible(where, reason, "an earlier time, or a longer `trial: {duration: ...}`")
        elif at_ns + lasts_ns(act) > duration_ns:
            reason = f"this `{name}` would not be over when the trial is, after {over}"
            yield impossible(where, reason, "earlier, shorter, or a longer `trial: {duration: ...}`")


def _who(
    index: int, declared: Declared, cells: Sequence[Cell], not_applicable: Callable[[Cell], str | None]
) -> Iterator[Problem]:
    act = declared.act
    if isinstance(act, ChangePosture):
        meshed = [cell for cell in cells if cell.mesh is not MeshName.NONE]
        reasons = {
            f"{cell.mesh}: {why}" for cell in meshed if (why := not_applicable(in_posture(cell, act.posture)))
        }
        for why in sorted(reasons):
            reason = f"the posture `{act.posture.name}` cannot be brought to every cell: {why}"
            yield impossible(("events", index, "posture"), reason, "another posture, or leave such cells out")
    if isinstance(act, Restart) and act.workload:
        if act.what is Restarted.CONTROLLER:
            reason = "a control plane is nobody's: there is one for all"
            yield impossible(("events", index, "workload"), reason, "leave it out")
            return
        names = [[each.name for each in cell.topology.workloads] for cell in cells]
        missing = [each for each in names if act.workload not in each]
        if missing:
            known = ", ".join(f"`{name}`" for name in missing[0])
            reason = f"`{act.workload}` is no workload of every cell{did_you_mean(act.workload, missing[0])}"
            yield impossible(("events", index, "workload"), reason, f"there are {known}")
        elif act.what is Restarted.SERVICE and act.workload == CLIENT:
            reason = "the client has no service: it is the load generator's pod"
            yield impossible(("events", index, "workload"), reason, "name a workload that is called")


def _together(timeline: Timeline, duration_ns: int) -> Iterator[Problem]:
    count = len(timeline.occurrences(duration_ns))
    if count > MOST_EVENTS:
        reason = f"{count} events in one trial are more than {MOST_EVENTS}"
        yield impossible(("events",), reason, "fewer, or shorter trials")
        return
    told: set[tuple[int, int]] = set()
    for former, later in timeline.overlapping(duration_ns):
        pair = (former.entry, later.entry)
        if pair in told:
            continue
        told.add(pair)
        reason = (
            f"`{event_name(later.act)}` at {format_duration(later.intended_ns)} begins before"
            f" `{event_name(former.act)}` of {format_duration(former.intended_ns)} is over"
            f" ({format_duration(room_ns(former.act))})"
        )
        remedy = "keep them apart: other times, or a longer period"
        if kind_of(former.act) != kind_of(later.act):
            remedy = f"both need the control plane's process; {remedy}"
        yield impossible(("events", later.entry), reason, remedy)
