"""Parts of the report's sentences: what a finding does to its metric, and how such parts are joined."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from meshwise.findings.finding import Finding
from meshwise.report.words import Form
from meshwise.stats.verdict import Verdict


class Phrase(NamedTuple):
    """`adds`, `193 us [188, 197] to p50`."""

    verb: str
    rest: str


def change(finding: Finding, form: Form, short: str = "") -> Phrase:
    """What the finding does to its metric, or that it is not told from noise. `short` names the metric."""
    short = short or finding.key.entry.short
    if finding.estimate is None:
        return Phrase("cannot be compared in", short)
    if finding.verdict is Verdict.NOT_ESTIMABLE:
        return Phrase("has too few blocks to tell a change in", short)
    interval = form.interval(finding.low, finding.high)
    if finding.verdict is not Verdict.DISTINGUISHABLE:
        told = f" {interval} {form.unit}".rstrip() if interval else ""
        return Phrase("does not distinguishably change", f"{short}{told}")
    sign = 1 if finding.estimate > 0 else -1
    amount = size(finding, form, sign)
    return Phrase("adds", f"{amount} to {short}") if sign > 0 else Phrase("takes", f"{amount} off {short}")


def size(finding: Finding, form: Form, sign: int) -> str:
    """`193 us [188, 197]`, turned round where `sign` is negative."""
    assert finding.estimate is not None
    ends = sorted(sign * bound for bound in (finding.low, finding.high) if bound is not None)
    interval = f" {form.interval(ends[0], ends[1])}" if len(ends) == 2 else ""
    return f"{form.with_unit(sign * finding.estimate)}{interval}"


def together(phrases: Sequence[Phrase]) -> str:
    """`adds 3 us to p50 and 9 us to p99`: a verb is said once for all that follow with the same."""
    groups = [(verb, [phrase.rest for phrase in group]) for verb, group in groupby(phrases, lambda p: p.verb)]
    if len(groups) == 1:
        verb, rests = groups[0]
        return f"{verb} {join(rests)}"
    return join([f"{verb} {join(rests)}" for verb, rests in groups], ", and ")


def join(parts: Sequence[str], last: str = " and ") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}{last}{parts[-1]}"
