"""Do steps of Istio's ladder measured at the same time agree with steps measured one after another?

    python benchmarks/together_apart.py [--blocks 60] [--minutes N] [--resume DIR] [--keep DIR]

A block is one execution: processes started afresh, then, in random order, one round of all rungs together
(each at `--rate`, on processes of its own), and each rung apart twice: at the rate of an arm, which is what
`arrangement: apart` makes of the same study, and at the rate of the whole round, where the CPU is as busy as
in it but nothing else runs. So every block gives each step by all three ways on the same machine in the same
half minute. `--minutes` ends with the block that is begun; `--resume` goes on there, in another quiet hour.

Each step is printed for CPU, P50 and mean with 95 % t intervals over blocks, as the analysis computes it:
apart from the difference of the levels, together from the ratio at the mean level of the rung below. The
difference of the two ways is taken within each block (paired, since both met the same moments, and it
needs no equal variances), once in microseconds and once in logarithms of ratios. Where two ways have other
levels, they cannot agree in both: a step that is a fixed amount of work has another ratio, one that is a
share of it has other microseconds. Exit status 1 when a difference of ratios between together and apart
at the rate of the round has an interval, for all comparisons at once (Bonferroni), without zero.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from _study import measure, results_of, step_effect, whole_blocks
from meshwise.analysis.contrast import Effect
from meshwise.measure.trial import TrialResult
from meshwise.stats.arrays import FloatArray
from meshwise.stats.interval import Interval, bonferroni_t, t_interval
from meshwise.study.design.blocks import design
from meshwise.study.file.read import parse_study
from meshwise.study.model import Arrangement, Cell, Study, Trial

TEXT = """\
name: together-apart
seed: 20261128
environments: [none, istio]
factors:
  posture: [none, plaintext, strict, strict+fine]
  rate: {rate}/s
  connections: 8
arrangement: together
alone: 0
trial: {{warmup: 500ms, duration: 1500ms}}
pin: true
workers: 1
blocks: {blocks}
control: {{twin: []}}
"""
METRICS = ("cpu_us_per_request", "response_p50_us", "response_mean_us")
TOGETHER, ARM, WHOLE = "together", "apart", "apart-whole"
WORDS = {TOGETHER: "together", ARM: "apart, rate of an arm", WHOLE: "apart, rate of the round"}


@dataclass(frozen=True)
class Ways:
    """The study by each way, and one design of all of them."""

    studies: dict[str, Study]

    @classmethod
    def of(cls, rate: int, blocks: int) -> Ways:
        together = parse_study(TEXT.format(rate=rate, blocks=blocks), "together-apart.yaml")
        apart = replace(together, arrangement=Arrangement.APART)
        whole = rate * len(together.cells)
        loaded = replace(apart, cells=tuple(replace(each, rate_rps=float(whole)) for each in apart.cells))
        return cls({TOGETHER: together, ARM: apart, WHOLE: loaded})

    def trials(self) -> list[Trial]:
        """Block by block, in each the rounds of all ways in random order; the id of a trial tells its way."""
        planned = [
            (way, trial.block, trial.round, trial)
            for way, study in self.studies.items()
            for trial in design(study)
        ]
        study, found, number = self.studies[TOGETHER], [], 0
        for block in range(study.blocks):
            rounds: dict[tuple[str, int], list[Trial]] = {}
            for way, of_block, each, trial in planned:
                if of_block == block:
                    rounds.setdefault((way, each), []).append(trial)
            chance, position = np.random.default_rng([study.seed, block]), 0
            for index in chance.permutation(len(rounds)):
                (way, _), arms = list(rounds.items())[index]
                for arm in arms:
                    name = f"{way}-{arm.trial_id}"
                    found.append(replace(arm, trial_id=name, round=number, position=position))
                    position += 1
                number += 1
        return found


def way_of(result: TrialResult) -> str:
    return result.trial.trial_id.rpartition("-b")[0]


def steps(results: Sequence[TrialResult], ways: Ways, metric: str) -> Iterator[tuple[str, dict[str, Effect]]]:
    """Of each step its words and its values by every way, block by block."""
    for number, (lower, upper) in enumerate(pairwise(ways.studies[TOGETHER].cells)):
        effects = {}
        for way, study in ways.studies.items():
            own = [each for each in results if way_of(each) == way]
            pair = study.cells[number], study.cells[number + 1]
            effects[way] = step_effect(own, *pair, metric, together=way == TOGETHER)
        yield f"{lower.posture.name} -> {upper.posture.name}", effects


def judge(results: Sequence[TrialResult], ways: Ways) -> bool:
    """Print levels and steps by every way. Whether no ratio differs between together and apart."""
    compared: list[FloatArray] = []
    for metric in METRICS:
        print(f"\n{metric}")
        for way, study in ways.studies.items():
            levels = [level(results, way, cell, metric) for cell in study.cells]
            print(f"  levels {WORDS[way]:26} " + "  ".join(f"{each:7.1f}" for each in levels))
        for words, effects in steps(results, ways, metric):
            print(f"  {words}")
            for way, effect in effects.items():
                print(f"    {WORDS[way]:35} {microseconds(effect.absolute)}  {ratio(effect.logs)}")
            base = effects[TOGETHER]
            for way in (ARM, WHOLE):
                other = effects[way]
                logs = None if base.logs is None or other.logs is None else base.logs - other.logs
                if logs is not None and way == WHOLE:
                    compared.append(logs)
                print(
                    f"    together - {WORDS[way]:24} {microseconds(base.absolute - other.absolute)}"
                    f"  {ratio(logs)}"
                )
    intervals = [bonferroni_t(each, len(compared)) for each in compared]
    differing = sum(each is not None and each.excludes(0.0) for each in intervals)
    widest = max(100 * np.expm1((each.high - each.low) / 2) for each in intervals if each is not None)
    print(f"\n{differing} of {len(compared)} ratios differ between together and {WORDS[WHOLE]}", end="; ")
    print(f"all intervals at once reach {widest:.1f} % to either side at most")
    return not differing


def level(results: Sequence[TrialResult], way: str, cell: Cell, metric: str) -> float:
    """The mean over blocks."""
    return float(
        np.mean(
            [
                value
                for each in results
                if way_of(each) == way and each.trial.cell == cell
                for key, value in each.values.items()
                if key.metric == metric
            ]
        )
    )


def microseconds(values: FloatArray) -> str:
    found = _interval(values)
    return f"{found.estimate:+7.1f} us [{found.low:+7.1f}, {found.high:+7.1f}]"


def ratio(logs: FloatArray | None) -> str:
    if logs is None:
        return ""
    found = _interval(logs)
    shares = [100 * np.expm1(each) for each in (found.estimate, found.low, found.high)]
    return "{:+6.2f} % [{:+6.2f}, {:+6.2f}]".format(*shares)


def _interval(values: FloatArray) -> Interval:
    found = t_interval(values)
    if found is None:
        sys.exit("fewer than two whole blocks: nothing can be said yet")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--rate", type=int, default=150, help="of each arm, requests per second")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no block after so many")
    parser.add_argument("--keep", type=Path, help="keep the archive here")
    parser.add_argument("--resume", type=Path, help="go on with the archive that was kept there")
    asked = parser.parse_args()
    ways = Ways.of(asked.rate, asked.blocks)
    trials = ways.trials()
    with tempfile.TemporaryDirectory(prefix="meshwise-together-") as scratch:
        directory = asked.resume or asked.keep or Path(scratch) / "study"
        seconds, resume = 60 * asked.minutes, asked.resume is not None
        measure(ways.studies[TOGETHER], trials, directory, seconds, resume=resume)
        whole = whole_blocks(results_of(directory), trials)
    count = len({each.trial.block for each in whole})
    print(
        f"\n{count} of {asked.blocks} blocks; {asked.rate}/s of each of 4 arms, {4 * asked.rate}/s together"
    )
    return 0 if judge(whole, ways) else 1


if __name__ == "__main__":
    sys.exit(main())
