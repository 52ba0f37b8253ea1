"""CPU per request of the instrument of two checkouts, in turn against one server, in one run.

    python benchmarks/load_pairs.py BEFORE AFTER [--rounds 8] [--seconds 1]

BEFORE and AFTER are directories of checkouts; each runs with the Python that runs this. Which comes first
alternates. Ratios are paired within the round, so other work on the machine meets both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import _load as lab

ONE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import _load as lab
from meshwise.study.model import Protocol
port, protocol, seconds = int(sys.argv[2]), Protocol(sys.argv[3]), float(sys.argv[4])
load = lab.spec(port, protocol, seconds, **json.loads(sys.argv[5]))
print(lab.instrument(load).cpu_us_per_request)
"""
CASES = {
    "http1 closed 16": ("http1", {"connections": 16}),
    "http2 closed 4x8": ("http2", {"connections": 4, "streams": 8}),
    "http1 2000/s": ("http1", {"connections": 16, "rate_rps": 2000.0}),
    "http1 closed, a connection each": ("http1", {"connections": 16, "requests_per_connection": 1}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--case", choices=CASES, action="append", help="all, unless some are named")
    arguments = parser.parse_args()
    cases = arguments.case or list(CASES)
    sides = (arguments.before, arguments.after)
    found: dict[tuple[str, Path], list[float]] = defaultdict(list)
    with lab.nginx() as ports:
        for number in range(arguments.rounds):
            for name in cases:
                protocol, changes = CASES[name]
                for side in sides if number % 2 else reversed(sides):
                    run = (
                        str(getattr(ports, protocol)),
                        protocol,
                        str(arguments.seconds),
                        json.dumps(changes),
                    )
                    found[name, side].append(_cpu_us(side, *run))
    print(f"CPU per request, after / before; {arguments.rounds} rounds, 95 % intervals\n")
    for name in cases:
        before, after = (found[name, side] for side in sides)
        mean, low, high = lab.ratio(after, before)
        print(f"  {name:32} {mean:5.3f} [{low:.3f}, {high:.3f}]   before {sum(before) / len(before):6.2f} us")
    return 0


def _cpu_us(side: Path, *run: str) -> float:
    argv = [sys.executable, "-c", ONE, str(side / "benchmarks"), *run]
    environment = {**os.environ, "PYTHONPATH": str(side / "src")}
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(ended.stderr)
    return float(ended.stdout)


if __name__ == "__main__":
    sys.exit(main())
