"""Does the place of an arm in its group of the dealt stream matter? From a study that was run together.

    python benchmarks/round_phase.py [STUDY_DIR]    (without one it runs studies/quickstart.yaml)

A round's stream is dealt in groups in which every arm has one request; so one that comes late in its group
has on average waited longer since the arm's last one, and finds colder caches. All arms share that, because
each has every place as often: the first figure is how evenly (chi-square over places and arms), the second
what the log response time depends on: the time since the arm's last request, in slots. The third is what
the place says beyond it, each request compared with those after as many slots: the mean over rounds with
its simultaneous 95 % interval, and Friedman's test (rounds as blocks). Exit status 1 when a p is below
0.01.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import stats

from _study import CHECKOUT, run_study

LEAST_ARMS = 3


@dataclass(frozen=True)
class Dealt:
    """The requests of a round in the order of their slots, all of shape (requests,)."""

    arm: NDArray[np.int64]
    place: NDArray[np.int64]
    gap: NDArray[np.int64]
    """Slots since the arm's last request; 0 for its first."""
    log_response: NDArray[np.float64]
    """Less its arm's median."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, nargs="?", help="the directory of a study that was run")
    study = parser.parse_args().study
    if study is not None:
        return judge_study(study)
    with tempfile.TemporaryDirectory() as scratch:
        run_study(CHECKOUT / "studies" / "quickstart.yaml", Path(scratch) / "study")
        return judge_study(Path(scratch) / "study")


def judge_study(study: Path) -> int:
    rounds = defaultdict(list)
    for trial in pq.read_table(study / "trials.parquet", columns=["trial_id", "round", "status"]).to_pylist():
        if trial["status"] == "ok":
            rounds[trial["round"]].append(trial["trial_id"])
    by_arms = defaultdict(list)
    for arms in rounds.values():
        if len(arms) >= LEAST_ARMS:
            by_arms[len(arms)].append(read(study, arms))
    p_values = [p for arms, dealt in sorted(by_arms.items()) for p in judge(arms, dealt)]
    return 0 if p_values and min(p_values) >= 0.01 else 1


def judge(arms: int, rounds: list[Dealt]) -> tuple[float, float]:
    """Print what the rounds of as many arms show. The p values of balance and of places."""
    counts = sum(np.histogram2d(seen.arm, seen.place, bins=(arms, arms))[0] for seen in rounds)
    balance = float(stats.chi2_contingency(counts).pvalue)
    print(f"{len(rounds)} rounds of {arms} arms: arms and places are independent: p {balance:.3f}")
    gaps = np.concatenate([seen.gap for seen in rounds])
    logs = np.concatenate([seen.log_response for seen in rounds])
    for low, high in ((1, arms // 2), (arms // 2 + 1, arms), (arms + 1, 2 * arms)):
        within = logs[(gaps >= low) & (gaps <= high)]
        print(f"  {low:2} to {high:2} slots since the arm's last: {100 * np.nanmedian(within):+6.2f} %")
    effects = np.array([beyond_gap(seen, arms) for seen in rounds])
    half = stats.t.ppf(1 - 0.025 / arms, len(rounds) - 1) * effects.std(axis=0, ddof=1) / len(rounds) ** 0.5
    places = float(stats.friedmanchisquare(*effects.T).pvalue)
    print(f"  beyond that, no difference between places: p {places:.3f}")
    for place, (mean, width) in enumerate(zip(effects.mean(axis=0), half, strict=True), 1):
        print(f"    place {place:2}: {100 * mean:+5.2f} % +- {100 * width:4.2f} %")
    return balance, places


def beyond_gap(seen: Dealt, arms: int) -> NDArray[np.float64]:
    """The effect of each place, once the mean course over gaps is taken off; shape (arms,)."""
    rest = np.full(len(seen.gap), np.nan)
    for gap in range(1, 2 * arms):
        here = seen.gap == gap
        if here.any():
            rest[here] = seen.log_response[here] - np.nanmedian(seen.log_response[here])
    effects = np.array([np.nanmedian(rest[seen.place == place]) for place in range(arms)])
    return effects - effects.mean()


def read(study: Path, trial_ids: list[str]) -> Dealt:
    intended, arms, logs = [], [], []
    for arm, trial_id in enumerate(trial_ids):
        table = pq.read_table(study / "requests" / f"{trial_id}.parquet")
        at, done = table["intended_ns"].to_numpy(), table["done_ns"].to_numpy()
        log = np.log(np.where(done > at, done - at, np.nan))
        intended.append(at)
        arms.append(np.full(len(at), arm))
        logs.append(log - np.nanmedian(log))
    order = np.argsort(np.concatenate(intended), kind="stable")
    count = len(trial_ids)
    whole = len(order) // count * count
    arm = np.concatenate(arms)[order][:whole]
    gap = np.zeros(whole, np.int64)
    for one in range(count):
        slots = np.flatnonzero(arm == one)
        gap[slots[1:]] = np.diff(slots)
    return Dealt(arm, np.arange(whole) % count, gap, np.concatenate(logs)[order][:whole])


if __name__ == "__main__":
    sys.exit(main())
