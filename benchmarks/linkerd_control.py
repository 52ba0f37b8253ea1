"""Linkerd's proxies on meshwise's control plane: start, posture change with proof, and what it costs.

    MESHWISE_LINKERD_PROXY=... python benchmarks/linkerd_control.py [--rounds 3] [--json]

Figures: pods, proxies and control plane up, every proxy certified and ready, in under 2 s; posture change
with its proof under 1 s (median); control plane and relays under 2 % of one core while requests flow. Each
round is a world of its own; intervals are over rounds. Exit status 1 when a figure is missed, 3 without a
proxy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from meshwise.mesh.binaries.store import locate

CHECKOUT = Path(__file__).resolve().parent.parent
LIMITS = {"start_s": 2.0, "change_s": 1.0, "control_cpu_share": 0.02}
WORDS = {
    "start_s": "start until every proxy is certified and ready, s",
    "change_s": "posture change with proof, median, s",
    "control_cpu_share": "CPU of control plane and relays, share of a core",
}


def scene(name: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.support.linkerd_world", name]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=180, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def one_round() -> dict[str, float]:
    """Raises when a posture was not proven."""
    started, *changes = scene("postures")
    if not all(change["passed"] for change in changes):
        raise RuntimeError(f"a posture was not proven: {changes}")
    (idle,) = scene("idle_cost")
    return {
        "start_s": started["started_s"],
        "change_s": float(np.median([change["apply_ms"] + change["prove_ms"] for change in changes])) / 1e3,
        "control_cpu_share": idle["cpu_share"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if locate("linkerd", os.environ) is None:
        print("no linkerd2-proxy here: `meshwise proxies pull linkerd@latest-known`")
        return 3
    rounds = [one_round() for _ in range(arguments.rounds)]
    if arguments.json:
        print(json.dumps(rounds))
    good = True
    for name, limit in LIMITS.items():
        values = np.array([each[name] for each in rounds])
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
        reached = bool(values.mean() < limit)
        good = good and reached
        if not arguments.json:
            verdict = "reached" if reached else "MISSED"
            print(f"{WORDS[name]}: {values.mean():.4g} +- {half:.2g}, under {limit:g}: {verdict}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
