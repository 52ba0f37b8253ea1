"""What a study can resolve on this machine: the quickstart, run once.

    python benchmarks/study_resolution.py [--study studies/quickstart.yaml] [--keep DIR]

Figures: the half-width of the 95 % interval of every step of the ladder on HTTP/1.1 at most 1.5 % of P50
and 1 % of CPU per request, both relative to the rung that is stepped to. The first step, from no mesh, is a
level rather than a ratio (no mesh has no sidecar CPU) and is shown beside. Exit status 1 when a figure is
missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from _study import CHECKOUT, run_study

LIMITS = {"response_p50_us": 0.015, "cpu_us_per_request": 0.01}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=CHECKOUT / "studies" / "quickstart.yaml")
    parser.add_argument("--keep", type=Path, help="keep the archive here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ran = run_study(arguments.study, arguments.keep or Path(scratch) / "study")
    print(f"{ran.trials} trials in {ran.wall}; {ran.measured_share:.0%} of it in warm-up or measurement")
    good = True
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
            if scope["protocol"] != "http1" or level is None or step["low"] is None:
                continue
            share = (step["high"] - step["low"]) / 2 / level
            if scope["from"] != "none":
                shares.append(share)
            print(
                f"  {metric:20} {scope['mesh']:8} {scope['from']:>16} -> {scope['to']:16}"
                f" {step['estimate']:+8.1f} +- {(step['high'] - step['low']) / 2:6.1f} us = {share:.1%}"
            )
        worst, median = max(shares), float(np.median(shares))
        print(f"{metric}: half-width / level: median {median:.1%}, worst {worst:.1%} (target {limit:.1%})")
        good = good and worst <= limit
    return 0 if good else 1


def _place(finding: dict[str, object]) -> tuple[object, ...]:
    scope = finding["scope"]
    assert isinstance(scope, dict)
    return scope.get("mesh"), scope.get("posture"), scope.get("protocol")


if __name__ == "__main__":
    sys.exit(main())
