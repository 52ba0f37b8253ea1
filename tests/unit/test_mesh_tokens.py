"""Tokens: what is valid, what is not, and that every cell's request has the same bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.mesh_samples import CELL, POSTURES

from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.none.mesh import NoneModel
from meshwise.mesh.request import request_of
from meshwise.mesh.tokens import ISSUER, VALID_FOR_S, make_tokens, tokens, verify
from meshwise.study.model import NO_MESH, MeshName, Protocol, TopologyKind

NOW_S = 1_800_000_000


def test_each_kind_of_token_is_what_it_says() -> None:
    made = make_tokens(NOW_S)
    claims = verify(made.valid, made.jwks, NOW_S)
    assert claims is not None
    assert (claims["iss"], claims["role"]) == (ISSUER, "caller")
    assert verify(made.expired, made.jwks, NOW_S) is None
    assert verify(made.forged, made.jwks, NOW_S) is None
    other = verify(made.other_claim, made.jwks, NOW_S)
    assert other is not None
    assert other["role"] == "reader"


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "....", "e30.e30.e30"])
def test_what_is_no_token_verifies_as_none(text: str) -> None:
    assert verify(text, make_tokens(NOW_S).jwks, NOW_S) is None


def test_a_token_outlives_a_long_study() -> None:
    made = make_tokens(NOW_S)
    assert verify(made.valid, made.jwks, NOW_S + VALID_FOR_S - 1) is not None
    assert verify(made.valid, made.jwks, NOW_S + VALID_FOR_S) is None


@pytest.mark.parametrize("protocol", list(Protocol))
def test_every_posture_and_mesh_sends_the_same_request(protocol: Protocol) -> None:
    cell = replace(CELL, protocol=protocol)
    bare = NoneModel().request(replace(cell, mesh=MeshName.NONE, posture=NO_MESH))
    assert {IstioModel().request(replace(cell, posture=posture)) for posture in POSTURES} == {bare}
    assert ("authorization", f"Bearer {tokens().valid}") in bare.headers


def test_the_request_follows_the_cell() -> None:
    assert request_of(replace(CELL, request_bytes=0)).method == "GET"
    assert request_of(replace(CELL, request_bytes=0, protocol=Protocol.GRPC)).method == "POST"
    chain = dict(request_of(replace(CELL, length=3)).headers)
    fan = dict(request_of(replace(CELL, length=3, shape=TopologyKind.FANOUT)).headers)
    assert chain["x-plan"] == "bytes=128;hops=2;fan=0;work_us=0"
    assert fan["x-plan"] == "bytes=128;hops=0;fan=3;work_us=0"
