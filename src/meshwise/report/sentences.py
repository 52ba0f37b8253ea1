"""Sentences that can be pasted alone: one per protocol and mesh, and the headline of the page.

They pick from findings, with each number's own interval and verdict; nothing is added up here.
"""

from __future__ import annotations

from meshwise.analysis.finding import Finding, Verdict
from meshwise.report import facts
from meshwise.report.content import Content, Ladder, Rung, Slice
from meshwise.report.words import Form, titled

LATENCY = ("response_p50_us", "response_p90_us", "response_p99_us", "service_p50_us", "service_p99_us")


def closing(content: Content) -> list[str]:
    """One sentence per slice and mesh, and one per slice on the difference between two meshes."""
    if content.fake:
        return [f"Not a measurement: {facts.FAKE}."]
    found = []
    for part in content.slices:
        found += [sentence for mesh in part.meshes if (sentence := of_mesh(content, part, mesh))]
        if sentence := of_meshes(content, part):
            found.append(sentence)
    return found


def of_mesh(content: Content, part: Slice, mesh: str) -> str:
    """`http1, istio: strict+fine adds 193 us [188, 197] to p50 ... over no mesh; steps in p50: ... us`"""
    ladders = [ladder for metric in content.primary if (ladder := part.ladder(metric))]
    told = [text for ladder in ladders if (text := _over_none(ladder, mesh))]
    top = _top(ladders, mesh)
    if top is None or not told:
        return ""
    steps = _steps(ladders[0], mesh)
    changes = _join(_without_repeated_verbs(told))
    units = _units(content, ladders[0])
    return f"{part.label}, {mesh}: {top.label} {changes} over no mesh{steps} ({units})."


def _top(ladders: list[Ladder], mesh: str) -> Rung | None:
    rungs = [
        rung
        for ladder in ladders
        for rung in ladder.rungs
        if rung.mesh == mesh and (rung.over_none or rung.step)
    ]
    return rungs[-1] if rungs else None


def _over_none(ladder: Ladder, mesh: str) -> str:
    rungs = [rung for rung in ladder.rungs if rung.mesh == mesh and rung.over_none]
    if not rungs:
        return ""
    finding = rungs[-1].over_none
    assert finding is not None
    return change(finding, ladder.form)


def _without_repeated_verbs(told: list[str]) -> list[str]:
    """`adds 3 us to p50, 9 us to p99`: a verb that the former phrase had is left out."""
    kept, verb = [], ""
    for phrase in told:
        first, _, rest = phrase.partition(" ")
        kept.append(rest if first == verb else phrase)
        verb = first
    return kept


def change(finding: Finding, form: Form) -> str:
    """`adds 193 us [188, 197] to p50`, or that it is not told from noise."""
    short = titled(finding.metric).short
    if finding.estimate is None:
        return f"cannot be compared in {short}"
    if finding.verdict is not Verdict.DISTINGUISHABLE:
        interval = form.interval(finding.low, finding.high)
        return f"does not distinguishably change {short} {interval} {form.unit}".rstrip()
    sign = 1 if finding.estimate > 0 else -1
    ends = sorted(sign * bound for bound in (finding.low, finding.high) if bound is not None)
    interval = f" {form.interval(ends[0], ends[1])}" if len(ends) == 2 else ""
    verb, to = ("adds", "to") if sign > 0 else ("takes", "off")
    return f"{verb} {form.with_unit(abs(finding.estimate))}{interval} {to} {short}"


def _steps(ladder: Ladder, mesh: str) -> str:
    """Which steps of the ladder count, in its first metric."""
    rungs = [rung for rung in ladder.rungs if rung.mesh == mesh and rung.step]
    clear = [rung for rung in rungs if rung.step and rung.step.verdict is Verdict.DISTINGUISHABLE]
    if len(rungs) < 2:
        return ""
    if not clear:
        return "; no single step is distinguishable from noise"
    shown = ", ".join(f"{rung.label} {ladder.form.signed(rung.step.estimate)}" for rung in clear if rung.step)
    noisy = [rung.label for rung in rungs if rung not in clear]
    rest = f"; not distinguishable: {', '.join(noisy)}" if noisy else ""
    return f"; steps in {ladder.titled.short}: {shown} {ladder.form.unit}{rest}"


def of_meshes(content: Content, part: Slice) -> str:
    """Where two meshes differ at the highest rung that both have."""
    told = []
    at = ""
    name = ""
    for metric in content.primary:
        ladder = part.ladder(metric)
        levels = (
            [f for f in ladder.differences if "posture" in f.scope and "interaction" not in f.scope]
            if ladder
            else []
        )
        levels = [f for f in levels if f.scope.get("from") in part.meshes]
        if ladder is None or not levels:
            continue
        finding = levels[-1]
        at, name = str(finding.scope["posture"]), str(finding.scope["to"])
        other = str(finding.scope["from"])
        if finding.verdict is not Verdict.DISTINGUISHABLE or finding.estimate is None:
            told.append(f"{ladder.titled.short} is not distinguishable")
            continue
        sign = 1 if finding.estimate > 0 else -1
        ends = sorted(sign * bound for bound in (finding.low, finding.high) if bound is not None)
        interval = f" {ladder.form.interval(ends[0], ends[1])}" if len(ends) == 2 else ""
        amount = f"{ladder.form.with_unit(abs(finding.estimate))}{interval}"
        told.append(
            f"{ladder.titled.short} is {amount} {'higher' if sign > 0 else 'lower'} in {name} than in {other}"
        )
    return f"{part.label}, {at}: {_join(told)}." if told else ""


def _units(content: Content, ladder: Ladder) -> str:
    word = "blocks" if content.study.get("blocks") == content.study.get("executions") else "executions"
    confidence = next((rung.value.confidence for rung in ladder.rungs if rung.value), 0.95)
    return f"{ladder.blocks} {word}, {confidence:.0%} intervals"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
