"""What `meshwise plan` says of a study's events: what will happen when, to whom, and to whom it cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from meshwise.cli.wiring import cannot
from meshwise.core.units import format_duration, plural
from meshwise.mesh.istio.mesh import TERMINATION_DRAIN_S
from meshwise.study.model import Arrangement, MeshName, Study
from meshwise.study.timeline import (
    Act,
    ChangePosture,
    Declared,
    Fail,
    Failing,
    PushPolicies,
    RenewalFault,
    Restart,
    Restarted,
    Rotate,
    Rotated,
    Skew,
    event_name,
    lasts_on,
)

_SHOWN = 6
"""Times of one entry that are written out."""


def events_document(study: Study) -> dict[str, Any] | None:
    """None for a study without events."""
    timeline = study.trial.timeline
    if not timeline:
        return None
    return {
        "occurrences": [
            {
                "occurrence": each.number,
                "entry": each.entry,
                "event": event_name(each.act),
                "intended_ns": each.intended_ns,
                "what": words(each.act, back=each.back),
            }
            for each in timeline.occurrences(study.trial.duration_ns)
        ],
        "to": "every trial"
        if study.arrangement is Arrangement.APART
        else "cells; their twins are undisturbed",
        "cannot": [
            {"event": event_name(declared.act), "reason": why, "cells": names}
            for declared in timeline.declared
            for why, names in _reasons(study, declared.act).items()
        ],
    }


def events_lines(study: Study) -> Iterator[str]:
    """Nothing for a study without events."""
    timeline = study.trial.timeline
    if not timeline:
        return
    whom = "in every trial"
    if study.arrangement is Arrangement.TOGETHER:
        whom = "to every cell; to its twin in the same round nothing happens"
    yield f"events, {whom}, from the start of the measured window on:"
    for declared in timeline.declared:
        several = len(declared.times_ns(study.trial.duration_ns)) > 1
        yield f"  {_when(declared, study.trial.duration_ns)}: {words(declared.act, several=several)}"
        for why, names in _reasons(study, declared.act).items():
            yield f"    not to {plural(len(names), 'cell')} ({names[0]}{', ...' * (len(names) > 1)}): {why}"


def late_events(study: Study) -> list[str]:
    """Events that will begin late because one before them takes its time: one waits for another."""
    if not any(cell.mesh is MeshName.ISTIO for cell in study.cells):
        return []
    takes_ns, window_ns = round(TERMINATION_DRAIN_S * 1e9), study.trial.duration_ns
    waiting = [each for each in study.trial.timeline.occurrences(window_ns) if not lasts_on(each.act)]
    told: dict[tuple[int, int], str] = {}
    for former, later in pairwise(waiting):
        if not (isinstance(former.act, Restart) and former.act.what is Restarted.PROXY and former.act.drain):
            continue
        if later.intended_ns < former.intended_ns + takes_ns:
            told.setdefault(
                (former.entry, later.entry),
                f"istio: a drained proxy has {format_duration(takes_ns)} to end, so"
                f" `{event_name(later.act)}` of {_moment(later.intended_ns)} waits for"
                f" `{event_name(former.act)}` of {_moment(former.intended_ns)} and begins late;"
                " keep them further apart",
            )
    return list(told.values())


def _reasons(study: Study, act: Act) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for cell in study.cells:
        if why := cannot(cell, act):
            found[f"{cell.mesh}: {why}"].append(cell.name)
    return found


def _when(declared: Declared, window_ns: int) -> str:
    times_ns = declared.times_ns(window_ns)
    if declared.every_ns:
        return f"every {format_duration(declared.every_ns)} ({plural(len(times_ns), 'time')})"
    shown = ", ".join(_moment(at_ns) for at_ns in times_ns[:_SHOWN])
    return f"at {shown}{', ...' * (len(times_ns) > _SHOWN)}"


def _moment(at_ns: int) -> str:
    return format_duration(at_ns) if at_ns else "0s"


_FAILS: Mapping[Failing, Mapping[RenewalFault, str]] = {
    Failing.RENEWAL: {
        RenewalFault.REFUSED: "the authority refuses to sign certificates",
        RenewalFault.SLOW: "the authority signs certificates late",
        RenewalFault.GONE: "the authority that signs certificates cannot be reached",
    },
    Failing.CONTROLLER: {
        RenewalFault.SLOW: "the control plane's process stands still, with its connections open,",
        RenewalFault.GONE: "the control plane's process is gone",
    },
    Failing.POLICY: {
        RenewalFault.SLOW: "the control plane hands out policies late",
        RenewalFault.GONE: "nobody hands out policies",
    },
}
"""What a study file cannot say is not here."""


def words(act: Act, *, back: bool = False, several: bool = False) -> str:
    """What is done, as a person says it. `several`: of all times of an entry that has more than one."""
    match act:
        case Rotate(what=what, spread_ns=spread_ns, overlap=overlap):
            thing = {
                Rotated.LEAF: "every sidecar gets a new certificate",
                Rotated.ISSUER: "a new issuer, and new certificates of it",
                Rotated.ANCHOR: "a new trust anchor, and new certificates below it",
            }[what]
            over = f", spread over {format_duration(spread_ns)}" if spread_ns else ", all at once"
            fault = "" if overlap or what is not Rotated.ANCHOR else "; without overlap, which is a fault"
            return f"{thing}{over}{fault}"
        case PushPolicies(count=count, relevant=relevant):
            number = "1 policy" if count == 1 else f"{count} policies"
            return f"{number} pushed, {'on the called workloads' if relevant else 'on other workloads'}"
        case ChangePosture(posture=posture):
            to = "the cell's own posture again" if back else f"posture {posture.name}"
            return f"{to}{'; the next time back again' * several}"
        case Restart(what=what, drain=drain, workload=workload):
            whose = (
                f"the {what} of {workload}"
                if workload
                else f"a {what}{', each time the next inwards,' * several}"
            )
            if what is Restarted.CONTROLLER:
                whose = "the control plane's process"
            return f"{whose} is {'drained' if drain else 'killed'} and started again"
        case Fail(what=what, lasts_ns=lasts_ns, how=how):
            return f"{_FAILS[what][how]} for {format_duration(lasts_ns)}"
        case Skew(by_ns=by_ns, lasts_ns=lasts_ns):
            side = "ahead" if by_ns > 0 else "behind"
            by, over = format_duration(abs(by_ns)), format_duration(lasts_ns)
            return f"the authority's clock is {by} {side} for {over}"
