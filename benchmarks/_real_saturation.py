"""The real side of saturation_search.py: one cell on real Envoy, walked by the search and by the ladder.

Two CPUs: the instrument has one for itself, both sidecars and the service share the other, so that the
sidecars are at their limit long before the instrument is; what limited is attributed and printed. A search
runs before the ladder and one after it, so that a drift of the machine falls on both alike. Rest, warm-up,
window and number of equal trials are the same for both.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from meshwise.archive.outcome import TrialOutcome, TrialStatus
from meshwise.cli.wiring import meshes_of
from meshwise.measure.attribution import SYSTEM, WHO, Limit, Machine, Usage, attribute
from meshwise.runner.search import judged, step_of
from meshwise.runner.trial import run_round
from meshwise.study.design.blocks import design
from meshwise.study.design.search import (
    INVALID_TRIES,
    RESOLUTION,
    Knee,
    Result,
    Step,
    Tried,
    next_step,
    round_rate,
)
from meshwise.study.file.read import parse_study
from meshwise.study.model import Phase, Study, Trial
from meshwise.testbed.local.testbed import LocalTestbed

TEXT = """\
name: knee
kind: saturation
seed: 5
environments: istio
factors: {posture: strict, protocol: http1, request: 128B, response: 1KiB, connections: 32}
objective: {p99: 20ms, errors: 0.1%, completed: 99%}
search: {start: 1000/s, limit: 40000/s, confirm: 2, idle: 100ms}
load: {arrivals: poisson, timeout: 1s}
trial: {warmup: 200ms, duration: 1200ms}
pin: true
workers: 1
blocks: 2
"""
ALL_BROKEN = 4
"""Rates in a row of which no trial held: the ladder's end."""
SAME, SHARE = 0.05, 1 / 3


@dataclass
class System:
    """The cell; every answer is a fresh trial."""

    study: Study
    testbed: LocalTestbed
    trial: Trial
    number: itertools.count[int] = field(default_factory=itertools.count)
    broken: list[TrialOutcome] = field(default_factory=list)

    def answer(self, rate: float, phase: Phase) -> Result:
        assert self.study.search is not None
        time.sleep(self.study.search.idle_ns / 1e9)
        trial = step_of(self.trial, next(self.number), Step(rate, phase))
        (measured,) = run_round([trial], self.testbed, lambda event: None)
        outcome = judged(self.study, measured)
        if outcome.status is TrialStatus.UNPROVEN:
            raise RuntimeError(f"the posture did not hold: {outcome.failure}")
        if outcome.result == Result.BROKEN:
            self.broken.append(outcome)
        return Result(outcome.result)

    def limits(self, lowest: float) -> Counter[Limit]:
        """What limited the trials that broke, from that rate on."""
        machine = Machine.of(self.testbed.environment())
        counts: Counter[Limit] = Counter()
        for outcome in self.broken:
            if outcome.measurement is not None and outcome.trial.cell.rate_rps >= lowest:
                table = pl.from_arrow(outcome.measurement.telemetry)
                assert isinstance(table, pl.DataFrame)
                counts[attribute(Usage.of(outcome.trial, table), machine).limit] += 1
        return counts


@dataclass(frozen=True)
class Found:
    knee_rps: float
    trials: int
    wall_s: float
    valid: bool = True
    """Neither the instrument nor the host nor the study's limit ended it."""


def by_search(system: System) -> Found:
    assert system.study.search is not None
    begun, tried = time.monotonic(), list[Tried]()
    while not isinstance(step := next_step(system.study.search, tried), Knee):
        tried.append(Tried(step.rate_rps, step.phase, system.answer(step.rate_rps, step.phase)))
    knee = step.held_rps or math.nan
    return Found(knee, len(tried), time.monotonic() - begun, not step.limited and not step.undecided)


def by_ladder(system: System) -> Found:
    """Every rate from the start in steps of the search's resolution, `confirm` trials each."""
    search = system.study.search
    assert search is not None
    begun, trials, valid = time.monotonic(), 0, True
    rates: list[float] = []
    held: list[int] = []
    while len(rates) < ALL_BROKEN or any(held[-ALL_BROKEN:]):
        rate = round_rate(rates[-1] * RESOLUTION) if rates else search.start_rps
        if rate > search.limit_rps:
            valid = False
            break
        told: list[Result] = []
        spoiled = 0
        while len(told) < search.confirm and spoiled < INVALID_TRIES:
            result = system.answer(rate, Phase.RAMP)
            trials += 1
            spoiled += result is Result.INVALID
            told += [result] if result is not Result.INVALID else []
        valid = valid and spoiled < INVALID_TRIES
        rates.append(rate)
        held.append(told.count(Result.HELD))
    return Found(split(rates, held, search.confirm), trials, time.monotonic() - begun, valid)


def split(rates: list[float], held: list[int], repeats: int) -> float:
    """The rate that has most of the held trials at or below it and of the broken ones above."""
    below = np.cumsum(held)
    above = np.cumsum([repeats - each for each in held][::-1])[::-1]
    return rates[int(np.argmax(below + np.append(above[1:], 0)))]


def compare(text: str = TEXT) -> int:
    """Runs inside a world. Prints both sides; 0 if the figures were reached."""
    study = parse_study(text, "benchmark")
    with LocalTestbed(study, meshes_of(study)) as testbed:
        testbed.restart(0)
        system = System(study, testbed, design(study)[0])
        before = by_search(system)
        print(_line("search before the ladder", before), flush=True)
        ladder = by_ladder(system)
        print(_line("exhaustive ladder", ladder), flush=True)
        after = by_search(system)
        print(_line("search after the ladder", after))
        counts = system.limits(min(before.knee_rps, ladder.knee_rps, after.knee_rps))
    searched = math.sqrt(before.knee_rps * after.knee_rps)
    off, share = searched / ladder.knee_rps - 1, (before.wall_s + after.wall_s) / ladder.wall_s
    told = ", ".join(f"{WHO[limit]} in {count}" for limit, count in counts.most_common())
    known = sum(count for limit, count in counts.items() if limit in SYSTEM)
    system_limited = before.valid and ladder.valid and after.valid and 2 * known > counts.total()
    same, quick = abs(off) <= SAME, share <= SHARE
    print(f"what limited the trials that broke: {told or 'none broke'}{_word(system_limited)}")
    print(f"both searches against the ladder: {100 * off:+.1f} % (figure: within 5 %){_word(same)}")
    print(
        f"time of both searches: {100 * share:.0f} % of the ladder's (figure: at most a third){_word(quick)}"
    )
    return 0 if same and quick and system_limited else 1


def _word(good: bool) -> str:
    return "" if good else "  MISSED"


def _line(name: str, found: Found) -> str:
    doubt = "" if found.valid else "  (ended by the instrument, the host or a limit)"
    return f"{name:26} {found.knee_rps:7.0f}/s  {found.trials:4} trials  {found.wall_s:6.1f} s{doubt}"
