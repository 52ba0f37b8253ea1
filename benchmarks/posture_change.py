"""A posture change on running Envoy sidecars with its proof: median under 1 s.

    python benchmarks/posture_change.py [--rounds 5] [--policies 1000] [--json]

Each round is a world of its own (client, server, outsider; fresh proxies) that climbs the ladder four times;
the interval (95 %, Student's t) is over the medians of the rounds, because changes of one round share their
processes. With --policies each round goes to and fro between the two rungs with authorization instead, at
so many entries before the one that matches. Exit status 1 when the median is not under the figure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats

CHECKOUT = Path(__file__).resolve().parent.parent
LIMIT_S = 1.0


def one_round(policies: int) -> list[tuple[float, float]]:
    """(apply, proof) in seconds of every change. Raises when one was not proven."""
    command = [sys.executable, "-m", "tests.support.mesh_world", "speed", *([str(policies)] * bool(policies))]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=True)
    changes = [json.loads(line) for line in done.stdout.splitlines()]
    if not all(change["passed"] for change in changes):
        raise RuntimeError(f"a posture was not proven: {changes}")
    return [(change["apply_s"], change["prove_s"]) for change in changes]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--policies", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rounds = [np.array(one_round(arguments.policies)) for _ in range(arguments.rounds)]
    medians = np.array([np.median(changes.sum(axis=1)) for changes in rounds])
    half = (
        float(stats.t.ppf(0.975, len(medians) - 1) * stats.sem(medians)) if len(medians) > 1 else float("nan")
    )
    every = np.concatenate(rounds)
    result = {
        "changes": len(every),
        "median_s": float(medians.mean()),
        "half_width_s": half,
        "apply_median_s": float(np.median(every[:, 0])),
        "prove_median_s": float(np.median(every[:, 1])),
        "worst_s": float(every.sum(axis=1).max()),
        "policies": arguments.policies,
        "limit_s": LIMIT_S,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"posture change with proof, {arguments.policies} policy entries: median "
            f"{result['median_s'] * 1e3:.0f} ms [{(result['median_s'] - half) * 1e3:.0f}, "
            f"{(result['median_s'] + half) * 1e3:.0f}] "
            f"(apply {result['apply_median_s'] * 1e3:.0f}, proof {result['prove_median_s'] * 1e3:.0f}), "
            f"worst {result['worst_s'] * 1e3:.0f} ms, of {len(every)} changes in {len(rounds)} rounds; "
            f"figure: under {LIMIT_S * 1e3:.0f} ms, {'reached' if result['median_s'] < LIMIT_S else 'MISSED'}"
        )
    return 0 if result["median_s"] < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
