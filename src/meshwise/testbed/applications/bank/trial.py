"""One trial with the bank: its clients' requests, and those of clients that come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from meshwise.core.modes import make_directory
from meshwise.core.patience import USUAL, Patience
from meshwise.load.spec import LoadSpec
from meshwise.service.bank.mix import BankRequest
from meshwise.study.bank import BankOperation
from meshwise.study.model import Arrivals
from meshwise.testbed.applications.bank import books
from meshwise.testbed.applications.seam import Send
from meshwise.testbed.seam import Measurement

AGAIN_GAP_NS = 10_000_000
"""Clients that come back do so one after the other, 100 in a second."""
AGAIN_CALLS = 2
"""Calls of one service to another after which a client that came back gives up."""


@dataclass
class BankTrial:
    """`directory` takes the scripts."""

    run: str
    """Prefix of the idempotency keys: the trial's id."""
    weights: Mapping[BankOperation, float]
    directory: Path
    patience: Patience = USUAL
    _asked: dict[str, Sequence[BankRequest]] = field(default_factory=dict)

    def scripted(self, client: str, spec: LoadSpec) -> LoadSpec:
        """The load of one client, which asks the bank."""
        requests = books.asked_by(spec, self.weights, f"{self.run}-{client}")
        self._asked[client] = requests
        make_directory(self.directory)
        return books.scripted(spec, requests, self.directory / f"{client}.script")

    def labelled(self, client: str, table: pa.Table) -> pa.Table:
        return books.Asked(self._asked).labelled(client, table)

    def judged(self, measurement: Measurement, url: str, spec: LoadSpec, send: Send) -> Measurement:
        """`spec`: of the client inside the mesh, as which every client comes back."""
        rounds = 0

        def ask_again(requests: Sequence[BankRequest]) -> Sequence[int]:
            nonlocal rounds
            rounds += 1
            return once_more(requests, spec, self.directory / f"again-{rounds}", send, self.patience)

        return books.judged(measurement, books.Asked(self._asked), url, ask_again, self.patience.books_s)


def once_more(
    requests: Sequence[BankRequest], spec: LoadSpec, directory: Path, send: Send, patience: Patience
) -> Sequence[int]:
    """Send these, evenly spaced, and give a status each; zeros if the instrument does not get through."""
    make_directory(directory)
    again = replace(
        books.scripted(replace(spec, script=None), requests, directory / "script"),
        headers=spec.headers,
        arrivals=Arrivals.CONSTANT,
        rate_rps=1e9 / AGAIN_GAP_NS,
        warmup_ns=0,
        duration_ns=AGAIN_GAP_NS * len(requests),
        timeout_ns=round(AGAIN_CALLS * patience.call_s * 1e9),
        shape=None,
        trace=None,
        think=None,
        traced_share=0.0,
    )
    statuses = [int(status) for status in send(again, directory / "out")["status"].to_pylist()]
    return (statuses + [0] * len(requests))[: len(requests)]
