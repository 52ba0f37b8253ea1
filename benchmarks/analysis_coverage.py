"""How often the analysis is right, by simulation: more repetitions than a test may take.

    python benchmarks/analysis_coverage.py [--repetitions 400] [--json]

Every line: what was counted, its share, the nominal rate, and whether it lies where it must, give or take
3 sqrt(p (1 - p) / R). Exit 1 if one does not. 4000 repetitions take about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.simulate import (
    BOTH,
    LADDER,
    Rate,
    any_claim,
    coverage,
    equivalence,
    interval_rates,
    is_between_meshes,
    is_ladder,
)


def rates(repetitions: int) -> Iterator[tuple[Rate, bool]]:
    """Each rate, and whether it must be about its nominal (else at most that)."""
    controls = {"same": (LADDER[1], LADDER[5])}
    for n in (5, 8, 12):
        yield any_claim(f"null ladder, Holm, n={n}", repetitions, is_ladder, K=n), False
        yield any_claim(f"null ladder, Holm and floor, n={n}", repetitions, is_ladder, K=n, **controls), False
    tails = {"tail": 0.02}
    yield any_claim("null ladder with bad trials, n=8", repetitions, is_ladder, **tails), False
    for share, word in ((0.5, "half"), (1.0, "just")):
        layouts = {"s_E": 0.03 * share, "K": 4, "B": 5, "twin": (BOTH[1], BOTH[6])}
        name = f"null between meshes, layouts {word} as noisy as trials, K=4, B=5"
        yield any_claim(name, repetitions, is_between_meshes, BOTH, **layouts), False
    for ratio in (True, False):
        scale = "ratio" if ratio else "difference"
        for n in (5, 8, 12):
            yield coverage(f"t interval covers the {scale}, n={n}", repetitions, 1.1, ratio, K=n), True
    yield coverage("t covers over executions, K=5, B=3", repetitions, 1.1, True, K=5, B=3, s_E=0.02), True
    yield coverage("t covers under drift in blocks", repetitions, 1.1, True, drift=0.05), True
    for n in (8, 12, 20):
        yield from ((rate, True) for rate in interval_rates(10 * repetitions, n, seed=n))
    yield equivalence("equivalent, truth at the margin", repetitions, 1.05, 0.05, s_b=0.015), False


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    wrong = 0
    for rate, about in rates(asked.repetitions):
        right = rate.about if about else rate.at_most
        wrong += not right
        row = {
            "name": rate.name,
            "share": round(rate.share, 4),
            "nominal": round(rate.nominal, 4),
            "slack": round(rate.slack, 4),
            "repetitions": rate.repetitions,
            "as_promised": right,
        }
        if asked.json:
            print(json.dumps(row), flush=True)
        else:
            sign = "=" if about else "<="
            expected = f"{sign} {rate.nominal:.3f} +- {rate.slack:.3f}"
            print(f"{'ok ' if right else 'BAD'} {rate.share:.3f} {expected}  {rate.name}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
