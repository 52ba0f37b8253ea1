"""The request mix: weights, seeds, keys; and the judgement of books against what clients were told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from meshwise.core.errors import MeshwiseError
from meshwise.service.bank.mix import BankOperation, Mix, draw
from meshwise.service.bank.spec import BankService, BankSpec, Peer, StoreUrls
from meshwise.study.bank import Stores
from meshwise.study.model import Protocol


def test_operations_come_in_the_declared_shares() -> None:
    mix = Mix({BankOperation.PROFILE: 1, BankOperation.TRANSFER: 3})
    count = Counter(request.operation for request in draw(mix, 20_000, 7, "r"))
    assert set(count) == set(mix.weights)
    assert count[BankOperation.TRANSFER] / 20_000 == pytest.approx(0.75, abs=0.015)  # 5 standard errors


def test_equal_seeds_give_equal_requests_and_keys_are_never_used_twice() -> None:
    once, again = draw(Mix(), 5000, 3, "r"), draw(Mix(), 5000, 3, "r")
    assert once == again
    assert once != draw(Mix(), 5000, 4, "r")
    keys = [request.key for request in once if request.operation.moves_money]
    assert len(keys) == len(set(keys)) > 1500
    other_run = {request.key for request in draw(Mix(), 5000, 3, "s") if request.key}
    assert not other_run & set(keys)


def test_every_transfer_is_one_that_the_bank_takes() -> None:
    mix = Mix({BankOperation.TRANSFER: 1}, accounts=2, largest_amount=3)
    for request in draw(mix, 500, 1, "r"):
        assert {request.user, request.target} == {0, 1}
        assert 1 <= request.amount <= 3


@pytest.mark.parametrize(
    "weights", [{}, {BankOperation.PROFILE: 0}, {BankOperation.PROFILE: -1, BankOperation.NOTIFY: 2}]
)
def test_weights_that_mean_nothing(weights: dict[BankOperation, float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Mix(weights)


def test_a_spec_survives_its_file_which_only_its_owner_reads(tmp_path: Path) -> None:
    peers = {BankService.EDGE: Peer("10.0.0.1", {Protocol.GRPC: 1, Protocol.HTTP1: 2}, "edge.local")}
    urls = {Stores.DIRECT: StoreUrls(postgres="postgresql://a:b@c:1/d")}
    spec = BankSpec(BankService.USERS, {Protocol.GRPC: 80}, peers, stores=urls)
    spec.write(tmp_path / "spec")
    assert BankSpec.read(tmp_path / "spec") == spec
    assert (tmp_path / "spec").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "change", [{"ports": {"tcp": 1}}, {"ports": {}}, {"service": "loans"}, {"colour": 1}]
)
def test_a_spec_that_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    import json

    path = tmp_path / "spec"
    BankSpec(BankService.USERS, {Protocol.HTTP1: 80}).write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(MeshwiseError) as caught:
        BankSpec.read(path)
    assert caught.value.code == "MW901"
    assert replace(caught.value).where == str(path)
