"""What a study can resolve on this machine, and how much of its time it measures: the quickstart, run once.

    python benchmarks/study_resolution.py [--study studies/quickstart.yaml] [--keep DIR]

Figures: at least 70 % of wall time inside warm-up or measurement; the half-width of the 95 % interval of the
ladder's steps at most 5 % of P50 and 3 % of CPU per request (both relative to the rung that is stepped to).
Exit status 1 when one is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from _study import CHECKOUT, run_study

LIMITS = {"response_p50_us": 0.05, "cpu_us_per_request": 0.03}
MEASURED_SHARE = 0.70


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=CHECKOUT / "studies" / "quickstart.yaml")
    parser.add_argument("--keep", type=Path, help="keep the archive here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ran = run_study(arguments.study, arguments.keep or Path(scratch) / "study")
    print(f"{ran.trials} trials in {ran.wall}; {ran.measured_share:.0%} of it in warm-up or measurement")
    good = ran.measured_share >= MEASURED_SHARE
    levels = {
        (finding["metric"], _place(finding)): finding["estimate"]
        for finding in ran.findings
        if finding["kind"] == "level"
    }
    for metric, limit in LIMITS.items():
        shares = []
        for step in (f for f in ran.findings if f["kind"] == "increment" and f["metric"] == metric):
            scope = step["scope"]
            level = levels.get((metric, _place({**step, "scope": {**scope, "posture": scope["to"]}})))
            if scope["from"] == "none" or level is None or step["low"] is None:
                continue
            shares.append((step["high"] - step["low"]) / 2 / level)
            print(
                f"  {metric:20} {scope['protocol']:6} {scope['from']:>16} -> {scope['to']:16}"
                f" {step['estimate']:+8.1f} +- {(step['high'] - step['low']) / 2:6.1f} us = {shares[-1]:.1%}"
            )
        worst, median = max(shares), float(np.median(shares))
        print(f"{metric}: half-width / level: median {median:.1%}, worst {worst:.1%} (target {limit:.0%})")
        good = good and median <= limit
    return 0 if good else 1


def _place(finding: dict[str, object]) -> tuple[object, ...]:
    scope = finding["scope"]
    assert isinstance(scope, dict)
    return scope.get("mesh"), scope.get("posture"), scope.get("protocol")


if __name__ == "__main__":
    sys.exit(main())
