"""Whether certificates outlive the trials that they are for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.core.units import format_duration
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.model import Cell, MeshName, TrialPlan
from meshwise.study.timeline import Rotate
from meshwise.study.validation import with_mtls


def check_lives(cells: Sequence[Cell], plan: TrialPlan, problems: list[Problem]) -> None:
    """Istio's certificates are issued before a trial, and renewed within it by events only. Linkerd's proxies
    renew by themselves."""
    if any(isinstance(each.act, Rotate) for each in plan.timeline.declared):
        return
    least_ns = 2 * (plan.warmup_ns + plan.duration_ns)
    lives_ns = {
        cell.certificate_life_s * 10**9
        for cell in cells
        if cell.mesh is MeshName.ISTIO and with_mtls(cell.posture)
    }
    if lives_ns and min(lives_ns) < least_ns:
        reason = (
            f"certificates of {format_duration(min(lives_ns))} end within a trial, which takes with what "
            f"comes before it up to {format_duration(least_ns)}, and nothing renews them"
        )
        remedy = "a longer life, shorter trials, or `events: [{rotate: leaf, every: ...}]`"
        problems.append(impossible(("factors", "certificate_life"), reason, remedy))
