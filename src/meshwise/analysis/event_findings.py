"""Events -> findings: for each cell and event what it did, told from placebo times and from the twin arm.

Families as elsewhere (`analysis.assess`): the number of disturbed requests is held together by Holm over the
events and cells of a mesh, once against placebo and once against the twin; everything else is exploratory
(Benjamini-Hochberg).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from meshwise.analysis import event_sentence
from meshwise.analysis.assess import FEW
from meshwise.analysis.contrast import Naming, cell_scope
from meshwise.analysis.event_cohorts import EventOfCell
from meshwise.analysis.event_level import facts_of, id_of, level
from meshwise.analysis.event_rules import of_rules
from meshwise.analysis.events import QUANTITY_METRICS, Told
from meshwise.analysis.settings import Settings
from meshwise.findings.event import EventFacts
from meshwise.findings.finding import Adjustment, Finding, Method
from meshwise.findings.flag import (
    BELOW_FLOOR,
    EXPLORATORY,
    FEW_UNITS,
    LASTS_ON,
    MULTIPLICITY,
    NO_PLACEBO,
    NO_SPREAD,
    NO_WINDOW,
    UNFINISHED,
    USUAL_FAILED,
    Flag,
)
from meshwise.findings.metric import MetricKey
from meshwise.findings.subject import Against, EventEffect
from meshwise.measure.events import FAILED, REQUESTS, USUAL, Around
from meshwise.stats.arrays import FloatArray, execution_means
from meshwise.stats.interval import (
    Interval,
    bonferroni_t,
    ends,
    fisher_p,
    minimal_detectable,
    poisson_high,
    sign_test,
    t_interval,
    t_p_value,
    t_quantile,
)
from meshwise.stats.multiplicity import benjamini_hochberg, holm
from meshwise.stats.scan import Stretch
from meshwise.stats.verdict import Doubt, Evidence, Verdict, judge

PRIMARY = MetricKey("event_disturbed_requests")
_NOT_CLAIMED = {Doubt.MULTIPLICITY: MULTIPLICITY, Doubt.BELOW_FLOOR: BELOW_FLOOR}


@dataclass(frozen=True)
class _Question:
    """One metric of an event against one thing, before it is judged."""

    of: EventOfCell
    key: MetricKey
    against: Against
    values: FloatArray
    """Per execution."""
    p: float | None
    floor: float | None
    facts: EventFacts
    method: str = "t over executions"
    interval: Interval | None = None
    """Where it is not that of t."""
    flags: tuple[Flag, ...] = ()


def event_findings(found: Sequence[EventOfCell], naming: Naming, settings: Settings) -> list[Finding]:
    """In the order of cells, events, and what they are told from."""
    asked = [one for each in found for one in _questions(each, settings.confidence)]
    adjusted = _adjusted(asked)
    judged = [
        _judged(one, correction, naming, settings) for one, correction in zip(asked, adjusted, strict=True)
    ]
    places = {id(each): place for place, each in enumerate(found)}
    placed = [(places[id(one.of)], finding) for one, finding in zip(asked, judged, strict=True)]
    for place, each in enumerate(found):
        placed += [(place, one) for one in _plain(each, naming, settings)]
        placed += [(place, one) for one in of_rules(each, naming, settings)]
    return [finding for _, finding in sorted(placed, key=lambda pair: pair[0])]


def _questions(of: EventOfCell, confidence: float) -> Iterator[_Question]:
    cohort = of.cohort
    facts = facts_of(of)
    twins = any(arm.twin is not None for arm in cohort.arms)
    flags = tuple(_flags(of))
    for against in (Against.PLACEBO, *([Against.ARM] if twins else [])):
        twin = against is Against.ARM
        told: list[tuple[str, Told | None]] = [
            (name, cohort.counted(quantity, twin=twin, scale=scale))
            for name, quantity, scale in QUANTITY_METRICS
        ]
        told += [("event_p99_us", cohort.p99(twin=twin)), ("event_peak_us", cohort.peaks(twin=twin))]
        for name, one in told:
            if one is not None:
                floor = one.floor(confidence)
                missing = (NO_PLACEBO(),) if one.placebo is None else ()
                # Without them it is not known what happens anyhow, unless the twin shows it.
                p = None if missing and not twin else t_p_value(one.values)
                yield _Question(
                    of, MetricKey(name), against, one.values, p, floor,
                    replace(facts, most=one.most),
                    flags=(*flags, *missing),
                )  # fmt: skip
        yield _failures(of, against, facts, confidence, flags)


def _flags(of: EventOfCell) -> Iterator[Flag]:
    cohort, looked = of.cohort, of.cohort.arms[0].around.looked
    found = cohort.windows[0]
    if not found:
        yield NO_WINDOW(ms=looked.at_ms(cohort.fixed.end))
    elif found[-1].end >= looked.bins - 1:
        yield LASTS_ON()
    rings = [arm.around.ring for arm in cohort.arms]
    asked, failed = (float(sum(ring[each].sum() for ring in rings)) for each in (REQUESTS, FAILED))
    if asked and failed / asked > 1 - USUAL:
        yield USUAL_FAILED(percent=100 * failed / asked)


def _failures(
    of: EventOfCell, against: Against, facts: EventFacts, confidence: float, flags: tuple[Flag, ...]
) -> _Question:
    """Occurrences around which any request failed, against stretches of undisturbed time as long in which
    any did (Fisher), or against the twin at the same times (sign test): a burst counts once."""
    arms = [arm for arm in of.cohort.arms if against is Against.PLACEBO or arm.twin is not None]
    rows = [_failed(arm.around) for arm in arms]
    if against is Against.PLACEBO:
        tiles = [_tiles(arm.around) for arm in arms]
        spent = [arm.around.usual[FAILED] * arm.around.known.sum(axis=1).mean() for arm in arms]
        values = [float(row.mean()) - float(usual) for row, usual in zip(rows, spent, strict=True)]
        hits = sum(int((row > 0).sum()) for row in rows)
        calm = sum(int((each > 0).sum()) for each in tiles)
        p = fisher_p(hits, sum(map(len, rows)), calm, sum(map(len, tiles)))
        method = "t over executions; p by Fisher's test of occurrences with a failure"
    else:
        twins = [_failed(arm.twin) for arm in arms if arm.twin is not None]
        values = [float(row.mean() - twin.mean()) for row, twin in zip(rows, twins, strict=True)]
        signs = np.concatenate(
            [np.sign((row > 0) * 1.0 - (twin > 0)) for row, twin in zip(rows, twins, strict=True)]
        )
        p = sign_test(signs)
        method = "t over executions; p by the sign test of occurrences with a failure"
    lives = np.array([arm.execution for arm in arms], dtype=np.int64)
    means = execution_means(np.nan_to_num(np.array(values)), lives)
    interval = None
    if not facts.failures and not means.any():
        high = poisson_high(0, confidence) / max(facts.occurrences, 1)
        interval = Interval(0.0, 0.0, high, confidence, len(means))
        method = "none failed; upper bound of a Poisson mean over occurrences"
    return _Question(of, MetricKey("event_failures"), against, means, p, None, facts, method, interval, flags)


def _failed(around: Around) -> FloatArray:
    """Per occurrence."""
    return np.asarray(np.where(around.known, around.counts[FAILED], 0.0).sum(axis=1))


def _tiles(around: Around) -> FloatArray:
    """Failures in every stretch of undisturbed time that is as long as an occurrence."""
    size = max(1, int(np.median(around.known.sum(axis=1))))
    count = around.ring.shape[1] // size
    return np.asarray(around.ring[FAILED][: count * size].reshape(count, size).sum(axis=1))


Adjusted = tuple[float | None, Adjustment | None]


def _adjusted(asked: Sequence[_Question]) -> list[Adjusted]:
    result: list[Adjusted] = [(None, None)] * len(asked)
    groups: dict[tuple[str, Against, bool], list[tuple[int, float]]] = {}
    for place, one in enumerate(asked):
        if one.p is not None:
            family = str(one.of.cell.mesh), one.against, one.key == PRIMARY
            groups.setdefault(family, []).append((place, one.p))
    for (_, _, primary), members in groups.items():
        method, adjust = (Method.HOLM, holm) if primary else (Method.BENJAMINI_HOCHBERG, benjamini_hochberg)
        for (place, _), value in zip(members, adjust(np.array([p for _, p in members])), strict=True):
            result[place] = float(value), Adjustment(method, len(members))
    return result


def _judged(one: _Question, correction: Adjusted, naming: Naming, settings: Settings) -> Finding:
    p_adjusted, adjustment = correction
    confidence, values, metric = settings.confidence, one.values, one.key.entry
    by_t = t_interval(values, confidence)
    interval = one.interval or by_t
    holds = adjustment.comparisons if adjustment and adjustment.method is Method.HOLM else 1
    counted = one.key.metric == "event_failures"
    judgement = judge(
        Evidence(
            estimate=float(values.mean()) if len(values) else 0.0,
            p_adjusted=p_adjusted,
            floor=one.floor,
            excludes_zero=(one.p or 0.0) < settings.alpha
            if counted
            else by_t is not None and by_t.excludes(0),
        ),
        settings.alpha,
        more_is_worse=metric.more_is_worse,
    )
    flags = [*one.flags, *(_NOT_CLAIMED[each]() for each in judgement.doubts if each in _NOT_CLAIMED)]
    if 0 < len(values) < FEW:
        flags.append(FEW_UNITS(n=len(values)))
    if not counted and len(values) >= 2 and float(np.ptp(values)) == 0:
        flags.append(NO_SPREAD())
    if adjustment and adjustment.method is Method.BENJAMINI_HOCHBERG:
        flags.append(EXPLORATORY())
    simultaneous = None if one.interval else bonferroni_t(values, holds, confidence)
    mde = minimal_detectable(values, settings.alpha / holds)
    known = [each for each in (mde, one.floor) if each is not None]
    (low, high), (simultaneous_low, simultaneous_high) = ends(interval), ends(simultaneous)
    found = Finding(
        id=id_of(one.of, naming, one.against, one.key),
        subject=EventEffect(cell_scope(one.of.cell), one.of.event, one.against),
        key=one.key,
        estimate=float(values.mean()) if len(values) else None, low=low, high=high,
        confidence=confidence, unit=metric.unit, n=len(values), method=one.method,
        verdict=judgement.verdict, flags=tuple(flags), direction=judgement.direction,
        simultaneous_low=simultaneous_low, simultaneous_high=simultaneous_high,
        p=one.p, p_adjusted=p_adjusted, adjustment=adjustment,
        floor=one.floor, mde=(max(known) or None) if known and not counted else None,
        higher_in=int((values > 0).sum()) if len(values) else None, event=one.facts,
    )  # fmt: skip
    return replace(found, sentence=event_sentence.of_effect(found, naming.place(one.of.cell)))


def _plain(of: EventOfCell, naming: Naming, settings: Settings) -> Iterator[Finding]:
    """How long it took to be done, and how long it is felt."""
    facts, cohort = facts_of(of), of.cohort
    by_trial = [
        [(h.done_ns - h.begun_ns) / 1e6 for h in arm.around.happenings if h.done_ns is not None]
        for arm in cohort.arms
    ]
    known = [(arm.execution, took) for arm, took in zip(cohort.arms, by_trial, strict=True) if took]
    lives = np.array([life for life, _ in known], dtype=np.int64)
    took = execution_means(np.array([np.mean(each) for _, each in known]), lives) if known else np.empty(0)
    unfinished = (UNFINISHED(count=facts.unfinished, of=facts.occurrences),) if facts.unfinished else ()
    yield level(of, MetricKey("event_converge_ms"), took, facts, naming, settings, unfinished)
    yield _lasts(of, facts, naming, settings)


def _lasts(of: EventOfCell, facts: EventFacts, naming: Naming, settings: Settings) -> Finding:
    """The end of the stretch that stands out most; its interval by the jackknife over executions (Tukey
    1958), never narrower than a bin."""
    cohort, looked = of.cohort, of.cohort.arms[0].around.looked
    every, without = cohort.windows
    n, flags = len(without), tuple(_flags(of))
    found = level(of, MetricKey("event_lasts_ms"), np.empty(0), facts, naming, settings, flags,
                  missing=Verdict.NOT_DISTINGUISHABLE)  # fmt: skip
    if not every:
        return found
    estimate, bin_ms = looked.at_ms(_main(every).end), looked.bin_ns / 1e6
    low = high = None
    if n >= 2:
        left = np.array([looked.at_ms(_main(each).end) if each else 0.0 for each in without.values()])
        error = float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))
        half = max(bin_ms, t_quantile(0.5 + settings.confidence / 2, n - 1) * error)
        low, high = max(0.0, estimate - half), estimate + half
    found = replace(
        found, estimate=estimate, low=low, high=high, n=n, verdict=None,
        method="end of the main window found; jackknife over executions", sentence="",
    )  # fmt: skip
    return replace(found, sentence=event_sentence.of_level(found, naming.place(of.cell)))


def _main(found: Sequence[Stretch]) -> Stretch:
    return max(found, key=lambda each: each.score)
