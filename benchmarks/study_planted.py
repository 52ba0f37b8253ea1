"""Effects of a known kind, planted on real Envoy: are they found, and are they as large as they were made?

    python benchmarks/study_planted.py [--minutes 5] [--runs N] [--arms N] [--keep DIR]

Every study compares Istio's `strict+namespace` with the same and one more AuthorizationPolicy on the server
(`--entries` rules that match no caller, read before the one that does), or with the same whose service
sleeps 50 us longer. All services sleep 100 us in any case, by the same timer, so that waking from a sleep is
in both. A round holds several pairs of the first kind; the arms that are left sleep
longer. Each arm has processes of its own, so every pair is a study, but each is in company, which
is harder than to be alone.

Figures: the policy is found (interval of the step in CPU per request above zero) in at least nine of ten
studies; the 50 us lie within the interval, for P50 and mean, in as many studies as 95 % explains (not below
the 0.5 % quantile of the binomial). The size of what was planted is printed from all studies in sum. Exit
status 1 when a figure is missed.

`--runs` unasked: as many as make ten studies. Runs that `--keep` has kept are not measured again, so
`--runs 1`, then `--runs 2`, and so on divide the work.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

from _study import measure, results_of, step_effect, whole_blocks
from meshwise.analysis.contrast import Effect
from meshwise.core.modes import write_private_text
from meshwise.measure.trial import TrialResult
from meshwise.mesh.seam import ProcessPlan
from meshwise.service.spec import NodeSpec
from meshwise.stats.interval import t_interval
from meshwise.study.design.blocks import design
from meshwise.study.design.rounds import MOST_SIDECARS, block_rounds
from meshwise.study.file.read import parse_study
from meshwise.study.graph.model import GraphService, ServiceGraph, Sleep
from meshwise.study.model import Cell, Control, Role, Study, TopologyKind
from meshwise.testbed.applications.echo import Echo
from meshwise.testbed.applications.seam import ApplicationEnvironment

TEXT = """\
name: planted
seed: {seed}
environments: istio
factors:
  posture: strict+namespace
  policies: [0, {entries}]
  rate: {rate}/s
  connections: 4
trial: {{warmup: 1s, duration: 5s}}
alone: 0
pin: true
workers: 1
blocks: {blocks}
control: {{twin: []}}
"""
SLEEP_NS, LONGER_NS = 100_000, 50_000
MOST_ARMS, MOST_PAIRS = MOST_SIDECARS // 2, 5
RATE_OF_ALL = 700
STUDIES = 10
FOUND_SHARE = 0.9
SHORTEST_BLOCK_S = 6


class LongerSleep(Echo):
    """The application of a study whose services sleep longer in some sets of processes."""

    def __init__(self, sets: Sequence[str]) -> None:
        self._sets = frozenset(sets)

    def start(self, place: ApplicationEnvironment, draws: str) -> Sequence[ProcessPlan]:
        plans = super().start(place, draws)
        if place.environment.placement.process_set in self._sets:
            for node in place.environment.nodes:
                path = place.files / f"{node.name}.json"
                spec = NodeSpec.read(path)
                scripts = {name: slept(each, LONGER_NS) for name, each in spec.scripts.items()}
                write_private_text(path, replace(spec, scripts=scripts).to_json())
        return plans


def slept(service: GraphService, longer_ns: int) -> GraphService:
    return replace(service, script=(Sleep(SLEEP_NS + longer_ns),))


def sleeping(longer_ns: int) -> ServiceGraph:
    return ServiceGraph(f"sleep-{longer_ns}", (slept(GraphService("service"), longer_ns),))


@dataclass(frozen=True)
class Round:
    """How many arms of each kind a round has; a plain arm is the lower side of one pair of either kind."""

    pairs: int
    longer: int

    @classmethod
    def of(cls, arms: int) -> Round:
        pairs = min(MOST_PAIRS, (arms - 1) // 2)
        return cls(pairs, min(pairs, arms - 2 * pairs))

    @property
    def arms(self) -> int:
        return 2 * self.pairs + self.longer

    def study(self, entries: int, blocks: int, seed: int) -> Study:
        """A cell, the cell with more policies, and further arms of both as twins."""
        rate = RATE_OF_ALL // self.arms
        text = TEXT.format(entries=entries, blocks=blocks, seed=seed, rate=rate)
        study = parse_study(text, "planted.yaml")
        plain, more = (replace(each, shape=TopologyKind.GRAPH, graph=sleeping(0)) for each in study.cells)
        twins = (plain,) * (self.pairs - 1) + (more,) * (self.pairs - 1) + (plain,) * self.longer
        return replace(study, cells=(plain, more), control=Control(twin=twins))

    def sets(self, study: Study) -> tuple[list[str], list[str], list[str]]:
        """Sets of processes: of the plain arms, of those with more policies, of those that sleep longer."""
        (arms,) = block_rounds(study)
        (plain, more, *twins), further = [arm.process_set for arm in arms], self.pairs - 1
        return (
            [plain, *twins[:further]],
            [more, *twins[further : 2 * further]],
            twins[2 * further :],
        )


def between(results: Sequence[TrialResult], sets: Mapping[str, Cell], metric: str) -> Effect:
    """The step between two sets of processes, each under the name of a cell."""
    named = [
        replace(each, trial=replace(each.trial, cell=sets[each.trial.process_set], role=Role.CELL))
        for each in results
        if each.trial.process_set in sets
    ]
    lower, upper = sets.values()
    return step_effect(named, lower, upper, metric, together=True)


def in_sum(runs: Sequence[Sequence[Effect]]) -> tuple[str, str]:
    """The mean over the studies of a run in each execution, over all executions: as ratio and in us."""
    logs = np.concatenate(
        [np.mean([each.logs for each in run if each.logs is not None], axis=0) for run in runs]
    )
    costs = np.concatenate([np.mean([each.absolute for each in run], axis=0) for run in runs])
    ratio, cost = t_interval(logs), t_interval(costs)
    assert ratio is not None
    assert cost is not None
    shares = [100 * np.expm1(each) for each in (ratio.estimate, ratio.low, ratio.high)]
    return (
        "{:+.2f} % [{:+.2f}, {:+.2f}]".format(*shares),
        f"{cost.estimate:+.1f} us [{cost.low:+.1f}, {cost.high:+.1f}]",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5, help="of each run")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--arms", type=int, default=MOST_ARMS, help="of a round; default here: %(default)s")
    parser.add_argument("--entries", type=int, default=3, help="of the policy that is planted")
    parser.add_argument("--keep", type=Path, help="keep the archives below this directory")
    asked = parser.parse_args()
    if asked.arms < 3:
        parser.error("three arms are the fewest")
    shape = Round.of(asked.arms)
    policies: list[list[Effect]] = []
    sleeps: dict[str, list[list[Effect]]] = {"response_p50_us": [], "response_mean_us": []}
    with tempfile.TemporaryDirectory(prefix="meshwise-planted-") as scratch:
        for run in range(asked.runs or -(-STUDIES // shape.pairs)):
            study = shape.study(asked.entries, max(2, int(60 * asked.minutes / SHORTEST_BLOCK_S)), 1 + run)
            plain, more, longer = shape.sets(study)
            kept = asked.keep or Path(scratch)
            directory = kept / f"{shape.arms}-arms-{asked.entries}-entries-{asked.minutes:g}-min-{run + 1}"
            application = LongerSleep(longer)
            trials, (lower, upper) = design(study), study.cells
            if not directory.exists():
                begun = directory.with_name(f"{directory.name}-begun")
                shutil.rmtree(begun, ignore_errors=True)  # of a run that was stopped
                measure(study, trials, begun, 60 * asked.minutes, application=application)
                begun.rename(directory)
            found = whole_blocks(results_of(directory), trials)
            slower = replace(lower, graph=sleeping(LONGER_NS))
            policies.append(
                [
                    between(found, {one: lower, other: upper}, "cpu_us_per_request")
                    for one, other in zip(plain, more, strict=True)
                ]
            )
            for metric, effects in sleeps.items():
                effects.append(
                    [
                        between(found, {one: lower, other: slower}, metric)
                        for one, other in zip(plain, longer, strict=False)
                    ]
                )
    executions = ", ".join(str(run[0].n) for run in policies)
    print(f"\n{shape.arms} arms in each other's company, {RATE_OF_ALL // shape.arms}/s each;", end=" ")
    print(f"{shape.pairs} + {shape.longer} studies in each run; executions of each run: {executions}")
    return judged(policies, sleeps, asked.entries)


def judged(policies: list[list[Effect]], sleeps: Mapping[str, list[list[Effect]]], entries: int) -> int:
    print(f"one more policy of {entries} entries, CPU per request:")
    hits = []
    for effect in (each for run in policies for each in run):
        assert effect.logs is not None
        found = t_interval(effect.logs)
        assert found is not None
        hits.append(found.low > 0)
        shares = [100 * np.expm1(each) for each in (found.estimate, found.low, found.high)]
        print("  {:+.2f} % [{:+.2f}, {:+.2f}]".format(*shares) + ("" if hits[-1] else "   not found"))
    print(f"  in sum {' = '.join(in_sum(policies))}")
    good = sum(hits) >= FOUND_SHARE * len(hits)
    print(f"  found in {sum(hits)} of {len(hits)}   at least {FOUND_SHARE:.0%}: {words(good)}")
    for metric, runs in sleeps.items():
        print(f"the service sleeps {LONGER_NS / 1e3:g} us longer, {metric}:")
        held = []
        for effect in (each for run in runs for each in run):
            found = t_interval(effect.absolute)
            assert found is not None
            held.append(found.low <= LONGER_NS / 1e3 <= found.high)
            print(
                f"  {found.estimate:+6.1f} us [{found.low:+.1f}, {found.high:+.1f}]"
                + ("" if held[-1] else "   without the truth")
            )
        least = int(stats.binom.ppf(0.005, len(held), 0.95))
        print(f"  in sum {' = '.join(reversed(in_sum(runs)))}")
        print(
            f"  within {sum(held)} of {len(held)} intervals   at least {least}: {words(sum(held) >= least)}"
        )
        good = good and sum(held) >= least
    return 0 if good else 1


def words(reached: bool) -> str:
    return "reached" if reached else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
