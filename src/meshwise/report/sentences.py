"""Sentences that can be pasted alone: one per protocol and mesh, and the headline of the page.

They pick from findings, with each number's own interval and verdict; nothing is added up here.
"""

from __future__ import annotations

from meshwise.findings.subject import MeshDifference
from meshwise.report import facts, growing
from meshwise.report.content import Content, Ladder, Rung, Slice, variant_of
from meshwise.report.phrase import Phrase, change, join, size, together
from meshwise.stats.verdict import Verdict

LATENCY = ("response_p50_us", "response_p90_us", "response_p99_us", "service_p50_us", "service_p99_us")


def closing(content: Content) -> list[str]:
    """What the study varies beside the posture first: one per factor that grows and setting, one per pair of
    features; then one per slice and mesh, and one per slice on the difference between two meshes."""
    if content.fake:
        return [f"Not a measurement: {facts.FAKE}."]
    found = [*growing.of_growths(content), *growing.of_togethers(content)]
    for part in content.slices:
        found += [sentence for mesh in part.meshes if (sentence := of_mesh(content, part, mesh))]
        if sentence := of_meshes(content, part):
            found.append(sentence)
    return found


def of_mesh(content: Content, part: Slice, mesh: str) -> str:
    """`http1, istio: strict+fine adds 193 us [188, 197] to p50 ... over no mesh; steps in p50: ... us`"""
    ladders = [ladder for metric in content.primary if (ladder := part.ladder(metric))]
    told = [phrase for ladder in ladders if (phrase := _over_none(ladder, mesh))]
    top = _top(ladders, mesh)
    if top is None or not told:
        return ""
    steps = _steps(ladders[0], mesh)
    changes = together(told)
    units = _units(content, ladders[0])
    return f"{part.label}, {mesh}: {top.spoken} {changes} over no mesh{steps} ({units})."


def _top(ladders: list[Ladder], mesh: str) -> Rung | None:
    rungs = [
        rung
        for ladder in ladders
        for rung in ladder.rungs
        if rung.mesh == mesh and (rung.over_none or rung.step)
    ]
    return rungs[-1] if rungs else None


def _over_none(ladder: Ladder, mesh: str) -> Phrase | None:
    rungs = [rung for rung in ladder.rungs if rung.mesh == mesh and rung.over_none]
    finding = rungs[-1].over_none if rungs else None
    return change(finding, ladder.form) if finding else None


def _steps(ladder: Ladder, mesh: str) -> str:
    """Which steps of the ladder count, in its first metric."""
    rungs = [rung for rung in ladder.rungs if rung.mesh == mesh and rung.step]
    clear = [rung for rung in rungs if rung.step and rung.step.verdict is Verdict.DISTINGUISHABLE]
    if len(rungs) < 2:
        return ""
    if not clear:
        return "; no single step is distinguishable from noise"
    shown = ", ".join(
        f"{rung.spoken} {ladder.form.signed(rung.step.estimate)}" for rung in clear if rung.step
    )
    noisy = [rung.spoken for rung in rungs if rung not in clear]
    rest = f"; not distinguishable: {', '.join(noisy)}" if noisy else ""
    return f"; steps in {ladder.titled.short}: {shown} {ladder.form.unit}{rest}"


def of_meshes(content: Content, part: Slice) -> str:
    """Where two meshes differ at the highest rung that both have."""
    told = []
    at = ""
    for metric in content.primary:
        ladder = part.ladder(metric)
        levels = [
            (f, f.subject)
            for f in (ladder.differences if ladder else ())
            if isinstance(f.subject, MeshDifference)
        ]
        if ladder is None or not levels:
            continue
        finding, subject = levels[-1]
        variant = variant_of(finding.levels, ladder.free)
        at, name, other = str(finding.levels["posture"]), subject.first, subject.second
        at += f" ({variant})" if variant else ""
        if finding.verdict is not Verdict.DISTINGUISHABLE or finding.estimate is None:
            told.append(f"{ladder.titled.short} is not distinguishable")
            continue
        sign = 1 if finding.estimate > 0 else -1
        amount = size(finding, ladder.form, sign)
        told.append(
            f"{ladder.titled.short} is {amount} {'higher' if sign > 0 else 'lower'} in {name} than in {other}"
        )
    return f"{part.label}, {at}: {join(told)}." if told else ""


def _units(content: Content, ladder: Ladder) -> str:
    word = "blocks" if content.study.get("blocks") == content.study.get("executions") else "executions"
    confidence = next((rung.value.confidence for rung in ladder.rungs if rung.value), 0.95)
    return f"{ladder.blocks} {word}, {confidence:.0%} intervals"
