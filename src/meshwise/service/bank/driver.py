"""The bank's clients: an open loop over the mix, which keeps what was acknowledged.

Rules of this file:
- A request has an intended time from the load room's schedule and is sent then, whatever became of earlier
  ones.
- A request that moves money is repeated with the same idempotency key until its outcome is known or its
  time is over; a read is asked once. What stays unknown is kept as unknown, never counted as failed or
  done.
- This is an application's client, in asyncio on a library: it tells outcomes per operation and counts, and
  its times contain its own cost. Latency to the microsecond is measured by the instrument (`meshwise.load`).
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from meshwise.load.schedule import arrival_times_ns
from meshwise.service.bank.calls import PeerClient, Unreachable
from meshwise.service.bank.mix import BankRequest, Mix, draw
from meshwise.service.bank.spec import BankService
from meshwise.study.model import Arrivals, Protocol

UNKNOWN = 0
"""Status of a request whose outcome the client never learnt."""
_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5


@dataclass(frozen=True)
class Drive:
    """One run of the clients."""

    edge: str
    """`host:port`"""
    protocol: Protocol
    mix: Mix
    rate_rps: float
    duration_ns: int
    seed: int
    run: str
    """Prefix of the idempotency keys; another for each run on one database."""
    arrivals: Arrivals = Arrivals.POISSON
    deadline_s: float = 5.0
    """Of one attempt."""
    patience_s: float = 30.0
    """How long a transfer is repeated."""
    outstanding: int = 2000
    """At most so many requests at once; one more is not sent and has the status 0 and no attempts."""


@dataclass(frozen=True)
class CompletedRequest:
    """What became of one request. Times in ns from the start of the run; latency counts from
    `intended_ns`."""

    request: BankRequest
    intended_ns: int
    done_ns: int
    status: int
    """200 done, 422 refused by the bank, 0 unknown."""
    attempts: int

    @property
    def known(self) -> bool:
        return self.status != UNKNOWN


async def drive(what: Drive, log: Path) -> list[CompletedRequest]:
    """Run the clients; the result is in the order of the requests. `log` takes one line of JSON for each
    outcome, at the moment it is known."""
    times = arrival_times_ns(what.arrivals, what.rate_rps, what.duration_ns, what.seed)
    requests = draw(what.mix, len(times), what.seed, what.run)
    gate = asyncio.Semaphore(what.outstanding)
    results: list[CompletedRequest | None] = [None] * len(requests)
    async with PeerClient(what.protocol, {BankService.EDGE: what.edge}, what.deadline_s) as caller:
        with log.open("a") as file:
            start_ns = time.monotonic_ns()
            async with asyncio.TaskGroup() as clients:
                for number, (intended, request) in enumerate(zip(times.tolist(), requests, strict=True)):
                    wait_s = (start_ns + intended - time.monotonic_ns()) / 1e9
                    await asyncio.sleep(max(wait_s, 0.0))
                    if gate.locked():
                        results[number] = CompletedRequest(request, intended, intended, UNKNOWN, 0)
                        continue
                    await gate.acquire()
                    clients.create_task(
                        _client(what, caller, request, number, intended, start_ns, results, gate, file)
                    )
    return [done for done in results if done is not None]


async def _client(
    what: Drive,
    caller: PeerClient,
    request: BankRequest,
    number: int,
    intended_ns: int,
    start_ns: int,
    results: list[CompletedRequest | None],
    gate: asyncio.Semaphore,
    file: IO[str],
) -> None:
    try:
        status, attempts = await _ask(what, caller, request)
    finally:
        gate.release()
    done = CompletedRequest(request, intended_ns, time.monotonic_ns() - start_ns, status, attempts)
    results[number] = done
    file.write(
        json.dumps({"operation": request.operation, **request.body(), "status": status, "attempts": attempts})
        + "\n"
    )


async def _ask(what: Drive, caller: PeerClient, request: BankRequest) -> tuple[int, int]:
    """The status, and after how many attempts."""
    until = time.monotonic() + what.patience_s
    attempts, pause_s = 0, _PAUSE_S
    while True:
        attempts += 1
        try:
            return (await caller.call(BankService.EDGE, request.operation, request.body())).status, attempts
        except Unreachable:
            if not request.operation.moves_money or time.monotonic() > until:
                return UNKNOWN, attempts
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
