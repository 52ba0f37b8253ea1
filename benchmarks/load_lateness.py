"""How late the instrument sends: 1000/s against nginx, each side on a CPU of its own.

    python benchmarks/load_lateness.py [--rounds 5] [--seconds 3]

Lateness = sent - intended, of requests that found a free slot. On an otherwise idle machine: median at
most 30 us, P99 at most 300 us. Beside it: what `--spin` buys and costs, and the highest rate per core.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import _load as lab
from meshwise.study.model import Protocol

MEDIAN_US, P99_US = 30.0, 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    arguments = parser.parse_args()
    good = True
    with lab.nginx() as ports:
        print(f"lateness in us, {arguments.rounds} rounds of {arguments.seconds} s: median [range]\n")
        for spin_us in (0, 50, 100):
            load = lab.spec(
                ports.http1, Protocol.HTTP1, arguments.seconds, rate_rps=1000.0, spin_ns=1000 * spin_us
            )
            reports = [lab.instrument(load) for _ in range(arguments.rounds)]
            p50, p99 = ([getattr(r.lateness_us, name) for r in reports] for name in ("p50", "p99"))
            shares = [report.cpu_share for report in reports]
            line = f"  1000/s, spin {spin_us:3} us: P50 {_range(p50)}  P99 {_range(p99)}"
            line += f"  {np.median(shares):.1%} of a core"
            if not spin_us:
                good = fits = bool(np.median(p50) <= MEDIAN_US and np.median(p99) <= P99_US)
                line += f"   (at most {MEDIAN_US:g} and {P99_US:g}: {'reached' if fits else 'MISSED'})"
            print(line)
        print("\nhighest rate on one core, closed loop")
        for name, port, protocol, connections, streams in (
            ("http1 16", ports.http1, Protocol.HTTP1, 16, 1),
            ("http2 4x8", ports.http2, Protocol.HTTP2, 4, 8),
            ("grpc 4x8", ports.grpc, Protocol.GRPC, 4, 8),
        ):
            load = lab.spec(port, protocol, arguments.seconds, connections=connections, streams=streams)
            report = lab.instrument(load)
            limit = f"{report.cpu_share:.0%} of the core, limited by {report.limited_by}"
            print(f"  {name:10} {report.rate_achieved:9,.0f}/s, {limit}")
    return 0 if good else 1


def _range(values: list[float]) -> str:
    return f"{np.median(values):6.1f} [{min(values):.1f}, {max(values):.1f}]"


if __name__ == "__main__":
    sys.exit(main())
