"""The bank on loopback, without a mesh: what it carries, where the CPU goes, and whether the books agree.

    python benchmarks/bank_load.py [--protocol http1|http2|grpc] [--operation transfer|mix] [--rate 60]
                                   [--seconds 10] [--kill-every S] [--json]

Open loop, Poisson. CPU is of each process, from the kernel's process CPU clock, between the start and the
end of the load, divided by the requests whose outcome is known; `client` is this process. With --kill-every
a service is killed (SIGKILL) and started again so often, in turn; its CPU figures then begin anew and are
left out. Target: no violation. What a mesh adds comes from a study, in pods, and not from here.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meshwise.service.bank import calls, driver, invariants, loopback
from meshwise.service.bank.driver import UNKNOWN, CompletedRequest, Drive
from meshwise.service.bank.invariants import ClientAnswer
from meshwise.service.bank.loopback import LoopbackBank
from meshwise.service.bank.mix import BankOperation, Mix
from meshwise.service.bank.spec import BankService
from meshwise.stats.quantile import quantile
from meshwise.study.model import Protocol
from meshwise.telemetry.process import cpu_ns


def cpu_of(bank: LoopbackBank) -> dict[str, int]:
    """CPU so far, in ns, by process; PostgreSQL is the postmaster with the children that live."""
    master = bank.postgres.process.pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return {
        **{str(service): cpu_ns(bank.pid(service)) for service in BankService},
        "postgres": sum(cpu_ns(int(pid)) for pid in (master, *children)),
        "redis": cpu_ns(bank.redis.process.pid),
        "client": time.process_time_ns(),
    }


async def accidents(bank: LoopbackBank, every_s: float) -> None:
    for service in itertools.cycle(BankService):
        await asyncio.sleep(every_s)
        bank.kill(service)
        bank.start(service)


async def load(
    bank: LoopbackBank, clients: Drive, log: Path, kill_every_s: float | None
) -> list[CompletedRequest]:
    killing = asyncio.create_task(accidents(bank, kill_every_s)) if kill_every_s else None
    try:
        return await driver.drive(clients, log)
    finally:
        if killing:
            killing.cancel()


@dataclasses.dataclass(frozen=True)
class Summary:
    """Per operation. Latencies in ms, of those whose outcome is known; nan without any."""

    operation: BankOperation
    count: int
    ok: int
    refused: int
    unknown: int
    other: int
    repeated: int
    """Requests that needed more than one attempt."""
    p50_ms: float
    p99_ms: float


def summarize(results: Sequence[CompletedRequest]) -> list[Summary]:
    """One line per operation that was asked for."""
    lines = []
    for operation in BankOperation:
        of = [done for done in results if done.request.operation is operation]
        if not of:
            continue
        latencies = np.sort([(done.done_ns - done.intended_ns) / 1e6 for done in of if done.known])
        count = {
            status: sum(done.status == status for done in of) for status in (calls.OK, calls.REFUSED, UNKNOWN)
        }
        lines.append(
            Summary(
                operation,
                len(of),
                ok=count[calls.OK],
                refused=count[calls.REFUSED],
                unknown=count[UNKNOWN],
                other=len(of) - sum(count.values()),
                repeated=sum(done.attempts > 1 for done in of),
                p50_ms=quantile(latencies, 0.5),
                p99_ms=quantile(latencies, 0.99),
            )
        )
    return lines


def measure(options: argparse.Namespace) -> dict[str, object]:
    protocol = Protocol(options.protocol)
    mix = Mix() if options.operation == "mix" else Mix({BankOperation(options.operation): 1.0})
    with tempfile.TemporaryDirectory() as scratch, loopback.running(Path(scratch), protocol) as bank:
        log = Path(scratch) / "told.jsonl"

        def clients(seconds: float, seed: int, run: str) -> Drive:
            return Drive(bank.edge, protocol, mix, options.rate, int(seconds * 1e9), seed, run)

        warm = asyncio.run(load(bank, clients(2.0, 1, "warm"), log, None))
        before, start = cpu_of(bank), time.monotonic()
        results = asyncio.run(load(bank, clients(options.seconds, 2, "run"), log, options.kill_every))
        elapsed_s = time.monotonic() - start
        after = cpu_of(bank)
        bank.wait_ready()
        settled = asyncio.run(invariants.settled(bank.postgres.url, 30))
        books = asyncio.run(invariants.read_books(bank.postgres.url))
        answers = [ClientAnswer(done.request, done.status) for done in (*warm, *results)]
        verdict = invariants.judge(books, answers, bank.balance, bank.allowance)
        known = sum(done.known for done in results)
        used = {} if options.kill_every else {name: after[name] - before[name] for name in after}
        return {
            "protocol": protocol,
            "stores": [bank.postgres.build, bank.redis.build],
            "known_per_s": known / elapsed_s,
            "operations": [dataclasses.asdict(line) for line in summarize(results)],
            "cpu_us_per_request": {name: ns / 1e3 / max(known, 1) for name, ns in used.items()},
            "cpus_busy": sum(used.values()) / 1e9 / elapsed_s,
            "settled": settled,
            "verdict": dataclasses.asdict(verdict),
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", choices=("http1", "http2", "grpc"), default="http1")
    parser.add_argument("--operation", choices=(*BankOperation, "mix"), default="transfer")
    parser.add_argument("--rate", type=float, default=60.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--kill-every", type=float)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")
    verdict = result["verdict"]
    assert isinstance(verdict, dict)
    return 1 if verdict["violations"] or not result["settled"] else 0


if __name__ == "__main__":
    sys.exit(main())
