"""One plain sentence per finding about an event, under the rules of `analysis.sentence`."""

from __future__ import annotations

from meshwise.analysis.sentence import between, number, quantity
from meshwise.core.units import plural
from meshwise.findings.event import EventFacts
from meshwise.findings.finding import Finding
from meshwise.findings.flag import NO_PLACEBO, NOTHING_TELLS
from meshwise.findings.subject import Against, EventEffect
from meshwise.stats.verdict import Doubt, Verdict


def of_effect(finding: Finding, where: str) -> str:
    """What it did, each time, told from placebo times or the twin."""
    subject, facts = finding.subject, finding.event
    assert isinstance(subject, EventEffect)
    assert facts is not None
    words, than = finding.key.entry.words, _than(subject.against)
    topic = f"{where}: `{subject.event}`"
    if finding.estimate is None or finding.verdict is Verdict.NOT_ESTIMABLE:
        known = [flag for flag in finding.flags if flag.code == NO_PLACEBO.code] or finding.flags
        told = "; ".join(flag.words for flag in known) or "too little data"
        return f"{topic}: {words} cannot be told from that {_at(finding)} ({told})."
    times = f"over {plural(facts.occurrences, 'occurrence')} in {plural(finding.n, 'execution')}"
    times += f", {_not_done(facts)}" if facts.unfinished else ""
    if finding.key.metric == "event_failures":
        return f"{topic}: {_failures(finding)} {times}{_errors(finding)}."
    size = between(finding.estimate, finding.low, finding.high, finding.unit)
    if finding.verdict is Verdict.DISTINGUISHABLE:
        change = "raises" if finding.estimate > 0 else "lowers"
        if finding.estimate < 0:
            size = between(finding.estimate, finding.low, finding.high, finding.unit, -1)
        return f"{topic} {change} {words} by {size} each time, {times}, against {than}{_within(finding)}."
    unseen = ""
    if finding.mde is not None:
        unseen = f"; an effect below {quantity(finding.mde, finding.unit)} would mostly not have been seen"
    flags = {flag.code: flag.words for flag in finding.flags}
    because = "".join(f"; {flags[doubt]}" for doubt in Doubt if doubt in flags)
    return (
        f"{topic}: {words} is not distinguishable from that {_at(finding)}: {size}, {times}{unseen}{because}."
    )


def _not_done(facts: EventFacts) -> str:
    """An event that was tried and not done is told, whatever the requests did meanwhile."""
    if facts.unfinished == facts.occurrences:
        return "none of which was done by every target"
    return f"{facts.unfinished} of which were not done by every target"


def _than(against: Against) -> str:
    return "the twin at the same times" if against is Against.ARM else "other times of the same trials"


def _failures(finding: Finding) -> str:
    """A single failed request is said, whatever can be concluded from it."""
    facts = finding.event
    assert facts is not None
    assert finding.estimate is not None
    if not facts.failures:
        return f"no request failed around it (below {number(finding.high or 0.0)} each time)"
    total = f"{plural(facts.failures, 'request')} failed around it"
    if finding.verdict is Verdict.DISTINGUISHABLE:
        more = "more" if finding.estimate > 0 else "fewer"
        size = between(abs(finding.estimate), None, None, finding.unit).removesuffix(" (no interval)")
        return f"{total}, {size} {more} each time than {_at(finding)}"
    return f"{total}, which is not distinguishable from what failed {_at(finding)}"


def _at(finding: Finding) -> str:
    subject = finding.subject
    assert isinstance(subject, EventEffect)
    return f"{'of' if subject.against is Against.ARM else 'at'} {_than(subject.against)}"


def _errors(finding: Finding) -> str:
    facts = finding.event
    if facts is None or not facts.errors:
        return ""
    return f" ({', '.join(f'{count} {kind}' for kind, count in sorted(facts.errors.items()))})"


def _within(finding: Finding) -> str:
    facts = finding.event
    if facts is None or not facts.found:
        return ""
    parts = [f"{number(start)} to {number(end)} ms" for start, end in facts.windows_ms]
    return f", {' and '.join(parts)} from its beginning"


def of_level(finding: Finding, where: str) -> str:
    """How long it took, or is felt; the last request under an old rule."""
    subject, facts = finding.subject, finding.event
    assert isinstance(subject, EventEffect)
    assert facts is not None
    topic = f"{where}: `{subject.event}`"
    times = f"over {plural(facts.occurrences, 'occurrence')} in {plural(finding.n, 'execution')}"
    if finding.estimate is None:
        return f"{topic}: {_not_told(finding)}."
    size = between(finding.estimate, finding.low, finding.high, finding.unit)
    match finding.key.metric:
        case "event_converge_ms":
            unfinished = f"; {facts.unfinished} were never done" if facts.unfinished else ""
            return f"{topic} is done by every target after {size}, {times}{unfinished}."
        case "event_lasts_ms":
            return f"{topic}: responses are as usual again after {size}, {times}."
        case "event_last_old_ms":
            worst = f"; the latest of all: {facts.named}" if facts.named else ""
            passed = f"the last request{_kind(finding)} that passed under the old rule was sent {size}"
            return f"{topic}: {passed} after the change was accepted, {times}{worst}."
        case _ if finding.part == "opening":
            passed = f"the first request that the old rule had refused passed {size}"
            return f"{topic}: {passed} after the change was accepted, {times}."
        case _:
            refused = f"the first request{_kind(finding)} that the new rule refused was sent {size}"
            return f"{topic}: {refused} after the change was accepted, {times}{_errors(finding)}."


def _kind(finding: Finding) -> str:
    return f" on a connection that was {finding.part}" if finding.part else ""


def _not_told(finding: Finding) -> str:
    if finding.flagged(NOTHING_TELLS):
        return f"{finding.key.entry.words} cannot be told: {NOTHING_TELLS().words}"
    if finding.key.metric == "event_lasts_ms":
        return "responses around it are not distinguishable from those at other times, so it has no duration"
    return f"{finding.key.entry.words} cannot be told"
