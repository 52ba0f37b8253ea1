"""A replayed trace against the server's own record: is every request there when the trace says?

    python benchmarks/load_replay.py [--rounds 3] [--seconds 20]

The trace is irregular: a Markov-modulated Poisson process of 1000/s on average that moves between 250/s and
4000/s. It goes the way of a study: written as CSV, read, compiled, mapped, sent. The server notes when its
kernel had each request (tests/support/truth_server.py); the k-th that came is held against the k-th that was
meant to be sent. Every one has to be there within 1 ms.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.truth_server import read_record, truth_server  # noqa: E402

import _load as lab  # noqa: E402
from meshwise.load.intended import intended_times  # noqa: E402
from meshwise.load.launch import running_load  # noqa: E402
from meshwise.load.schedule import shaped_times_ns  # noqa: E402
from meshwise.load.trace import write_trace  # noqa: E402
from meshwise.study.load.profile import LoadProfile, Markov, TraceFile  # noqa: E402
from meshwise.study.load.trace import read_trace  # noqa: E402
from meshwise.study.model import Arrivals, Protocol  # noqa: E402

RATE, MOST_NS = 1000.0, 1_000_000
STATES = LoadProfile(markov=Markov((0.25, 4.0), (400_000_000, 100_000_000), seed=1))
"""Four fifths of the time at 250/s, one fifth at 4000/s: 1000/s."""
CONNECTIONS = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20)
    arguments = parser.parse_args()
    print(f"a trace replayed, {arguments.rounds} rounds of {arguments.seconds} s; arrival - intended in us\n")
    good = True
    with tempfile.TemporaryDirectory() as name:
        for number in range(arguments.rounds):
            deviations = replay(Path(name), number, arguments.seconds)
            good &= told(number, deviations, arguments.seconds)
    print(f"\nevery request within {MOST_NS / 1e6:g} ms: {'reached' if good else 'MISSED'}")
    return 0 if good else 1


def replay(directory: Path, number: int, seconds: int) -> npt.NDArray[np.int64]:
    """Arrival minus intended time of every request of one run, in ns."""
    duration_ns = seconds * 10**9
    csv, compiled, record = directory / "trace.csv", directory / "trace", directory / "record.npy"
    times = shaped_times_ns(Arrivals.POISSON, RATE, STATES, 0, duration_ns, number)
    csv.write_text("time_s\n" + "".join(f"{t / 1e9:.9f}\n" for t in times))
    found = read_trace(csv, duration_ns)
    write_trace(TraceFile(csv.name, str(csv), found.sha256), duration_ns, compiled)
    with truth_server("--poll", "--record", str(record)) as server:
        os.sched_setaffinity(server.pid, {lab.SERVER_CPU})
        load = lab.spec(
            server.port,
            Protocol.HTTP1,
            seconds,
            rate_rps=found.rate_rps,
            trace=str(compiled),
            connections=CONNECTIONS,
        )
        with running_load(load) as running:
            running.process.wait(seconds + 60)
            if errors := running.report().errors:
                sys.exit(f"the instrument met errors: {errors}")
            start_ns = running.start_ns
    received = np.sort(read_record(record)[:, 0])
    intended = intended_times(load) + start_ns
    if received.size != intended.size:
        sys.exit(f"{intended.size} requests were intended and {received.size} came")
    return received - intended


def told(number: int, deviations: npt.NDArray[np.int64], seconds: int) -> bool:
    """Prints one round; whether all of it is within the limit."""
    size = np.abs(deviations)
    p50, p99, p9999 = (np.quantile(size, p) / 1e3 for p in (0.5, 0.99, 0.9999))
    within = int(np.count_nonzero(size <= MOST_NS))
    print(
        f"  round {number + 1}: {size.size / seconds:6.0f}/s  P50 {p50:6.1f}  P99 {p99:6.1f}"
        f"  P99.99 {p9999:7.1f}  max {size.max() / 1e3:7.1f}"
        f"  within 1 ms {within / size.size:.4%} ({size.size - within} are not)"
    )
    return within == size.size


if __name__ == "__main__":
    sys.exit(main())
