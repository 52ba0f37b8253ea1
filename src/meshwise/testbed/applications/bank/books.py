"""What the bank's clients ask in a trial, and the judgement of the books after it.

Rules of this file:
- All trials of a block ask the same, in the same order (common random numbers); only the idempotency keys
  are a trial's own.
- A client that did not learn what became of its transfer returns: after the measured window it asks
  again with the same key, by the same way, until it knows or has asked three times. What it still does not
  know is kept as unknown, never counted as failed or done.
- A refusal of the bank (an overdraft, a saga undone because its payee takes no notifications) is an answer,
  not an error.
- A violation is never explained away: it flags the trial, and the exit status says it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from meshwise.archive.outcome import Check, Measurement
from meshwise.findings.flag import BOOKS_VIOLATED
from meshwise.load.intended import intended_times
from meshwise.load.script import ScriptLine, write_script
from meshwise.load.spec import LoadSpec
from meshwise.load.wire.seam import GRPC_STATUS_BASE
from meshwise.service.bank import calls, invariants, schema
from meshwise.service.bank.invariants import BooksVerdict, ClientAnswer
from meshwise.service.bank.mix import BankRequest, Mix, draw
from meshwise.service.bank.spec import BankService
from meshwise.study.bank import BankOperation
from meshwise.study.model import Arrivals, Protocol

ACCOUNTS, BALANCE, ALLOWANCE = 1000, 1_000_000, 1_000_000
ROUNDS = 3
"""How often a client comes back for what it does not know."""
_CLOSED_RPS = 3000
"""More than the bank can answer: how many requests a closed loop may need."""
_SPARE_SD = 8
"""Of a number of Poisson arrivals: two schedules of the same rate differ by less."""
_FAILED_PRECONDITION = calls.TO_GRPC[calls.REFUSED].value[0]

AskAgain = Callable[[Sequence[BankRequest]], Sequence[int]]
"""Sends these once more and gives a status each; 0: none."""


def asked_by(spec: LoadSpec, weights: Mapping[BankOperation, float], run: str) -> list[BankRequest]:
    """The requests of one client: one for each time of its schedule, and of some more. In a round it has its
    share of a schedule that is dealt, which is another number where arrivals are drawn."""
    if spec.arrivals is Arrivals.CLOSED:
        span_ns = spec.warmup_ns + spec.duration_ns
        count = int(span_ns / 1e9 * _CLOSED_RPS) + 1
    else:
        own = int(intended_times(spec).size)
        count = own + round(_SPARE_SD * own**0.5)
    return draw(Mix(weights, ACCOUNTS), max(count, 1), spec.seed, run)


def scripted(spec: LoadSpec, requests: Sequence[BankRequest], path: Path) -> LoadSpec:
    """The spec of a load that sends these requests to the edge; writes the script to `path`."""
    write_script(path, (_line(spec.protocol, request) for request in requests))
    headers = spec.headers
    if spec.protocol is not Protocol.GRPC:
        headers = (*headers, ("content-type", "application/json"))
    return replace(spec, method="POST", headers=headers, script=str(path))


def _line(protocol: Protocol, request: BankRequest) -> ScriptLine:
    path = calls.path_in(protocol, BankService.EDGE, request.operation)
    return ScriptLine(path, calls.encode(request.body()).decode())


def status_of(recorded: int) -> int:
    """A status of the requests table as HTTP's: 200, 422 (refused by the bank), or 0, as all others tell
    nothing for sure."""
    if recorded in (calls.OK, GRPC_STATUS_BASE):
        return calls.OK
    if recorded in (calls.REFUSED, GRPC_STATUS_BASE + _FAILED_PRECONDITION):
        return calls.REFUSED
    return 0


@dataclass(frozen=True)
class Asked:
    """What the clients of one trial asked, by client."""

    requests: Mapping[str, Sequence[BankRequest]]

    def labelled(self, client: str, table: pa.Table) -> pa.Table:
        """A client's records, row k of which is its request k, with the columns `operation` and `request`."""
        asked = self.requests[client]
        names = list(BankOperation)
        codes = np.array(
            [names.index(asked[k % len(asked)].operation) for k in range(table.num_rows)], np.int8
        )
        operation = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([str(name) for name in names]))
        numbers = pa.array(np.arange(table.num_rows, dtype=np.int64))
        return table.append_column("operation", operation).append_column("request", numbers)


def refusals_are_answers(table: pa.Table) -> pa.Table:
    """The requests table without an error where the bank refused to move money."""
    moves = pc.is_in(
        table["operation"].cast(pa.string()), pa.array([o for o in BankOperation if o.moves_money])
    )
    refused = pc.is_in(
        table["status"].cast(pa.int64()),
        pa.array([calls.REFUSED, GRPC_STATUS_BASE + _FAILED_PRECONDITION], pa.int64()),
    )
    error = pc.if_else(pc.and_(moves, refused), "", table["error"].cast(pa.string())).dictionary_encode()
    return table.set_column(table.schema.get_field_index("error"), "error", error)


def judged(
    measurement: Measurement, asked: Asked, url: str, ask_again: AskAgain, settle_s: float
) -> Measurement:
    """The measurement with its checks, and a flag if the books do not agree. `url`: of the database."""
    requests = refusals_are_answers(measurement.requests)
    measurement = replace(measurement, requests=requests)
    if measurement.failure:
        return measurement  # its processes can no longer be trusted, and will be started anew
    statuses = _statuses(requests, asked)
    repeated = _come_back(statuses, ask_again)
    answers = [ClientAnswer(request, status) for request, status in statuses.values()]
    try:
        settled, verdict = asyncio.run(_verdict(url, answers, settle_s))
    except schema.ERRORS as error:
        return replace(measurement, failure=f"the books could not be read: {type(error).__name__}: {error}")
    checks = checks_of(settled, verdict, repeated, settle_s)
    wrong = [check for check in checks if not check.passed]
    flags = tuple(str(BOOKS_VIOLATED(words=f"{check.name}: {check.observed}")) for check in wrong)
    return replace(measurement, checks=checks, flags=(*measurement.flags, *flags))


def _statuses(requests: pa.Table, asked: Asked) -> dict[str, tuple[BankRequest, int]]:
    """By key: every request that moves money and was sent, with what its client was told."""
    columns = ("client", "request", "status")
    sent = requests.filter(pc.is_valid(requests["sent_ns"])).select(columns)
    found: dict[str, tuple[BankRequest, int]] = {}
    for client, number, status in zip(*(sent[name].to_pylist() for name in columns), strict=True):
        request = asked.requests[client][number % len(asked.requests[client])]
        if request.operation.moves_money:
            found[request.key] = (request, status_of(status))
    return found


def _come_back(statuses: dict[str, tuple[BankRequest, int]], ask_again: AskAgain) -> int:
    """Ask again for what is not known; how many requests that were. `statuses` takes what is learnt."""
    repeated = 0
    for _ in range(ROUNDS):
        unknown = [request for request, status in statuses.values() if not status]
        if not unknown:
            break
        repeated += len(unknown)
        for request, status in zip(unknown, ask_again(unknown), strict=True):
            statuses[request.key] = (request, status_of(status))
    return repeated


async def _verdict(url: str, answers: Sequence[ClientAnswer], settle_s: float) -> tuple[bool, BooksVerdict]:
    settled = await invariants.settled(url, settle_s)
    return settled, invariants.judge(await invariants.read_books(url), answers, BALANCE, ALLOWANCE)


def checks_of(settled: bool, verdict: BooksVerdict, repeated: int, settle_s: float) -> tuple[Check, ...]:
    """What the archive keeps of a judgement."""
    seen = (
        f"{verdict.acknowledged} acknowledged, {verdict.unknown} unknown, {repeated} asked again; "
        f"{verdict.moved} moved, {verdict.compensated} undone"
    )
    if verdict.violations:
        more = len(verdict.violations) - 1
        seen = f"{verdict.violations[0]}{f' (and {more} more)' if more else ''}; {seen}"
    return (
        Check("every saga ends", f"within {settle_s:g} s", "ended" if settled else "not ended", settled),
        Check(
            "the books agree with themselves and with what clients were told",
            "no violation", seen, not verdict.violations,
        ),
    )  # fmt: skip
