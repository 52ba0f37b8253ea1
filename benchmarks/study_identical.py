"""A study of identical cells: how often does meshwise see a difference where there is none?

    python benchmarks/study_identical.py [--study studies/aa-together.yaml]

Each A/A pair of the study (a cell and its twin on processes of its own, at the same time; in
`studies/aa.yaml` the same cell twice per block on the same processes, one after the other) is a comparison
with a true effect of zero. At 5 % the count of claims must be one that a rate of 5 % explains: outside the
0.5 % and 99.5 % quantiles of the binomial the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from scipy import stats

from _study import CHECKOUT, run_study

RATE = 0.05
AT_LEAST = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=CHECKOUT / "studies" / "aa-together.yaml")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ran = run_study(arguments.study, Path(scratch) / "study")
    claims = next(finding for finding in ran.findings if finding["id"] == "check/aa_claims")
    comparisons = claims["n"]
    false = round(claims["estimate"] * comparisons)
    low, high = stats.binom.ppf([0.005, 0.995], comparisons, RATE)
    good = low <= false <= high and comparisons >= AT_LEAST
    print(f"{ran.trials} trials in {ran.wall}")
    print(
        f"{false} of {comparisons} comparisons of a cell with itself claimed at {RATE:.0%};"
        f" a true rate of {RATE:.0%} gives {low:.0f} to {high:.0f}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
