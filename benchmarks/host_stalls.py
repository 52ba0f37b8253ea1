"""How long does this machine stand still? A loop that only reads the clock, on both CPUs at once.

    python benchmarks/host_stalls.py [--seconds 10]

Whatever keeps it from its next reading (the hypervisor, an interrupt, another process) would have kept a
request as well: no load generator on this machine can promise a tail that is shorter than these stalls. It is
a fact about the machine and has no target; `load_truth.py` and `load_replay.py` are read beside it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import _load as lab

LIMITS_US = (20, 100, 1000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--spin", action="store_true", help="be one of the two loops")
    arguments = parser.parse_args()
    if arguments.spin:
        print(watched(arguments.seconds))
        return 0
    words = (sys.executable, __file__, "--spin", "--seconds", str(arguments.seconds))
    loops = {
        cpu: subprocess.Popen(["taskset", "-c", str(cpu), *words], stdout=subprocess.PIPE, text=True)
        for cpu in (lab.SERVER_CPU, lab.CLIENT_CPU)
    }
    for cpu, loop in loops.items():
        said, _ = loop.communicate()
        print(f"CPU {cpu}: {said.strip()}")
    return 0


def watched(seconds: float) -> str:
    """What a loop that only reads the clock saw."""
    clock = time.monotonic_ns
    gaps: list[int] = []
    last = begun = clock()
    end = begun + int(seconds * 1e9)
    while last < end:
        now = clock()
        if now - last > LIMITS_US[0] * 1000:
            gaps.append(now - last)
        last = now
    counts = ", ".join(
        f"over {limit} us {sum(gap > limit * 1000 for gap in gaps) / seconds:.1f}/s" for limit in LIMITS_US
    )
    longest = max(gaps, default=0) / 1e3
    return f"stalls {counts}; longest {longest:.0f} us; {sum(gaps) / (last - begun):.2%} of the time lost"


if __name__ == "__main__":
    sys.exit(main())
