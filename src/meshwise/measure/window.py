"""Does one measured window hold an objective? Pure: a trial's tables -> held, broken or invalid, with why.

Rules of this file (docs/study-file.md, "Saturation"):
- Held: every response-time limit, the errors and the share completed in the window hold, and no backlog
  grows. Response time counts from the intended time, so a late instrument can only make it harder:
  what holds although the instrument was late does hold.
- Broken must be the system's doing. A window that does not hold is *invalid* if the instrument used more
  than BUSY_SHARE of a core, if good requests went out late by the instrument's or the host's doing
  (`waited_for`) and the limits would hold without that, if the host lost CPU to its hypervisor, or if others
  than the study used it. Waiting for a slot or a connection is the system's.
- A failed request took +inf. A backlog grows if response times rise (Theil-Sen slope over SLICES medians, the
  lower bound of its 95 % interval above 0) by more than half of the tightest limit within the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from meshwise.findings.reason import (
    BACKLOG,
    COMPLETED,
    ERRORS,
    HOST_HELD,
    INSTRUMENT_BUSY,
    NOTHING_INTENDED,
    OTHERS,
    QUANTILE,
    SENDS_LATE,
    STOLEN,
    Reason,
    write_reasons,
)
from meshwise.load.report import percentiles
from meshwise.load.verdict import BUSY_SHARE, distorts
from meshwise.load.waits import Waited
from meshwise.stats.quantile import quantile_above
from meshwise.stats.regression import pair_slopes, surely_rising
from meshwise.study.design.search import Result
from meshwise.study.model import Objective

Floats = npt.NDArray[np.float64]
STOLEN_SHARE = 0.05
"""Of the host's CPU, taken by the hypervisor."""
OTHERS_SHARE = 0.20
"""Of the host's CPU, used by processes that are not the study's."""
SLICES = 20
_NEVER = -(2**62)


@dataclass(frozen=True)
class WindowJudgement:
    result: Result
    reasons: tuple[Reason, ...] = ()
    """None if held; of an invalid window first what spoiled it."""

    @property
    def reason(self) -> str:
        """As the archive has them."""
        return write_reasons(self.reasons)


def judge_window(
    objective: Objective,
    duration_ns: int,
    requests: pa.Table,
    telemetry: pa.Table,
    instrument: Mapping[str, float | str],
) -> WindowJudgement:
    """Tables as in `archive.schema`, without their trial_id; `instrument` as in `trials.instrument`."""
    window = _Window.of(requests, duration_ns)
    if not window.intended.size:
        return WindowJudgement(Result.INVALID, (NOTHING_INTENDED(),))
    reasons = window.breaks(objective, window.response_us)
    if not reasons:
        return WindowJudgement(Result.HELD)
    if spoiled := _spoiled(telemetry, instrument):
        return WindowJudgement(Result.INVALID, (spoiled, reasons[0]))
    late = percentiles(window.good_lateness_us).p99
    good_us = window.response_us[window.good]
    if distorts(late, percentiles(good_us).p99) and not window.breaks(objective, window.in_time_us):
        whose = HOST_HELD if window.mostly_host else SENDS_LATE
        return WindowJudgement(Result.INVALID, (whose(late_us=late or 0.0), reasons[0]))
    return WindowJudgement(Result.BROKEN, tuple(reasons))


@dataclass(frozen=True)
class _Window:
    intended: Floats
    response_us: Floats
    in_time_us: Floats
    """The response times if nothing had been late by the instrument's or the host's doing."""
    good: npt.NDArray[np.bool_]
    good_lateness_us: Floats
    """Only of requests that had a slot."""
    mostly_host: bool
    """More good requests were late by the host's doing than by the instrument's."""
    end_ns: int

    @classmethod
    def of(cls, requests: pa.Table, duration_ns: int) -> _Window:
        def column(name: str) -> npt.NDArray[np.int64]:
            return np.asarray(pc.fill_null(requests[name], _NEVER).to_numpy())

        intended, sent, done = column("intended_ns"), column("sent_ns"), column("done_ns")
        chosen = intended >= 0
        no_error = np.asarray(pc.equal(requests["error"].cast(pa.string()), "").to_numpy())
        good = (no_error & (done != _NEVER))[chosen]
        had_slot = sent[chosen] != _NEVER
        if "queued" in requests.column_names:
            had_slot = had_slot & ~np.asarray(pc.fill_null(requests["queued"], False).to_numpy())[chosen]
        late = dict.fromkeys((Waited.INSTRUMENT, Waited.HOST), had_slot)  # of archives that name no cause
        if "waited_for" in requests.column_names:
            causes = pc.fill_null(requests["waited_for"].cast(pa.string()), "")
            late = {cause: np.asarray(pc.equal(causes, cause.label).to_numpy())[chosen] for cause in late}
        intended, sent, done = intended[chosen], sent[chosen], done[chosen]
        start = np.where(late[Waited.INSTRUMENT] | late[Waited.HOST], sent, intended)
        by_host, by_instrument = (int((late[each] & good).sum()) for each in (Waited.HOST, Waited.INSTRUMENT))
        return cls(
            intended=intended.astype(np.float64),
            response_us=np.where(good, (done - intended) / 1e3, np.inf),
            in_time_us=np.where(good, (done - start) / 1e3, np.inf),
            good=good,
            good_lateness_us=(sent - intended)[had_slot & good] / 1e3,
            mostly_host=by_host > by_instrument,
            end_ns=duration_ns,
        )

    def breaks(self, objective: Objective, times_us: Floats) -> list[Reason]:
        """What of the objective does not hold."""
        found = []
        ordered = np.sort(times_us)
        for p, limit_ns in objective.quantiles:
            # "higher" and not type 7: between a finite and an infinite time there is nothing to interpolate
            value_us = quantile_above(ordered, p)
            if value_us > limit_ns / 1e3:
                shown = "among the failed" if np.isinf(value_us) else f"{value_us / 1e3:.1f} ms"
                found.append(QUANTILE(percent=100 * p, shown=shown, limit_ms=limit_ns / 1e6))
        errors = 1 - float(self.good.mean())
        if errors > objective.errors:
            found.append(ERRORS(percent=100 * errors, limit=100 * objective.errors))
        # The last answers are due after the window's end even if the system keeps up: they get the limit.
        grace_ns = max(limit for _, limit in objective.quantiles)
        done = float((self.intended + times_us * 1e3 <= self.end_ns + grace_ns).mean())
        if done < objective.completed:
            found.append(COMPLETED(percent=100 * done, least=100 * objective.completed))
        limit_us = min(limit for _, limit in objective.quantiles) / 1e3
        growth_us = backlog_growth(self.intended / 1e9, times_us)
        if growth_us is not None and growth_us > limit_us / 2:
            found.append(BACKLOG(ms=growth_us / 1e3))
        return found


def backlog_growth(at_s: Floats, times_us: Floats) -> float | None:
    """By how much response times surely rise over the window; None if they do not, or it cannot be told.

    Theil-Sen on the medians of SLICES equal slices, with the lower bound of its 95 % interval."""
    if at_s.size < 10 * SLICES:
        return None
    slices = np.array_split(np.arange(at_s.size), SLICES)
    medians = np.array([np.median(times_us[part]) for part in slices])
    middles = np.array([at_s[part].mean() for part in slices])
    if not np.isfinite(medians).all():
        return None  # errors say it already
    lower = surely_rising(pair_slopes(middles, medians), SLICES)
    return lower * float(at_s[-1] - at_s[0]) if lower > 0 else None


def _spoiled(telemetry: pa.Table, instrument: Mapping[str, float | str]) -> Reason | None:
    """Why the window says nothing of the system; None if it does."""
    share = instrument.get("cpu_share")
    if isinstance(share, int | float) and share > BUSY_SHARE:
        return INSTRUMENT_BUSY(share=share)
    spent = _spent(telemetry)
    host = {labels: ns for (source, labels), ns in spent.items() if source == "host"}
    total = sum(host.values())
    if total <= 0:
        return None
    stolen = host.get("mode=steal", 0.0) / total
    if stolen > STOLEN_SHARE:
        return STOLEN(share=stolen)
    busy = sum(host.get(f"mode={mode}", 0.0) for mode in ("user", "nice", "system"))
    own = sum(ns for (source, _), ns in spent.items() if source != "host")
    others = (busy - own) / total
    return OTHERS(share=others) if others > OTHERS_SHARE else None


def _spent(telemetry: pa.Table) -> dict[tuple[str, str], float]:
    """(source, labels) -> CPU time in ns between the first and the last reading, host's by mode."""
    names = telemetry["metric"].cast(pa.string())
    chosen = telemetry.filter(
        pc.and_(
            pc.is_in(names, pa.array(["cpu_ns", "host_cpu_ns"])),
            pc.greater_equal(telemetry["t_ns"], -(10**8)),
        )
    )
    first: dict[tuple[str, str], tuple[int, float]] = {}
    last: dict[tuple[str, str], tuple[int, float]] = {}
    columns = (chosen[name].to_pylist() for name in ("source", "labels", "t_ns", "value"))
    for source, labels, t_ns, value in zip(*columns, strict=True):
        key = (source, labels)
        reading = (t_ns, value)
        first[key] = min(first.get(key, reading), reading)
        last[key] = max(last.get(key, reading), reading)
    return {key: last[key][1] - first[key][1] for key in last}
