"""Posture changes -> findings: when the last request passed under the old rule, and when the new one first
held, by kind of connection.

Of changes that refuse what passed before. Of those that let through what was refused only the first request
that passed is told, under the part `opening`. An execution's number is the mean over its changes; the latest
of all is named, because the interval of a mean says nothing of the worst.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from meshwise.analysis import event_sentence
from meshwise.analysis.contrast import Naming
from meshwise.analysis.event_cohorts import EventOfCell, told
from meshwise.analysis.event_level import facts_of, level
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Finding
from meshwise.findings.flag import NOTHING_TELLS, STILL_OPEN
from meshwise.findings.metric import MetricKey
from meshwise.measure.moments import POSTURE
from meshwise.measure.rule_change import KINDS, Passed
from meshwise.stats.arrays import FloatArray, execution_means

OPENING = "opening"
LAST_OLD, FIRST_NEW = "event_last_old_ms", "event_first_new_ms"
_Known = tuple[int, str, Passed]
"""Execution, trial, and what passed."""
_Value = Callable[[Passed], float | None]


def of_rules(of: EventOfCell, naming: Naming, settings: Settings) -> Iterator[Finding]:
    """None of events that are no posture change; of those that are always one at least."""
    if of.event.partition(" ")[0] != POSTURE:
        return
    found = [
        (each.trial.execution, each.trial.trial_id, passed)
        for each in of.results
        for passed in told(each).passed
        if passed.happening.event == of.event
    ]
    closing = [each for each in found if each[2].closes]
    opening = [each for each in found if not each[2].closes]
    facts = facts_of(of)
    none = (NOTHING_TELLS(),) if not found else ()
    for kind in ("", *KINDS):
        own = [each for each in closing if each[2].connection == kind]
        if not own and kind:
            continue
        for name, value in ((LAST_OLD, _last_old), (FIRST_NEW, _first_new)):
            values = _by_execution(own, value)
            if not len(values) and (kind or opening):
                continue
            still = sum(each[2].still_open for each in own) if name == LAST_OLD else 0
            flags = (*none, STILL_OPEN(count=still, of=len(own))) if still else none
            finding = level(of, MetricKey(name, kind), values, facts, naming, settings, flags)
            named = replace(facts, named=_named(own, value), errors=_errors(own))
            finding = replace(finding, event=named)
            yield replace(finding, sentence=event_sentence.of_level(finding, naming.place(of.cell)))
    if own := [each for each in opening if not each[2].connection]:
        values = _by_execution(own, _first_new)
        key = MetricKey(FIRST_NEW, OPENING)
        yield level(of, key, values, facts, naming, settings)


def _last_old(passed: Passed) -> float | None:
    return passed.last_old_ms


def _first_new(passed: Passed) -> float | None:
    return passed.first_new_ms


def _by_execution(found: Sequence[_Known], value: _Value) -> FloatArray:
    """Mean over the changes of each; of several groups of clients at one change the latest counts."""
    latest: dict[tuple[int, str, int], float] = {}
    for life, trial, passed in found:
        number = value(passed)
        if number is not None:
            key = (life, trial, passed.happening.begun_ns)
            latest[key] = max(latest.get(key, -np.inf), number)
    lives = np.array([life for life, *_ in latest], dtype=np.int64)
    return execution_means(np.array(list(latest.values())), lives) if latest else np.empty(0)


def _errors(found: Sequence[_Known]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for _, _, passed in found:
        total.update(dict(passed.errors))
    return dict(sorted(total.items()))


def _named(found: Sequence[_Known], value: _Value) -> str:
    """`trial b000-p01, at 12.034 s, outside the mesh, on a busy connection, 3.1 ms after ...`."""
    known = [(number, each) for each in found if (number := value(each[2])) is not None]
    if value is not _last_old or not known:
        return ""
    number, (_, trial, passed) = max(known, key=lambda each: each[0])
    at_s = (passed.last_old_at_ns or 0) / 1e9
    when = "after" if number >= 0 else "before"
    return (
        f"trial {trial}, {at_s:.3f} s, {_who(passed)}, {abs(number):.1f} ms {when} the change was accepted "
        f"(occurrence {passed.happening.occurrence})"
    )


def _who(passed: Passed) -> str:
    if passed.client == "stranger":
        return "a client of another namespace"
    who = "a client outside the mesh" if passed.client == "outside" else "a client inside the mesh"
    return f"a forbidden request of {who}" if passed.forbidden else who
