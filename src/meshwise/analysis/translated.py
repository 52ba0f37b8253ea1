"""Counted steps as time: what an instruction takes in this study, times the instructions of a step. Pure.

    ns per instruction of a cell  =  CPU per request, measured / instructions per request, counted
    translated step               =  counted step x ns per instruction of both its cells (geometric mean)

This is no measurement, and is never called one: the CPU time holds the kernel's, whose instructions are not
counted, and the instructions of a step need not take what those of the whole request do. A step of arithmetic
alone (the signature of a token) takes a fraction of what it is translated to. The interval holds the
uncertainty of both factors, how far the rates of both cells are apart, and, where the counter has told it,
what the instructions would take if they were dense arithmetic and nothing else. The check compares with the
step that was measured in the same study, and that step is what to believe.

Rules of this file:
- It works on findings, so that anyone can repeat it with findings.json alone.
- A cell is the same if it differs in its rate only, which a count has not: what is counted with other numbers
  of connections or streams is batched otherwise.
- The two rates of a step come from the same executions, so their errors are taken to go together; half of
  how far they are apart is an error besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from meshwise.analysis import sentence
from meshwise.findings.finding import Finding, Provenance
from meshwise.findings.flag import TRANSLATED_DIFFERS
from meshwise.findings.metric import CPU, INSTRUCTIONS, TRANSLATED_CPU, MetricKey
from meshwise.findings.subject import CellLevel, Kind, LadderStep, StudyCheck
from meshwise.stats.interval import Interval
from meshwise.stats.verdict import Direction, Verdict
from meshwise.stats.welch import Uncertain, combined, interval, of_bounds, product
from meshwise.study.factors import CONTEXT_FIELDS

RATE = "ns_per_instruction"
_Place = tuple[object, ...]


def translated(
    findings: Sequence[Finding], confidence: float, arithmetic_ns: float | None = None
) -> Iterator[Finding]:
    """Rates, translated steps, and the check; nothing where a study does not both measure and count.
    `arithmetic_ns`: what an instruction of dense arithmetic takes, if that is known."""
    sums = [each for each in findings if not each.part and each.estimate is not None]
    counted = {_place(each): each for each in sums if each.metric == INSTRUCTIONS and each.kind is Kind.LEVEL}
    rates: dict[_Place, tuple[Finding, Uncertain]] = {}
    for level in (each for each in sums if each.metric == CPU and isinstance(each.subject, CellLevel)):
        beside = counted.get(_place(level))
        if beside is not None and level.estimate and level.low and level.high:
            rate = combined(
                _log(level).value + math.log(1e3) - _log(beside).value, [(1, _log(level)), (-1, _log(beside))]
            )
            rates[(*_place(level), level.levels["rate_rps"])] = level, rate
            yield _rate_finding(level, rate, confidence)
    steps = {_place(each): each for each in sums if each.metric == INSTRUCTIONS and _is_step(each)}
    compared: list[tuple[Finding, Finding]] = []
    for measured in (each for each in sums if each.metric == CPU and _is_step(each)):
        step = steps.get(_place(measured))
        found = None if step is None else _step(step, measured, rates, confidence, arithmetic_ns)
        if found is not None:
            compared.append((found, measured))
            yield found
    if compared:
        yield _check(compared, confidence)


def _is_step(finding: Finding) -> bool:
    return isinstance(finding.subject, LadderStep)


def _place(finding: Finding, posture: str = "") -> _Place:
    """All levels but the rate's; of a step also from where."""
    at = finding.levels
    levels = (value for name, value in sorted(at.items()) if name not in ("rate_rps", "posture"))
    lower = finding.subject.lower if isinstance(finding.subject, LadderStep) and not posture else ""
    return (*map(str, levels), posture or at["posture"], lower)


def _log(finding: Finding) -> Uncertain:
    assert finding.estimate is not None
    assert finding.low is not None
    assert finding.high is not None
    middle, low, high = map(math.log, (finding.estimate, finding.low, finding.high))
    return of_bounds(middle, low, high, finding.n, finding.confidence)


def _plain(finding: Finding) -> Uncertain | None:
    if finding.estimate is None or finding.low is None or finding.high is None:
        return None
    return of_bounds(finding.estimate, finding.low, finding.high, finding.n, finding.confidence)


def _rate_finding(level: Finding, rate: Uncertain, confidence: float) -> Finding:
    around = interval(rate, confidence)
    key = MetricKey(RATE)
    found = Finding(
        id=level.id.removesuffix(CPU) + RATE, subject=level.subject, key=key,
        estimate=math.exp(around.estimate), low=math.exp(around.low), high=math.exp(around.high),
        confidence=confidence, unit="ns", n=around.n,
        method="CPU per request over instructions per request; errors of both on logs, Welch-Satterthwaite",
        provenance=Provenance.TRANSLATED,
    )  # fmt: skip
    at = level.levels
    where = f"{at['mesh']} `{at['posture']}`, {at['protocol']} at {at['rate_rps']:g}/s"
    text = sentence.between(found.estimate or 0.0, found.low, found.high, "ns")
    return replace(found, sentence=f"{where}: of all sidecars' CPU time an instruction takes {text}.")


def _step(
    step: Finding,
    measured: Finding,
    rates: Mapping[_Place, tuple[Finding, Uncertain]],
    confidence: float,
    arithmetic_ns: float | None,
) -> Finding | None:
    assert isinstance(measured.subject, LadderStep)
    of_step = _plain(step)
    ends = [_of(rates, measured, posture) for posture in (measured.subject.lower, measured.subject.upper)]
    known = [rate for rate in ends if rate is not None]
    if of_step is None or len(known) != 2:
        return None
    middle = math.exp(sum(rate.value for rate in known) / 2) / 1e3
    apart = (known[1].value - known[0].value) / 2
    error = math.hypot(sum(rate.error for rate in known) / 2, apart)
    rate = Uncertain(middle, middle * error, min(each.df for each in known))
    around = interval(product(of_step, rate), confidence)
    if arithmetic_ns is not None:
        around = _down_to(of_step.value * arithmetic_ns / 1e3, around)
    sure = step.verdict is Verdict.DISTINGUISHABLE and around.excludes(0)
    direction = (Direction.COSTS if around.estimate > 0 else Direction.SAVES) if sure else None
    found = Finding(
        id=measured.id.removesuffix(CPU) + TRANSLATED_CPU, subject=measured.subject,
        key=MetricKey(TRANSLATED_CPU),
        estimate=around.estimate, low=around.low, high=around.high, confidence=confidence, unit="us",
        n=step.n, method="counted step times CPU time per instruction of both cells, with the errors of both",
        verdict=Verdict.DISTINGUISHABLE if sure else Verdict.NOT_DISTINGUISHABLE, direction=direction,
        provenance=Provenance.TRANSLATED, flags=step.flags,
    )  # fmt: skip
    text = sentence.between(around.estimate, around.low, around.high, "us")
    at, ladder = measured.levels, measured.subject
    where = f"{at['mesh']}, {at['protocol']} at {at['rate_rps']:g}/s"
    return replace(
        found,
        sentence=f"{where}: `{ladder.lower}` to `{ladder.upper}`, counted and translated, is {text} of all "
        "sidecars' CPU time per request, if its instructions take what those of both postures do.",
    )


def _down_to(least: float, around: Interval) -> Interval:
    """The interval, widened towards 0 so that it holds the least that the step can take."""
    if around.estimate > 0:
        return replace(around, low=min(around.low, least))
    return replace(around, high=max(around.high, least))


def _of(
    rates: Mapping[_Place, tuple[Finding, Uncertain]], measured: Finding, posture: str
) -> Uncertain | None:
    """The rate of one end of a step: the cell that differs from the step's in its posture, and in what then
    means nothing, as a key without mTLS does."""
    exact = rates.get((*_place(measured, posture), measured.levels["rate_rps"]))
    if exact is not None:
        return exact[1]
    near = [
        rate
        for level, rate in rates.values()
        if level.levels["posture"] == posture
        and all(level.levels[name] == measured.levels[name] for name in ("mesh", *CONTEXT_FIELDS))
    ]
    return near[0] if near else None


def agrees(found: Finding, measured: Finding) -> bool:
    """Whether both may be the same step: intervals that meet, and no sure opposite signs."""
    one, other = _around(found), _around(measured)
    if one is None or other is None:
        return True
    opposite = one.excludes(0) and other.excludes(0) and one.estimate * other.estimate < 0
    return not opposite and one.low <= other.high and other.low <= one.high


def _around(finding: Finding) -> Interval | None:
    if finding.estimate is None or finding.low is None or finding.high is None:
        return None
    return Interval(finding.estimate, finding.low, finding.high, finding.confidence, finding.n)


def _check(compared: Sequence[tuple[Finding, Finding]], confidence: float) -> Finding:
    differing = [(found, measured) for found, measured in compared if not agrees(found, measured)]
    n = len(compared)
    return Finding(
        id="check/translated", subject=StudyCheck(), key=MetricKey("translated"),
        estimate=float(len(differing)), low=None, high=None, confidence=confidence, unit="steps", n=n,
        method="count of steps whose intervals do not meet, or whose signs are surely opposite",
        verdict=Verdict.WARNING if differing else Verdict.OK, provenance=Provenance.TRANSLATED,
        flags=tuple(
            TRANSLATED_DIFFERS(
                step=f"{measured.levels['mesh']} {measured.scope['from']} to {measured.scope['to']}",
                translated=sentence.between(found.estimate or 0.0, found.low, found.high, "us"),
                measured=sentence.between(measured.estimate or 0.0, measured.low, measured.high, "us"),
            )
            for found, measured in differing
        ),
        sentence=f"Translated into time, {len(differing)} of {n} counted steps differ from those measured: "
        "their instructions do not take what others do, or one of the two is wrong."
        if differing else f"Translated into time, all {n} counted steps agree with the measured ones.",
    )  # fmt: skip
