"""One plain sentence per finding, made from its numbers only.

Laws of this file:
- A sentence never claims more than the interval and the verdict do: "adds", "takes off", "higher" only for
  what is distinguishable; everything else is said with its interval and what could not have been seen.
- The interval stands beside every estimate; n is said in executions.
"""

from __future__ import annotations

import math

from meshwise.analysis.contrast import Contrast
from meshwise.core.units import format_size
from meshwise.findings.finding import Finding, Kind
from meshwise.findings.metric import Metric, Scale
from meshwise.stats.verdict import Verdict


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


def of_level(finding: Finding, metric: Metric, subject: str) -> str:
    if finding.estimate is None:
        return f"{subject}: {metric.words} is not estimable ({'; '.join(finding.flags) or 'no measurement'})."
    interval = between(finding.estimate, finding.low, finding.high, finding.unit)
    return f"{subject}: {metric.words}{_whose(finding)} is {interval} over {_units(finding.n)}."


def _whose(finding: Finding) -> str:
    """` (node-1)`, ` (inner)`, ` (depth 2)`: of which workload or place, if of one."""
    return f" ({workload})" if (workload := finding.scope.get("workload")) else ""


def of_contrast(finding: Finding, contrast: Contrast, metric: Metric, setting: str) -> str:
    what = metric.words
    if contrast.scope.get("factor") == "rate_rps":
        what = what.replace("per request", "per second" if contrast.scope["part"] == "idle" else "").strip()
    what += _whose(finding)
    topic = _topic(contrast, setting)
    if finding.estimate is None or finding.verdict is Verdict.NOT_ESTIMABLE:
        return f"{topic}: {what} cannot be compared ({'; '.join(finding.flags) or 'too little data'})."
    if finding.verdict is Verdict.DISTINGUISHABLE:
        claim = _claim(finding, contrast, what)
        return f"{topic}: {claim}{_ratio(finding, contrast)}; {_votes(finding, contrast)}."
    unit = _unit(finding, contrast)
    interval = between(finding.estimate, finding.low, finding.high, unit)
    ratio = finding.mde_ratio if len(contrast.terms) == 2 and metric.scale is Scale.LOG else None
    unseen = _unseen(finding.mde, ratio, unit)
    if contrast.step_words:
        step = f"{topic}: what {contrast.step_words} adds to {what}"
        return f"{step} is not distinguishable from nothing: {interval}{unseen}."
    about = f"{topic}: the change in {what} {_comparison(contrast)}"
    if finding.verdict is Verdict.EQUIVALENT and finding.equivalent_within is not None:
        return f"{about} lies within {finding.equivalent_within:.0%} either way: {interval}."
    if finding.verdict is None:
        return f"{about} is {interval}, described but not judged."
    return f"{about} is not distinguishable from no change: {interval}{unseen}{_because(finding)}."


def of_floor(metric: Metric, control: str, floor: float | None, ratio: float | None) -> str:
    """For what is judged as a ratio the share comes first: the cost depends on the level it starts from."""
    again = "on the same processes" if control == "same" else "on a twin set of processes"
    cost = "an unknown size" if floor is None else quantity(floor, metric.unit)
    size = cost if ratio is None else f"{number(100 * (ratio - 1))} % ({cost} at the level of that cell)"
    return (
        f"Run again {again}, the same cell differs so much that a change in {metric.words} below "
        f"{size} is not told from noise here."
    )


def _topic(contrast: Contrast, setting: str) -> str:
    if contrast.kind is Kind.INCREMENT or "interaction" in contrast.scope:
        return f"{contrast.scope['mesh']}, {setting}"
    if contrast.step_words:
        mesh, posture = contrast.scope["mesh"], contrast.scope["posture"]
        return f"no mesh, {setting}" if mesh == "none" else f"{mesh} `{posture}`, {setting}"
    if len(contrast.terms) > 2:
        return f"`{contrast.scope['from']}` to `{contrast.scope['to']}`, {setting}"
    return f"`{contrast.scope['posture']}`, {setting}"


def _comparison(contrast: Contrast) -> str:
    if contrast.kind is Kind.INCREMENT:
        return f"from `{contrast.from_name}` to `{contrast.to_name}`"
    if "interaction" in contrast.scope:
        return f"beyond the sum of the parts ({contrast.scope['interaction']})"
    if len(contrast.terms) > 2:
        return f"by this step, {contrast.to_name} less {contrast.from_name},"
    return f"with {contrast.to_name} instead of {contrast.from_name}"


def _claim(finding: Finding, contrast: Contrast, what: str) -> str:
    assert finding.estimate is not None
    up = finding.estimate > 0
    size = between(finding.estimate, finding.low, finding.high, _unit(finding, contrast), 1 if up else -1)
    more = "more" if up else "less"
    if contrast.kind is Kind.INCREMENT:
        if up:
            return f"`{contrast.to_name}` adds {size} to {what} over `{contrast.from_name}`"
        return f"`{contrast.to_name}` takes {size} off {what} of `{contrast.from_name}`"
    if contrast.step_words:
        return f"{contrast.step_words} {f'adds {size} to' if up else f'takes {size} off'} {what}"
    if "interaction" in contrast.scope:
        parts = f"the sum of the parts ({contrast.scope['interaction']})"
        return f"{what} is {size} {more} with both features than {parts}"
    meshes = f"with {contrast.to_name} than with {contrast.from_name}"
    if len(contrast.terms) > 2:
        return f"this step changes {what} by {size} {more} {meshes}"
    return f"{what} is {size} {'higher' if up else 'lower'} {meshes}"


def _ratio(finding: Finding, contrast: Contrast) -> str:
    if finding.ratio is None or finding.ratio_low is None or finding.ratio_high is None:
        return ""
    if len(contrast.terms) > 2 or contrast.step_words:  # a ratio of ratios helps nobody
        return ""
    return f", x{finding.ratio:.3g} ({finding.ratio_low:.3g} to {finding.ratio_high:.3g})"


def _unit(finding: Finding, contrast: Contrast) -> str:
    """The unit as it is spoken: "each further node adds 12 us", not "12 us/node"."""
    return finding.unit if contrast.step_unit == "/s" else finding.unit.removesuffix(contrast.step_unit)


_HOPELESS = 10.0
"""A smallest visible ratio beyond which its number tells nothing."""


def _votes(finding: Finding, contrast: Contrast) -> str:
    return f"{'positive' if contrast.step_words else 'higher'} in {finding.higher_in} of {_units(finding.n)}"


def _unseen(mde: float | None, ratio: float | None, unit: str) -> str:
    """`ratio`: None where a ratio would be one of ratios, or is not what was judged."""
    if mde is None:
        return ""
    if ratio is not None and ratio > _HOPELESS:
        return "; so noisy that even a tenfold change would mostly not have been seen"
    share = "" if ratio is None else f" ({number(100 * (ratio - 1))} %)"
    return f"; an effect below {quantity(mde, unit)}{share} would mostly not have been seen"


def _because(finding: Finding) -> str:
    """Why an interval that excludes 0 was not claimed: the flag's words."""
    flags = dict(flag.partition(": ")[::2] for flag in finding.flags)
    reasons = [flags[code] for code in ("multiplicity", "below_floor", "scales_disagree") if code in flags]
    if "scales_disagree" in flags and finding.ratio and finding.ratio_low and finding.ratio_high:
        reasons[-1] += f" (x{finding.ratio:.3g}, {finding.ratio_low:.3g} to {finding.ratio_high:.3g})"
    return "".join(f"; {reason}" for reason in reasons)


def _units(n: int) -> str:
    return f"{n} execution" + ("" if n == 1 else "s")
