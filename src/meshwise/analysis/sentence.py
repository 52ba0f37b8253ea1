"""One plain sentence per finding, made from its numbers only.

Rules of this file:
- A sentence never claims more than the interval and the verdict do: "adds", "takes off", "higher" only for
  what is distinguishable; everything else is said with its interval and what could not have been seen.
- The interval stands beside every estimate; n is said in executions.
"""

from __future__ import annotations

import math

from meshwise.core.units import format_size, plural
from meshwise.findings.finding import Finding
from meshwise.findings.metric import Inference, Metric, Scale, metric_of
from meshwise.findings.subject import (
    AgainstNone,
    Interaction,
    LadderStep,
    LevelStep,
    MeshDifference,
    Slope,
    SlopePart,
    StepDifference,
    Subject,
    levels_of,
)
from meshwise.stats.verdict import Doubt, Verdict


def number(value: float) -> str:
    """Three significant digits, without an exponent for what people read."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}"


def quantity(value: float, unit: str) -> str:
    """`12.3 us`, `-1.2MiB`, `0.12 %`, `800/s`."""
    match unit:
        case "bytes":
            return ("-" if value < 0 else "") + format_size(abs(value))
        case "ratio":
            return f"{number(100 * value)} %"
        case "1/s":
            return f"{number(value)}/s"
        case _:
            return f"{number(value)} {unit}"


def between(estimate: float, low: float | None, high: float | None, unit: str, sign: int = 1) -> str:
    """`12.3 us (10.1 to 14.5)`; with `sign` -1 everything turned round."""
    if low is None or high is None:
        return f"{quantity(sign * estimate, unit)} (no interval)"
    ends = sorted((sign * low, sign * high))
    if unit == "bytes":
        return f"{quantity(sign * estimate, unit)} ({quantity(ends[0], unit)} to {quantity(ends[1], unit)})"
    scale = 100 if unit == "ratio" else 1
    return f"{quantity(sign * estimate, unit)} ({number(scale * ends[0])} to {number(scale * ends[1])})"


def of_level(finding: Finding, where: str) -> str:
    words = finding.key.entry.words
    if finding.estimate is None:
        return f"{where}: {words} is not estimable ({_flags(finding) or 'no measurement'})."
    interval = between(finding.estimate, finding.low, finding.high, finding.unit)
    return f"{where}: {words}{_whose(finding)} is {interval} over {_units(finding.n)}."


def of_level_alone(finding: Finding, company: Finding, where: str, arms: int) -> str:
    """`company`: the level beside the others, `arms` of them."""
    if finding.estimate is None or company.estimate is None:
        return of_level(finding, f"{where}, alone")
    words = finding.key.entry.words
    alone = between(finding.estimate, finding.low, finding.high, finding.unit)
    beside = between(company.estimate, company.low, company.high, finding.unit)
    both = f"{where}: {words} is {alone} alone, over {_units(finding.n)}"
    if finding.verdict is not Verdict.DISTINGUISHABLE:
        return f"{both}; beside {arms} other arms it is not distinguishable from that: {beside}."
    ratio = f", x{finding.ratio:.3g}" if finding.ratio is not None else ""
    if finding.ratio_low is not None and finding.ratio_high is not None:
        ratio += f" ({finding.ratio_low:.3g} to {finding.ratio_high:.3g})"
    why = "; in company caches are colder and CPUs are shared" if company.estimate > finding.estimate else ""
    return f"{both}, and {beside} beside {arms} other arms{ratio}{why}."


def _whose(finding: Finding) -> str:
    """` (node-1)`, ` (inner)`, ` (depth 2)`: of which workload or place, if of one."""
    return f" ({finding.part})" if finding.part else ""


def _flags(finding: Finding) -> str:
    return "; ".join(flag.words for flag in finding.flags)


def of_contrast(finding: Finding, setting: str) -> str:
    subject, metric = finding.subject, finding.key.entry
    topic, what = _topic(subject, setting), _what(finding)
    if finding.estimate is None or finding.verdict is Verdict.NOT_ESTIMABLE:
        return f"{topic}: {what} cannot be compared ({_flags(finding) or 'too little data'})."
    if finding.verdict is Verdict.DISTINGUISHABLE:
        votes = "positive" if isinstance(subject, Slope) else "higher"
        sign_words = f"{votes} in {finding.higher_in} of {_units(finding.n)}"
        return f"{topic}: {_claim(finding, what)}{_ratio(finding)}; {sign_words}."
    unit = _unit(finding)
    interval = between(finding.estimate, finding.low, finding.high, unit)
    ratio = finding.mde_ratio if _is_a_pair(subject) and metric.scale is Scale.LOG else None
    unseen = _unseen(finding.mde, ratio, unit)
    if isinstance(subject, Slope):
        step = f"{topic}: what {subject.words} adds to {what}"
        return f"{step} is not distinguishable from nothing: {interval}{unseen}."
    about = f"{topic}: the change in {what} {_comparison(subject)}"
    if finding.verdict is Verdict.EQUIVALENT and finding.equivalent_within is not None:
        return f"{about} lies within {finding.equivalent_within:.0%} either way: {interval}."
    if finding.verdict is None:
        return f"{about} is {interval}, described but not judged."
    return f"{about} is not distinguishable from no change: {interval}{unseen}{_because(finding)}."


def _what(finding: Finding) -> str:
    """The metric, and of which part; where the rate varies, CPU is per second or of one request."""
    metric, words = finding.key.entry, finding.key.entry.words
    match finding.subject:
        case Slope(_, _, SlopePart.IDLE):
            words = f"{metric.without_per(words)} per second"
        case Slope(_, _, SlopePart.REQUEST):
            words = metric.without_per(words)
        case Slope() if metric.slope_of:
            words = metric_of(metric.slope_of).words
    return words + _whose(finding)


def _is_a_pair(subject: Subject) -> bool:
    """Whether two cells are compared; else a ratio would be one of ratios."""
    return isinstance(subject, LadderStep | AgainstNone | LevelStep | MeshDifference)


def of_floor(metric: Metric, control: str, floor: float | None, ratio: float | None) -> str:
    """For what is judged as a ratio the share comes first: the cost depends on the level it starts from."""
    again = "on the same processes" if control == "same" else "on a twin set of processes"
    begin = f"Run again {again}, the same cell differs"
    if control == "halves":
        begin = "Halves of one arm's requests, divided at random, differ by time alone"
    cost = "an unknown size" if floor is None else quantity(floor, metric.unit)
    size = cost if ratio is None else f"{number(100 * (ratio - 1))} % ({cost} at the level of that cell)"
    return (
        f"{begin} so much that a change in {metric.words} below "
        f"{size} is not distinguishable from noise here."
    )


def _topic(subject: Subject, setting: str) -> str:
    at = levels_of(subject)
    match subject:
        case LadderStep() | AgainstNone() | Interaction():
            return f"{at['mesh']}, {setting}"
        case Slope() | LevelStep():
            return (
                f"no mesh, {setting}"
                if at["mesh"] == "none"
                else f"{at['mesh']} `{at['posture']}`, {setting}"
            )
        case StepDifference(_, _, _, lower, upper):
            return f"`{lower}` to `{upper}`, {setting}"
        case _:
            return f"`{at['posture']}`, {setting}"


def _comparison(subject: Subject) -> str:
    match subject:
        case LadderStep(_, lower, upper) | AgainstNone(_, upper, lower):
            return f"from `{lower}` to `{upper}`"
        case LevelStep() as step:
            return f"with {step.words}"
        case Interaction():
            return f"beyond the sum of the parts ({subject.name})"
        case StepDifference(_, first, second):
            return f"by this step, {first} less {second},"
        case MeshDifference(_, first, second):
            return f"with {first} instead of {second}"
        case _:
            return ""


def _claim(finding: Finding, what: str) -> str:
    assert finding.estimate is not None
    up = finding.estimate > 0
    size = between(finding.estimate, finding.low, finding.high, _unit(finding), 1 if up else -1)
    more = "more" if up else "less"
    match finding.subject:
        case LadderStep(_, lower, upper) | AgainstNone(_, upper, lower):
            if up:
                return f"`{upper}` adds {size} to {what} over `{lower}`"
            return f"`{upper}` takes {size} off {what} of `{lower}`"
        case Slope() as slope:
            return f"{slope.words} {f'adds {size} to' if up else f'takes {size} off'} {what}"
        case LevelStep() as step:
            return f"{step.words} {f'adds {size} to' if up else f'takes {size} off'} {what}"
        case Interaction() as both:
            return f"{what} is {size} {more} with both features than the sum of the parts ({both.name})"
        case StepDifference(_, first, second):
            return f"this step changes {what} by {size} {more} with {first} than with {second}"
        case MeshDifference(_, first, second):
            return f"{what} is {size} {'higher' if up else 'lower'} with {first} than with {second}"
        case _:
            return f"{what} changes by {size}"


def _ratio(finding: Finding) -> str:
    if finding.ratio is None or finding.ratio_low is None or finding.ratio_high is None:
        return ""
    if not _is_a_pair(finding.subject):  # a ratio of ratios is of no use
        return ""
    if finding.key.entry.inference is Inference.EXACT:  # steps of a few tenths of a per cent are told apart
        shares = (100 * (each - 1) for each in (finding.ratio, finding.ratio_low, finding.ratio_high))
        return ", {:+.2f} % ({:.2f} to {:.2f})".format(*shares)
    return f", x{finding.ratio:.3g} ({finding.ratio_low:.3g} to {finding.ratio_high:.3g})"


def _unit(finding: Finding) -> str:
    """The unit as it is spoken: "each further node adds 12 us", not "12 us/node"."""
    match finding.subject:
        case Slope(_, _, SlopePart.SLOPE | SlopePart.RULE):
            return finding.key.entry.unit
        case _:
            return finding.unit


_MOST_RATIO = 10.0
"""A smallest visible ratio beyond which its number tells nothing."""


def _unseen(mde: float | None, ratio: float | None, unit: str) -> str:
    """`ratio`: None where a ratio would be one of ratios, or is not what was judged."""
    if mde is None:
        return ""
    if ratio is not None and ratio > _MOST_RATIO:
        return "; so noisy that even a tenfold change would mostly not have been seen"
    share = "" if ratio is None else f" ({number(100 * (ratio - 1))} %)"
    return f"; an effect below {quantity(mde, unit)}{share} would mostly not have been seen"


def _because(finding: Finding) -> str:
    """Why an interval that excludes 0 was not claimed: the flag's words."""
    found = {flag.code: flag.words for flag in finding.flags}
    reasons = [found[doubt] for doubt in Doubt if doubt in found]
    if Doubt.SCALES_DISAGREE in found and finding.ratio and finding.ratio_low and finding.ratio_high:
        reasons[-1] += f" (x{finding.ratio:.3g}, {finding.ratio_low:.3g} to {finding.ratio_high:.3g})"
    return "".join(f"; {reason}" for reason in reasons)


def _units(n: int) -> str:
    return plural(n, "execution")
