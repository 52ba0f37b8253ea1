"""The saturation search against an exhaustive ladder: on systems whose knee is known, and on real Envoy.

    python benchmarks/saturation_search.py [--blocks 8] [--studies 40] [--only synthetic|real]

The ladder tries every rate from the start in steps of the search's own resolution, three trials each, until
all trials of four rates in a row broke; its knee is the rate that has most of the held trials at or below
it and of the broken ones above. (To stop at the first rate that breaks would find a lower one, the more so
the softer the knee.) Both pay one trial's time per trial. Systems: P(held) logistic in log rate (scale 1,
3, 6 %), and the fake testbed's queue, judged from its requests as real trials are.

Figures: the geometric mean over the blocks of a study within 5 % of the ladder's in 95 % of studies, and at
most a third of its trials. Real (`_real_saturation.py`, under six minutes): one cell, Istio strict on http1;
two searches within 5 % of the ladder's rate in at most a third of its time, and the system limited, not the
instrument. Exit status 1 when a figure is missed; 3 when there is no Envoy, or no second CPU to pin to.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import _real_saturation
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.measure.window import judge_window
from meshwise.mesh.istio.binary import envoy_path
from meshwise.study.design.blocks import design
from meshwise.study.design.search import RESOLUTION, Knee, Result, Tried, next_step, round_rate
from meshwise.study.file.read import load_study
from meshwise.study.model import Phase, Search, Study, Trial
from meshwise.testbed.fake import FakeTestbed
from meshwise.testbed.local.world import enter_world

Answer = Callable[[float], Result]
REPEATS = 3
ALL_BROKEN = 4
SAME, SHARE = 0.05, 1 / 3
STUDY = Path(__file__).resolve().parent.parent / "studies" / "saturation.yaml"


def search_knee(search: Search, answer: Answer) -> tuple[float, int]:
    tried: list[Tried] = []
    while not isinstance(found := next_step(search, tried), Knee):
        tried.append(Tried(found.rate_rps, found.phase, answer(found.rate_rps)))
    return found.held_rps or math.nan, len(tried)


def ladder_knee(search: Search, answer: Answer) -> tuple[float, int]:
    rates: list[float] = []
    held: list[int] = []
    while len(rates) < ALL_BROKEN or any(held[-ALL_BROKEN:]):
        rate = round_rate(rates[-1] * RESOLUTION) if rates else search.start_rps
        if rate > search.limit_rps:
            break
        rates.append(rate)
        held.append(sum(answer(rate) is Result.HELD for _ in range(REPEATS)))
    below = np.cumsum(held)
    above = np.cumsum([REPEATS - each for each in held][::-1])[::-1]
    right = below + np.append(above[1:], 0)
    return rates[int(np.argmax(right))], REPEATS * len(rates)


def logistic(knee: float, scale: float, rng: np.random.Generator) -> Answer:
    def answer(rate: float) -> Result:
        chance = 1 / (1 + math.exp(min(700.0, math.log(rate / knee) / scale)))
        return Result.HELD if rng.random() < chance else Result.BROKEN

    return answer


class Queue:
    """One cell of the fake testbed in one block; every answer is a fresh trial."""

    def __init__(self, study: Study, testbed: FakeTestbed, search_trial: Trial) -> None:
        self.study, self.testbed, self.trial, self.count = study, testbed, search_trial, 0

    def __call__(self, rate: float) -> Result:
        self.count += 1
        trial = dataclasses.replace(
            self.trial,
            trial_id=f"{self.trial.trial_id}-x{self.count}",
            cell=dataclasses.replace(self.trial.cell, rate_rps=rate),
            phase=Phase.RAMP,
        )
        got = self.testbed.measure([trial], lambda progress: None)[trial.trial_id]
        assert self.study.search is not None
        return judge_window(
            self.study.search.objective,
            self.study.trial.duration_ns,
            got.requests,
            got.telemetry,
            got.instrument,
        ).result


def compare(name: str, search: Search, answers: list[list[Answer]]) -> bool:
    """`answers`: per study its blocks. Prints one line."""
    off, cost = [], []
    for blocks in answers:
        found = [search_knee(search, answer) for answer in blocks]
        walked = [ladder_knee(search, answer) for answer in blocks]
        off.append(float(np.mean(np.log([k for k, _ in found])) - np.mean(np.log([k for k, _ in walked]))))
        cost.append(sum(n for _, n in found) / sum(n for _, n in walked))
    far = float(np.quantile(np.abs(np.expm1(off)), 0.95))
    good = far <= SAME and max(cost) <= SHARE
    print(
        f"{name:24} mean {100 * math.expm1(np.mean(off)):+5.1f} %, 95 % of studies within {100 * far:4.1f} %;"
        f" trials {100 * float(np.mean(cost)):4.1f} % of the ladder's {'' if good else '  MISSED'}"
    )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--only", choices=("synthetic", "real"))
    arguments = parser.parse_args()
    # The real one first: it forks, and what the other one computes with starts threads.
    status = real() if arguments.only != "synthetic" else 0
    good = arguments.only == "real" or synthetic(arguments.blocks, arguments.studies)
    return status or (0 if good else 1)


def real() -> int:
    try:
        envoy_path()
    except MeshwiseError as error:
        print(f"the real system was not tried: {error}")
        return ExitStatus.ENVIRONMENT
    if len(os.sched_getaffinity(0)) < 2:
        print("the real system was not tried: it takes two CPUs, one of them the instrument's own")
        return ExitStatus.ENVIRONMENT
    return enter_world(_real_saturation.compare)


def synthetic(blocks: int, studies: int) -> bool:
    study = load_study(STUDY)
    assert study.search is not None
    search = dataclasses.replace(study.search, start_rps=200.0, limit_rps=20_000.0)
    rng = np.random.default_rng(7)
    good = True
    for scale in (0.01, 0.03, 0.06):
        answers = [
            [logistic(1000 * math.exp(rng.normal(0, 0.02)), scale, rng) for _ in range(blocks)]
            for _ in range(studies)
        ]
        good &= compare(f"logistic, scale {scale:.0%}", search, answers)
    queues: list[list[Answer]] = []
    cell = study.cells[-1]
    for seed in range(3):
        testbed = FakeTestbed(study, seed=seed).__enter__()
        trials = [trial for trial in design(study) if trial.cell == cell][:blocks]
        queues.append([Queue(study, testbed, trial) for trial in trials])
    good &= compare("queue, judged", dataclasses.replace(search, start_rps=100.0), queues)
    return good


if __name__ == "__main__":
    sys.exit(main())
