"""A number of an event that is told by itself, and what stands behind every finding about one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from meshwise.analysis import event_sentence
from meshwise.analysis.assess import FEW
from meshwise.analysis.contrast import Naming, cell_scope
from meshwise.analysis.event_cohorts import EventOfCell
from meshwise.analysis.settings import Settings
from meshwise.findings.event import EventFacts
from meshwise.findings.finding import Finding
from meshwise.findings.flag import FEW_UNITS, Flag
from meshwise.findings.metric import MetricKey
from meshwise.findings.subject import Against, EventEffect
from meshwise.measure.events import DISTURBED
from meshwise.stats.arrays import FloatArray
from meshwise.stats.interval import ends, t_interval
from meshwise.stats.verdict import Verdict


def facts_of(of: EventOfCell) -> EventFacts:
    cohort, looked = of.cohort, of.cohort.arms[0].around.looked
    found = cohort.windows[0]
    mask = cohort.mask(found)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))).reshape(-1, 2)
    around = [arm.around for arm in cohort.arms]
    kinds: dict[str, int] = {}
    for each in around:
        for kind, count in each.errors:
            kinds[kind] = kinds.get(kind, 0) + count
    usual = [float(each.usual[DISTURBED]) * int(mask.sum()) for each in around if each.ring.shape[1]]
    return EventFacts(
        occurrences=cohort.occurrences,
        unfinished=sum(h.done_ns is None for each in around for h in each.happenings),
        failures=sum(kinds.values()),
        errors=kinds,
        windows_ms=tuple((looked.at_ms(int(a)), looked.at_ms(int(b))) for a, b in edges),
        found=bool(found),
        usual_per_window=float(np.mean(usual)) if usual else None,
    )


def id_of(of: EventOfCell, naming: Naming, against: Against, key: MetricKey) -> str:
    cell = of.cell
    event = of.event.replace(",", "").replace(" ", "-")
    return f"event/{cell.mesh}/{cell.posture.name}/{naming.key(cell)}/{event}/{against}/{key}"


def level(
    of: EventOfCell, key: MetricKey, values: FloatArray, facts: EventFacts, naming: Naming,
    settings: Settings, flags: tuple[Flag, ...] = (), *, missing: Verdict = Verdict.NOT_ESTIMABLE,
) -> Finding:  # fmt: skip
    """A number that is told by itself."""
    low, high = ends(t_interval(values, settings.confidence))
    few = (FEW_UNITS(n=len(values)),) if 0 < len(values) < FEW else ()
    found = Finding(
        id=id_of(of, naming, Against.NOTHING, key),
        subject=EventEffect(cell_scope(of.cell), of.event, Against.NOTHING), key=key,
        estimate=float(values.mean()) if len(values) else None, low=low, high=high,
        confidence=settings.confidence, unit=key.entry.unit, n=len(values), method="t over executions",
        verdict=None if len(values) else missing, flags=(*flags, *few), event=facts,
    )  # fmt: skip
    return replace(found, sentence=event_sentence.of_level(found, naming.place(of.cell)))
