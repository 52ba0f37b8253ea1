"""Right exchanges, altered at random: whatever a server answers, the instrument ends in time and adds up.

    python benchmarks/hostile_answers.py [--seconds 60] [--seed 1]

Half of the time single connections without a socket (tests/support/altered.py), half of it whole runs against
a server on loopback that alters its answers; HTTP/1.1, HTTP/2 and gRPC, connections kept or on demand.
Counted are exchanges and runs, and of these the ones with a traceback, a run that did not end, requests that
came to nothing or to two things, and neighbours of a failed answer that were not answered. These must be 0.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support.altered import KINDS, altering, exchange
from tests.support.hostile import hostile
from tests.support.loads import MS, load_spec, run_here

from meshwise.load.wire.seam import ErrorKind
from meshwise.study.model import Protocol

HANG_S = 60
"""A run lasts half a second; beyond this it hangs, and where is printed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    wrong: list[str] = []
    half = time.monotonic() + arguments.seconds / 2
    errors: Counter[str] = Counter()
    exchanges = broke = 0
    while time.monotonic() < half:
        kind = KINDS[exchanges % len(KINDS)]
        seed = arguments.seed * 10**9 + exchanges
        exchanges += 1
        try:
            found = exchange(kind, seed)
        except Exception:  # noqa: BLE001 - which is what is looked for
            wrong.append(f"exchange {kind} {seed}: {traceback.format_exc()}")
            continue
        errors.update(error.label or "good" for error in found.errors)
        broke += found.broke
        if found.wrong:
            wrong.append(f"exchange {kind} {seed}: {found.wrong}")
    print(f"{exchanges:,} exchanges, {broke:,} connections broken, answers: {dict(errors.most_common())}")
    end = time.monotonic() + arguments.seconds / 2
    runs = requests = 0
    errors.clear()
    while time.monotonic() < end:
        kind, seed = KINDS[runs % len(KINDS)], arguments.seed * 10**6 + runs
        runs += 1
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        try:
            of_run = _run(kind, seed)
        except Exception:  # noqa: BLE001 - which is what is looked for
            wrong.append(f"run {kind} {seed}: {traceback.format_exc()}")
            continue
        finally:
            faulthandler.cancel_dump_traceback_later()
        errors.update(of_run)
        requests += sum(of_run.values())
        if of_run["nothing"]:
            wrong.append(f"run {kind} {seed}: {of_run['nothing']} requests came to nothing")
    print(f"{runs:,} runs, {requests:,} requests: {dict(errors.most_common())}")
    for each in wrong:
        print(each)
    print(f"{len(wrong)} of them wrong")
    return 1 if wrong else 0


def _run(kind: str, seed: int) -> Counter[str]:
    """What the requests of one run came to; `nothing`: neither an answer nor an error."""
    changes = {"rate_rps": 400, "duration_ns": 250 * MS, "timeout_ns": 250 * MS, "path": "/p.S/M"}
    changes |= {"method": "POST" if kind == "grpc" else "GET", "connections": 3}
    changes |= {"streams": 1 if kind == "http1" else 1 + seed % 4, "requests_per_connection": seed // 3 % 3}
    with hostile(altering(kind, seed)) as port, tempfile.TemporaryDirectory() as directory:
        ran = run_here(load_spec(port, Protocol(kind), **changes), Path(directory))
    came: Counter[str] = Counter()
    for error, done_ns in zip(ran.errors(), ran.table["done_ns"].to_pylist(), strict=True):
        came[error or ("good" if done_ns is not None else "nothing")] += 1
    assert set(came) <= {"good", "nothing", *(kind.label for kind in ErrorKind)}
    return came


if __name__ == "__main__":
    sys.exit(main())
