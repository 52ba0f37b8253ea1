"""From tries to findings: what each posture does about each attempt, and how many it stops. Pure.

Attempts are no sample of all that somebody may try, so no share of them has a confidence interval. The
interval of a number of attempts holds what the tries leave open: from those that were stopped in every try to
those with them that were stopped in some tries only, or are undecided. How sure "in every try" is stands with
each attempt (`analysis.protection`, Clopper and Pearson over its tries).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from meshwise.analysis.protection import Protected, protected
from meshwise.analysis.tradeoff import trade_points
from meshwise.archive.outcome import ProtectionTry
from meshwise.findings.finding import Finding, Findings, Provenance
from meshwise.findings.flag import NOT_AS_DOCUMENTED, PROXY_HARMED, TRIES_DIFFER, Flag
from meshwise.findings.metric import MetricKey
from meshwise.findings.protection import AttemptCounts, AttemptOutcome, AttemptTries
from meshwise.findings.subject import PostureProtection, Protection

STOPPED, STOPPED_ATTEMPTS = MetricKey("attempt_stopped"), MetricKey("attempts_stopped")
_SPOKEN = {
    AttemptOutcome.STOPPED: "stopped",
    AttemptOutcome.LET_THROUGH: "let through",
    AttemptOutcome.NOT_APPLICABLE: "not applicable",
    AttemptOutcome.UNDECIDED: "undecided",
}


def with_protection(document: Findings, tries: Sequence[ProtectionTry], confidence: float) -> Findings:
    """The document with what was tried against its postures, and cost against it."""
    found = (*document.findings, *protection_findings(tries, confidence))
    facts = {
        "attempts": len({one.attempt for one in tries}),
        "executions": len({one.execution for one in tries}),
        "tries": sum(one.outcome != AttemptOutcome.NOT_APPLICABLE for one in tries),
    }
    return replace(
        document,
        study=dict(document.study) | {"protection": facts},
        findings=found,
        tradeoff=trade_points(found),
    )


def protection_findings(tries: Sequence[ProtectionTry], confidence: float) -> Iterator[Finding]:
    """Per mesh and posture: how many attempts it stops, then every attempt, in the order of trying."""
    protocols = {one.attempt: one.protocol for one in tries}
    by_posture: dict[tuple[str, str], list[Protected]] = {}
    for one in protected(tries, confidence):
        by_posture.setdefault((str(one.mesh), one.posture), []).append(one)
    for (mesh, posture), found in by_posture.items():
        yield _of_posture(mesh, posture, found)
        yield from (_of_attempt(one, str(protocols[one.attempt]), confidence) for one in found)


def _of_attempt(one: Protected, protocol: str, confidence: float) -> Finding:
    at = {"mesh": str(one.mesh), "posture": one.posture, "protocol": protocol}
    return Finding(
        id=f"protection/{one.mesh}/{one.posture}/{protocol}/{one.attempt}",
        subject=Protection(at, one.attempt), key=STOPPED,
        estimate=one.stopped / one.n if one.n else None, low=one.low, high=one.high,
        confidence=confidence, unit="ratio", n=one.n, method="Clopper-Pearson over tries",
        provenance=Provenance.TRIED, flags=tuple(_flags(one)), sentence=_sentence(one),
        tried=AttemptTries(
            str(one.outcome), str(one.expected) if one.expected else None, one.tries, one.stopped,
            one.n - one.stopped, one.harmed, str(one.evidence),
        ),
    )  # fmt: skip


def _flags(one: Protected) -> Iterator[Flag]:
    attempt = one.attempted
    if one.surprising and attempt is not None and one.expected is not None:
        known = attempt.documented.get(one.mesh)
        yield NOT_AS_DOCUMENTED(
            expected=_SPOKEN[one.expected], source=known.source if known else "no mesh stops anything"
        )
    if 0 < one.stopped < one.n:
        yield TRIES_DIFFER(stopped=one.stopped, let_through=one.n - one.stopped, tries=one.tries)
    if one.harmed:
        yield PROXY_HARMED(harmed=one.harmed, tries=one.tries)


def _sentence(one: Protected) -> str:
    where = _where(str(one.mesh), one.posture)
    what = f"`{one.attempt}`" + (f" ({one.attempted.words})" if one.attempted else "")
    told = f" ({one.evidence})" if str(one.evidence) else ""
    match one.outcome:
        case AttemptOutcome.NOT_APPLICABLE:
            return f"{where}: {what} means nothing there{told}."
        case AttemptOutcome.UNDECIDED:
            return f"{where}: {what} is undecided: stopped in {one.stopped} of {one.n} decided tries{told}."
        case _:
            said = f"was {_SPOKEN[one.outcome]} in {one.n} of {one.n} tries{told}"
            if one.surprising and one.expected is not None:
                said += f"; documented is that it is {_SPOKEN[one.expected]}"
            return f"{where}: {what} {said}."


def _of_posture(mesh: str, posture: str, found: Sequence[Protected]) -> Finding:
    counts = counts_of(found)
    n, open_ends = len(found) - counts.not_applicable, counts.differing + counts.undecided
    sentence = (
        f"{_where(mesh, posture)} stops {counts.stopped} of the {n} attempts that mean something there in "
        f"every try, and lets {counts.let_through} through"
    )
    if open_ends:
        sentence += f"; stopped in some tries only, or undecided: {open_ends}"
    return Finding(
        id=f"protection/{mesh}/{posture}/{STOPPED_ATTEMPTS.metric}",
        subject=PostureProtection({"mesh": mesh, "posture": posture}), key=STOPPED_ATTEMPTS,
        estimate=float(counts.stopped), low=float(counts.stopped), high=float(counts.stopped + open_ends),
        confidence=1.0, unit="attempts", n=n, provenance=Provenance.TRIED, sentence=f"{sentence}.",
        method="count; low: stopped in every try, high: also in some tries only, or undecided",
        attempts=counts,
    )  # fmt: skip


def counts_of(found: Iterable[Protected]) -> AttemptCounts:
    counted = dict.fromkeys(AttemptOutcome, 0)
    differing = surprising = 0
    for one in found:
        counted[one.outcome] += 1
        differing += 0 < one.stopped < one.n
        surprising += one.surprising
    return AttemptCounts(
        counted[AttemptOutcome.STOPPED],
        counted[AttemptOutcome.LET_THROUGH],
        differing,
        counted[AttemptOutcome.UNDECIDED] - differing,
        counted[AttemptOutcome.NOT_APPLICABLE],
        surprising,
    )


def _where(mesh: str, posture: str) -> str:
    return "no mesh" if posture == "none" else f"{mesh} `{posture}`"
