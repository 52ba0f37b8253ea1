"""Counted instructions per request: equal windows agree within 0.2 %, executions within 0.3 %.

    python benchmarks/counted_windows.py [--mesh istio] [--executions 3] [--windows 4] [--requests 300]

Real sidecars under valgrind, before the client and before the server, at plaintext, mutual TLS, and mutual
TLS with ten rules on the server: some two minutes per execution on two idle CPUs. Idle windows are subtracted
by their length. Two figures per configuration and sidecar: how far the windows of an execution lie from
their own mean (A/A: 1.96 standard deviations, and the largest), and the 95 % half-width of the mean over
executions (Student's t). Exit status 1 when the largest half-width over executions is above 0.3 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

CHECKOUT = Path(__file__).resolve().parent.parent
LIMIT_PERCENT = 0.3
Floats = npt.NDArray[np.float64]


def one_execution(mesh: str, windows: int, requests: int) -> dict[tuple[str, str], dict[str, Floats]]:
    """By configuration and sidecar: instructions and system calls per request of each window."""
    command = [
        sys.executable,
        "-m",
        "tests.support.counted_world",
        "steps",
        mesh,
        str(windows),
        str(requests),
    ]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    rows: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for line in map(json.loads, done.stdout.splitlines()):
        rows[line["configuration"], line["pod"]].append(line)
    return {key: per_request(own) for key, own in rows.items()}


def per_request(rows: list[dict[str, float]]) -> dict[str, Floats]:
    idle = [row for row in rows if not row["requests"]]
    found = {}
    for metric in ("instructions", "system_calls"):
        rate = sum(row[metric] for row in idle) / sum(row["duration_s"] for row in idle)
        found[metric] = np.array(
            [(row[metric] - rate * row["duration_s"]) / row["requests"] for row in rows if row["requests"]]
        )
    return found


def summary(executions: list[dict[str, Floats]]) -> dict[str, float]:
    """In instructions, system calls, and per cent of the mean."""
    windows = [each["instructions"] for each in executions]
    means = np.array([own.mean() for own in windows])
    mean = float(means.mean())
    apart = np.concatenate([own - own.mean() for own in windows]) / mean * 100
    within = float(np.sqrt(np.mean([own.var(ddof=1) for own in windows]))) / mean * 100
    half = float(stats.t.ppf(0.975, len(means) - 1) * stats.sem(means)) if len(means) > 1 else float("nan")
    return {
        "instructions_per_request": mean,
        "half_width_percent": half / mean * 100,
        "window_largest_percent": float(np.abs(apart).max()),
        "window_95_percent": 1.96 * within,
        "system_calls_per_request": float(np.mean([each["system_calls"].mean() for each in executions])),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mesh", choices=("istio", "linkerd"), default="istio")
    parser.add_argument("--executions", type=int, default=3)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    begun = time.monotonic()
    found = [
        one_execution(arguments.mesh, arguments.windows, arguments.requests)
        for _ in range(arguments.executions)
    ]
    rows = {
        f"{configuration}, {pod}": summary([each[configuration, pod] for each in found])
        for configuration, pod in found[0]
    }
    took_s = time.monotonic() - begun
    if arguments.json:
        print(json.dumps({"mesh": arguments.mesh, "took_s": took_s, "rows": rows}, indent=2))
    else:
        for name, row in rows.items():
            print(
                f"{name:18} {row['instructions_per_request']:9.0f} ±{row['half_width_percent']:.2f} %   "
                f"windows {row['window_95_percent']:.2f} % (largest {row['window_largest_percent']:.2f} %)   "
                f"{row['system_calls_per_request']:.2f} system calls"
            )
        print(f"{arguments.executions} executions of {arguments.mesh} in {took_s:.0f} s")
    return int(max(row["half_width_percent"] for row in rows.values()) > LIMIT_PERCENT)


if __name__ == "__main__":
    sys.exit(main())
