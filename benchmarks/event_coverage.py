"""How often the analysis of events is right, by simulation: more studies than a test may take.

    python benchmarks/event_coverage.py [--repetitions 100] [--json]

Null studies (heavy tails, stalls of the machine), with 5 and with 8 executions: how often anything is
claimed, against placebo times and against the twin. Planted effects: how often the interval of disturbed
requests holds the truth. Power: how often a P99 that is 1 ms higher for 200 ms is found, with 12 occurrences
in each of 5 executions at 1000/s (each 5 s in trials of 60 s); no rate that must hold, but a figure.
Every line: what was counted, its share, the nominal rate. Exit 1 if a rate is not what it must be, give or
take 3 sqrt(p (1 - p) / R). About 5 minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.event_world import World, findings_of
from tests.support.simulate import Rate

from meshwise.findings.subject import Against
from meshwise.stats.verdict import Verdict

DISTURBED = "event_disturbed_requests"
MUST_NOT_EXCEED, MUST_REACH, IS_TOLD = "at most", "at least", "told"


def rates(repetitions: int) -> Iterator[tuple[Rate, str]]:
    small = World(twin=True)
    for name, world in (
        ("null, 5 executions", small),
        ("null, 8 executions", replace(small, executions=8)),
        ("null, many stalls", replace(small, stalls_per_s=2.0)),
        ("null, heavy tails", replace(small, heavy=0.1)),
    ):
        found = [findings_of(world, seed) for seed in range(repetitions)]
        for against in (Against.PLACEBO, Against.ARM):
            claims = sum(each[DISTURBED, against].verdict is Verdict.DISTINGUISHABLE for each in found)
            yield Rate(f"{name}: disturbed against {against}", claims, repetitions, 0.05), MUST_NOT_EXCEED
            every = sum(
                any(f.verdict is Verdict.DISTINGUISHABLE for (_, told), f in each.items() if told is against)
                for each in found
            )
            yield Rate(f"{name}: anything against {against}", every, repetitions, 0.1), MUST_NOT_EXCEED
        windows = sum(each["event_lasts_ms", Against.NOTHING].estimate is not None for each in found)
        yield Rate(f"{name}: a window is found", windows, repetitions, 0.05), MUST_NOT_EXCEED
    for name, share, added_us in (("all by 5 ms", 1.0, 5000.0), ("half by 5 ms", 0.5, 5000.0)):
        world = replace(small, share=share, added_us=added_us)
        truth = 0.99 * share * world.rate_rps * world.lasts_ms / 1000
        found = [findings_of(world, seed) for seed in range(repetitions)]
        for against in (Against.PLACEBO, Against.ARM):
            of = [each[DISTURBED, against] for each in found]
            covered = sum(f.low is not None and f.high is not None and f.low <= truth <= f.high for f in of)
            yield Rate(f"{name}: covered against {against}", covered, repetitions, 0.95), MUST_REACH
    world = World(
        occurrences=12, rate_rps=1000, period_ms=5000, share=0.01, added_us=1000.0, tail_only=True, twin=True
    )
    few = max(10, repetitions // 5)
    found = [findings_of(world, seed) for seed in range(few)]
    for against in (Against.PLACEBO, Against.ARM):
        seen = sum(each[DISTURBED, against].verdict is Verdict.DISTINGUISHABLE for each in found)
        yield Rate(f"P99 by 1 ms for 200 ms: found against {against}", seen, few, 1.0), IS_TOLD


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wrong, rows = 0, []
    for rate, must in rates(options.repetitions):
        holds = must == IS_TOLD or (rate.at_most if must == MUST_NOT_EXCEED else rate.at_least)
        wrong += not holds
        rows.append({"what": rate.name, "share": rate.share, "nominal": rate.nominal, "holds": holds})
        if not options.json:
            mark = "" if holds else "   <-- not as it must be"
            told = f"(nominal {rate.nominal}, {rate.repetitions} studies){mark}"
            print(f"{rate.name:<55} {rate.share:6.3f}  {told}", flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
