"""Effects -> findings: intervals on both scales, multiplicity, floor, verdict, sentence.

Families. Primary metrics: the comparisons of one family (the ladder of a mesh, all settings; the pair of
meshes; ...) are held together per metric by Holm, and their simultaneous interval is Bonferroni's. Everything
else is exploratory: Benjamini-Hochberg over the family's other metrics, and flagged as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from meshwise.analysis import sentence
from meshwise.analysis.company import rounds_of, shared_waiting
from meshwise.analysis.contrast import Contrast, Effect, Naming, evaluate
from meshwise.analysis.exact import ExactNoise
from meshwise.analysis.floor import ControlNoise, floor_for
from meshwise.analysis.grid import Grid
from meshwise.analysis.interaction import only_describes
from meshwise.analysis.level import companion_of
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Adjustment, Companion, Finding, Method, WithoutOutliers, exp, finite
from meshwise.findings.flag import (
    BELOW_FLOOR,
    DESCRIPTIVE,
    EXPLORATORY,
    FAILURES_IN_BLOCKS,
    FEW_UNITS,
    GROUPED,
    LOST_PAIRS,
    METHODS_DISAGREE,
    MULTIPLICITY,
    NO_FLOOR,
    NO_SPREAD,
    NO_TWIN,
    SCALES_DISAGREE,
    Flag,
)
from meshwise.findings.metric import MetricKey, PartOf, Scale
from meshwise.findings.subject import Slope, kind_of
from meshwise.stats.arrays import BoolArray, FloatArray
from meshwise.stats.interval import (
    Interval,
    bonferroni_t,
    clopper_pearson,
    ends,
    minimal_detectable,
    t_interval,
    t_p_value,
    tost,
)
from meshwise.stats.multiplicity import benjamini_hochberg, holm
from meshwise.stats.verdict import Doubt, Evidence, judge
from meshwise.study.model import Role

FEW = 5
_EXPLORED = ""
_APART = {PartOf.PLACE: "by place", PartOf.GROUP: "by group"}
"""What is held together that is no primary metric: parts of these kinds on their own, which are many and move
together."""
_NOT_CLAIMED = {
    Doubt.MULTIPLICITY: MULTIPLICITY,
    Doubt.BELOW_FLOOR: BELOW_FLOOR,
    Doubt.SCALES_DISAGREE: SCALES_DISAGREE,
}
Adjusted = tuple[float | None, Adjustment]
"""Adjusted p, and how."""


def assess(
    effects: Sequence[Effect],
    controls: Mapping[MetricKey, list[ControlNoise]],
    settings: Settings,
    grid: Grid,
    outliers: Mapping[MetricKey, BoolArray | None],
    naming: Naming,
    exact: Mapping[MetricKey, ExactNoise] | None = None,
) -> list[Finding]:
    """One finding per effect, in their order. `controls` and `outliers` by metric; `exact`: the rules of
    those that are counted, in the place of controls."""
    adjusted = adjust(effects, settings.primary)
    rounds = {each.number: each for each in rounds_of(grid)}
    findings = []
    for effect, correction in zip(effects, adjusted, strict=True):
        without = outliers.get(effect.key)
        again = None if without is None else evaluate(grid, effect.contrast, effect.key, without)
        rule = (exact or {}).get(effect.key)
        found = _finding(effect, correction, controls.get(effect.key, []), settings, again, rule)
        found = replace(
            found, flags=(*found.flags, *shared_waiting(rounds, grid, effect.contrast, effect.key))
        )
        text = sentence.of_contrast(found, naming.setting(effect.contrast))
        findings.append(replace(found, sentence=text))
    return findings


def adjust(effects: Sequence[Effect], primary: Sequence[MetricKey]) -> list[Adjusted]:
    """Holm within family and primary metric, Benjamini-Hochberg within family for all other metrics."""
    result: list[Adjusted] = [(None, Adjustment(Method.HOLM, 0))] * len(effects)
    groups: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for index, effect in enumerate(effects):
        p = t_p_value(effect.inferred)
        if p is not None and not only_describes(effect.contrast.subject, effect.metric):
            held = effect.key.metric if effect.key in primary else _EXPLORED
            if effect.metric.parts in _APART:
                held = _APART[effect.metric.parts]
            groups.setdefault((effect.contrast.family, held), []).append((index, p))
    for (_, held), members in groups.items():
        explored = held in (_EXPLORED, *_APART.values())
        method, adjusted = (
            (Method.BENJAMINI_HOCHBERG, benjamini_hochberg) if explored else (Method.HOLM, holm)
        )
        for (index, _), value in zip(members, adjusted(np.array([p for _, p in members])), strict=True):
            result[index] = float(value), Adjustment(method, len(members))
    return result


def _finding(
    effect: Effect,
    correction: Adjusted,
    found: list[ControlNoise],
    settings: Settings,
    again: Effect | None,
    rule: ExactNoise | None,
) -> Finding:
    contrast, n, confidence = effect.contrast, effect.n, settings.confidence
    metric = effect.metric
    p_adjusted, adjustment = correction
    absolute = t_interval(effect.absolute, confidence)
    logs = None if effect.logs is None else t_interval(effect.logs, confidence)
    floors: Mapping[Scale, float | None] = (
        rule.floors(effect)
        if rule
        else {
            scale: _scaled(floor_for(found, scale, n, confidence, across=contrast.across_processes), contrast)
            for scale in Scale
        }
    )
    comparisons = adjustment.comparisons if adjustment.method is Method.HOLM else 1
    alpha = settings.alpha / max(comparisons, 1)
    inferred = effect.inferred
    margin = settings.margin if effect.logs is not None else None
    equivalence = tost(inferred, float(np.log1p(margin))) if margin else None
    shown = [interval for interval in (absolute, logs) if interval is not None]
    described = bool(n) and only_describes(effect.contrast.subject, effect.metric)
    judgement = judge(
        Evidence(
            estimate=_mean(inferred) or 0.0,
            p_adjusted=p_adjusted,
            floor=floors[effect.scale],
            excludes_zero=bool(shown) and all(interval.excludes(0) for interval in _judged(effect, shown)),
            equivalence_p=equivalence,
        ),
        settings.alpha,
        more_is_worse=metric.more_is_worse,
    )
    companion = companion_of(effect.absolute, confidence)
    flags = [
        *contrast.flags,
        *_doubts(effect, found, adjustment.method, counted=rule is not None),
        *(_NOT_CLAIMED[each]() for each in judgement.doubts),
    ]
    flags += _companion_disagrees(absolute, companion)
    higher = int((effect.absolute > 0).sum())
    votes = clopper_pearson(higher, n, confidence) if n else None
    simultaneous = bonferroni_t(effect.absolute, comparisons, confidence)
    mde = _largest(minimal_detectable(effect.absolute, alpha), floors[Scale.DIFFERENCE])
    log_mde = (
        None if effect.logs is None else _largest(minimal_detectable(effect.logs, alpha), floors[Scale.LOG])
    )
    low, high = ends(absolute)
    ratio_low, ratio_high = map(exp, ends(logs))
    simultaneous_low, simultaneous_high = ends(simultaneous)
    higher_share_low, higher_share_high = ends(votes)
    return Finding(
        id=f"{kind_of(contrast.subject)}/{contrast.key}/{effect.key}",
        subject=contrast.subject, key=effect.key,
        estimate=_mean(effect.absolute), low=low, high=high, confidence=confidence,
        unit=metric.unit + (contrast.subject.step.unit if isinstance(contrast.subject, Slope) else ""),
        n=n, method=f"paired t over executions, verdict on {_scale_words(effect.scale)}"
        + (", cost by the ratio at the level of `from`" if contrast.in_rounds and effect.base else ""),
        verdict=None if described else judgement.verdict, flags=tuple(flags), direction=judgement.direction,
        ratio=None if effect.logs is None else exp(_mean(effect.logs)),
        ratio_low=ratio_low, ratio_high=ratio_high,
        simultaneous_low=simultaneous_low, simultaneous_high=simultaneous_high,
        p=t_p_value(inferred), p_adjusted=p_adjusted,
        adjustment=adjustment if adjustment.comparisons else None,
        floor=_as_cost(
            floors[Scale.LOG] if effect.scale is Scale.LOG else None, effect.base, floors[Scale.DIFFERENCE]
        ),
        floor_ratio=exp(floors[Scale.LOG]) if effect.logs is not None else None,
        mde=_as_cost(log_mde, effect.base, mde), mde_ratio=exp(log_mde),
        equivalent_within=settings.margin if judgement.equivalent else None,
        higher_in=higher if n else None,
        higher_share_low=higher_share_low, higher_share_high=higher_share_high,
        companion=companion, without_outliers=_without(effect, again, settings),
    )  # fmt: skip


def _mean(values: FloatArray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _judged(effect: Effect, shown: list[Interval]) -> list[Interval]:
    """Both scales must exclude no change; but where the two ask different questions (an interaction adds up
    or multiplies) only the verdict's own."""
    return (
        shown
        if len(effect.contrast.terms) == 2 or len(shown) == 1
        else [shown[0 if effect.scale is Scale.DIFFERENCE else 1]]
    )


def _doubts(effect: Effect, found: list[ControlNoise], method: Method, *, counted: bool) -> list[Flag]:
    contrast, n = effect.contrast, effect.n
    flags = []
    if effect.infinite_blocks:
        flags.append(FAILURES_IN_BLOCKS(count=effect.infinite_blocks, of=effect.blocks))
    if effect.lost_blocks:
        flags.append(LOST_PAIRS(blocks=effect.lost_blocks))
    if 0 < n < FEW:
        flags.append(FEW_UNITS(n=n))
    if n and effect.blocks > n:
        flags.append(GROUPED(blocks=effect.blocks, n=n))
    if n >= 2 and float(np.ptp(effect.inferred)) == 0:
        flags.append(NO_SPREAD())
    roles = {control.role for control in found}
    if counted:
        pass  # it has a rule in the place of controls
    elif n and Role.AA not in roles and not (contrast.across_processes and Role.TWIN in roles):
        flags.append(NO_FLOOR())
    elif n and contrast.across_processes and Role.TWIN not in roles and effect.blocks > n:
        flags.append(NO_TWIN())
    if only_describes(effect.contrast.subject, effect.metric):
        flags.append(DESCRIPTIVE())
    elif method is Method.BENJAMINI_HOCHBERG:
        flags.append(EXPLORATORY())
    return flags


def _companion_disagrees(absolute: Interval | None, companion: Companion | None) -> list[Flag]:
    if absolute is None or companion is None or companion.low is None or companion.high is None:
        return []
    excludes = companion.low > 0 or companion.high < 0
    if excludes == absolute.excludes(0):
        return []
    return [METHODS_DISAGREE()]


def _without(effect: Effect, again: Effect | None, settings: Settings) -> WithoutOutliers | None:
    if again is None or again.blocks == effect.blocks:
        return None
    absolute = t_interval(again.absolute, settings.confidence)
    logs = None if again.logs is None else t_interval(again.logs, settings.confidence)
    (low, high), (ratio_low, ratio_high) = ends(absolute), map(exp, ends(logs))
    return WithoutOutliers(
        rule=settings.outlier_rule, removed=effect.blocks - again.blocks, n=again.n,
        estimate=finite(_mean(again.absolute)), low=low, high=high,
        ratio=exp(logs.estimate if logs else None), ratio_low=ratio_low, ratio_high=ratio_high,
    )  # fmt: skip


def _as_cost(log: float | None, base: float | None, otherwise: float | None) -> float | None:
    """What is judged as a ratio, shown as a cost: the share of the level that it starts from."""
    ratio = exp(log)
    return otherwise if ratio is None or base is None else (ratio - 1) * base


def _scaled(floor: float | None, contrast: Contrast) -> float | None:
    return None if floor is None else floor * contrast.noise_factor


def _largest(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _scale_words(scale: Scale) -> str:
    return "log ratio" if scale is Scale.LOG else "difference"
