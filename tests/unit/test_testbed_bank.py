"""The bank in a study, without a process: what its clients ask, how its books are judged, which way leads to
its stores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("asyncpg", reason="pip install 'meshwise[bank]'")
pytest.importorskip("aiohttp", reason="pip install 'meshwise[bank]'")

from tests.support.studies import cell, study, trial

from meshwise.archive.outcome import Measurement
from meshwise.findings.flag import BOOKS_VIOLATED
from meshwise.load.script import read_script
from meshwise.load.spec import LoadSpec
from meshwise.mesh.request import Headers
from meshwise.mesh.seam import Capture
from meshwise.service.bank.domain import Transfer, TransferOutcome
from meshwise.service.bank.invariants import Books
from meshwise.service.bank.mix import BankRequest
from meshwise.study.bank import BankOperation
from meshwise.study.model import Protocol, TopologyKind
from meshwise.testbed.applications.bank import books
from meshwise.testbed.applications.bank.ports import with_direct_way
from meshwise.testbed.applications.choose import has_bank
from meshwise.testbed.layout import lay_out
from meshwise.testbed.local.instrument import load_spec
from meshwise.testbed.local.nft import capture_chains

WEIGHTS = {BankOperation.TRANSFER: 2.0, BankOperation.PROFILE: 1.0}


def spec_of(tmp_path: Path, protocol: Protocol = Protocol.HTTP1, block: int = 0) -> LoadSpec:
    one = cell(protocol=protocol, shape=TopologyKind.BANK, request_bytes=0, response_bytes=0)
    question = study([one])
    environment = lay_out(question, tmp_path)[0]
    headers = Headers("POST", "/", (("x-tenant", "blue"),))
    return load_spec(question, trial(block, one), environment, headers, None)


def test_all_trials_of_a_block_ask_the_same_with_keys_of_their_own(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    first, second = (books.asked_by(spec, WEIGHTS, run) for run in ("b000-p00-mesh", "b000-p01-mesh"))
    assert [(r.operation, r.user, r.target, r.amount) for r in first] == [
        (r.operation, r.user, r.target, r.amount) for r in second
    ]
    keys = [request.key for request in (*first, *second) if request.key]
    assert len(keys) == len(set(keys)) > 100


@pytest.mark.parametrize("protocol", [Protocol.HTTP1, Protocol.HTTP2, Protocol.GRPC])
def test_a_script_asks_the_edge_for_each_request(tmp_path: Path, protocol: Protocol) -> None:
    spec = spec_of(tmp_path, protocol)
    asked = books.asked_by(spec, WEIGHTS, "t")
    made = books.scripted(spec, asked, tmp_path / "script")
    lines = read_script(tmp_path / "script")
    prefix = "/meshwise.bank.Edge/" if protocol is Protocol.GRPC else "/edge/"
    assert [line.path for line in lines] == [f"{prefix}{request.operation}" for request in asked]
    assert [json.loads(line.body) for line in lines] == [request.body() for request in asked]
    assert made.method == "POST"
    assert ("x-tenant", "blue") in made.headers


def transfer(number: int) -> BankRequest:
    return BankRequest(BankOperation.TRANSFER, 1, 2, 100 + number, f"t-mesh-{number}")


ASKED = books.Asked(
    {"mesh": [transfer(0), BankRequest(BankOperation.PROFILE, 7), transfer(1), transfer(2), transfer(3)]}
)


def records(*statuses: int, sent: Sequence[bool] = ()) -> pa.Table:
    table = pa.table(
        {
            "sent_ns": pa.array([1 if did else None for did in sent or [True] * len(statuses)], pa.int64()),
            "status": pa.array(statuses, pa.int32()),
            "error": pa.array(
                ["" if s in (200, 1000) else "http_status" for s in statuses]
            ).dictionary_encode(),
        }
    )
    return ASKED.labelled("mesh", table).append_column("client", pa.array(["mesh"] * len(statuses)))


def measured(table: pa.Table, failure: str = "") -> Measurement:
    return Measurement(table, pa.table({}), 0, {}, failure=failure)


def judged(
    monkeypatch: pytest.MonkeyPatch, found: Books, table: pa.Table, again: Sequence[Sequence[int]] = ()
) -> tuple[Measurement, list[list[str]]]:
    """With these books in the database, and these answers to clients that ask again."""
    asked: list[list[str]] = []

    async def settled(_url: str, _timeout_s: float) -> bool:
        return True

    async def read_books(_url: str) -> Books:
        return found

    def ask_again(requests: Sequence[BankRequest]) -> Sequence[int]:
        asked.append([request.key for request in requests])
        return again[len(asked) - 1]

    monkeypatch.setattr(books.invariants, "settled", settled)
    monkeypatch.setattr(books.invariants, "read_books", read_books)
    return books.judged(measured(table), ASKED, "postgresql://", ask_again, settle_s=25.0), asked


def books_with(*numbers: int) -> Books:
    """As if these transfers were booked, and nothing else."""
    booked = [transfer(number) for number in numbers]
    balances = {1: books.BALANCE, 2: books.BALANCE}
    for each in booked:
        balances[each.user] -= each.amount
        balances[each.target] += each.amount
    terms = {
        each.key: (Transfer(each.key, each.user, each.target, each.amount), TransferOutcome.MOVED)
        for each in booked
    }
    return Books(balances, {}, terms, {}, {}, {})


def test_a_client_that_did_not_learn_the_outcome_comes_back_with_the_same_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result, asked = judged(
        monkeypatch, books_with(0, 1, 2, 3), records(200, 200, 0, 503, 200), again=([0, 200], [1000])
    )
    assert asked == [["t-mesh-1", "t-mesh-2"], ["t-mesh-1"]]
    assert (result.flags, result.failure) == ((), "")
    assert "4 acknowledged, 0 unknown, 3 asked again" in result.checks[1].observed


def test_what_stays_unknown_is_neither_lost_nor_done(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked = judged(monkeypatch, books_with(0, 1, 3), records(200, 200, 200, 0, 200), again=[[0]] * 3)
    assert len(asked) == books.ROUNDS
    assert all(check.passed for check in result.checks)
    assert "1 unknown" in result.checks[1].observed


def test_one_that_was_never_sent_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [True, True, True, False, True]
    result, asked = judged(monkeypatch, books_with(0, 1, 3), records(200, 200, 200, 0, 200, sent=sent))
    assert asked == []
    assert result.flags == ()


def test_an_acknowledged_transfer_that_is_lost_is_told_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = judged(monkeypatch, books_with(0, 1, 3), records(200, 200, 200, 200, 200))
    assert [check.passed for check in result.checks] == [True, False]
    assert result.flags[0].startswith(f"{BOOKS_VIOLATED.code}: ")
    assert "t-mesh-2 was acknowledged and is lost" in result.flags[0]


def test_money_that_appears_is_told_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    found = books_with(0, 1, 2, 3)
    more = Books({**found.balances, 2: found.balances[2] + 1}, {}, found.transfers, {}, {}, {})
    result, _ = judged(monkeypatch, more, records(200, 200, 200, 200, 200))
    assert "money is not conserved" in result.flags[0]


def test_a_refusal_of_the_bank_is_an_answer_and_one_of_anybody_else_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = books_with(1, 2, 3)
    key = transfer(0).key
    refused = {key: (Transfer(key, 1, 2, 100), TransferOutcome.REFUSED)}
    with_refused = Books(found.balances, {}, {**found.transfers, **refused}, {}, {}, {})
    result, _ = judged(monkeypatch, with_refused, records(422, 404, 200, 200, 200))
    assert result.requests["error"].to_pylist() == ["", "http_status", "", "", ""]
    assert result.flags == ()


def test_a_trial_that_failed_is_not_judged() -> None:
    def never(_: Sequence[BankRequest]) -> Sequence[int]:
        raise AssertionError("its processes cannot be trusted")

    result = books.judged(
        measured(records(200, 0, 0, 0, 0), failure="istio/a/postgres/store killed"), ASKED, "", never, 25.0
    )
    assert result.checks == ()


def test_statuses_of_both_protocols() -> None:
    assert [books.status_of(each) for each in (200, 1000, 422, 1009, 503, 1014, 409, 0)] == [
        200, 200, 422, 422, 0, 0, 0, 0,
    ]  # fmt: skip


# --- the way past the sidecars --------------------------------------------------------------------


def test_stores_are_reached_past_the_sidecars_at_ports_of_their_own() -> None:
    rules = Capture(15006, 15001, 1337, inbound_source="127.0.0.6")
    caller, store = with_direct_way(rules, "accounts"), with_direct_way(rules, "postgres")
    outbound = capture_chains(caller, privileged=True)[1]
    assert [str(rule) for rule in outbound.rules[:2]] == [
        "meta l4proto tcp tcp dport 15432 accept",
        "meta l4proto tcp tcp dport 16379 accept",
    ]
    assert len(capture_chains(caller, privileged=True)[0].rules) == 1
    inbound = capture_chains(store, privileged=True)[0]
    assert [str(rule) for rule in inbound.rules] == [
        "meta l4proto tcp tcp dport 15432 redirect to :5432",
        "meta l4proto tcp redirect to :15006",
    ]


def test_which_studies_have_the_bank() -> None:
    assert has_bank(study([cell(shape=TopologyKind.BANK)]))
    assert not has_bank(study([cell()]))
