"""The table is complete, and says what is expected without it."""

from __future__ import annotations

import pytest

from meshwise.mesh.expectations import (
    CALLER,
    PEER,
    VARIANT,
    Meaning,
    What,
    Who,
    expectations,
    meaning_of,
)
from meshwise.study.model import LADDER, NO_MESH, Authorization, Layer, MtlsMode, Posture

EVERY = [Posture(mtls, authorization) for mtls in MtlsMode for authorization in Authorization]


def test_every_mode_and_kind_has_its_row() -> None:
    assert set(PEER) == set(MtlsMode)
    assert all(set(row) == set(Who) for row in PEER.values())
    assert set(CALLER) == set(VARIANT) == set(Authorization)


@pytest.mark.parametrize("posture", EVERY, ids=lambda posture: posture.name)
def test_the_allowed_call_comes_first_and_is_answered(posture: Posture) -> None:
    rows = expectations(posture)
    assert (rows[0].who, rows[0].what, rows[0].meaning) == (Who.MESH, What.ALLOWED, Meaning.ANSWERED)
    assert len({(row.who, row.what) for row in rows}) == len(rows)
    assert {row.who for row in rows} == set(Who)


@pytest.mark.parametrize(
    ("rung", "who", "what", "meaning"),
    [
        (0, Who.PLAINTEXT, What.ALLOWED, Meaning.ANSWERED),
        (0, Who.TWIN, What.ALLOWED, Meaning.NO_TLS),
        (1, Who.PLAINTEXT, What.ALLOWED, Meaning.ANSWERED),
        (1, Who.FOREIGN, What.ALLOWED, Meaning.PEER_REFUSED),
        (2, Who.PLAINTEXT, What.ALLOWED, Meaning.PEER_REFUSED),
        (2, Who.OTHER_NAMESPACE, What.ALLOWED, Meaning.ANSWERED),
        (3, Who.OTHER_NAMESPACE, What.ALLOWED, Meaning.DENIED),
        (3, Who.OTHER_ACCOUNT, What.ALLOWED, Meaning.ANSWERED),
        (4, Who.OTHER_ACCOUNT, What.ALLOWED, Meaning.DENIED),
        (4, Who.OTHER_ACCOUNT, What.EXPIRED_TOKEN, Meaning.TOKEN_REFUSED),
        (4, Who.MESH, What.NO_TOKEN, Meaning.DENIED),
        (4, Who.MESH, What.FORGED_TOKEN, Meaning.TOKEN_REFUSED),
        (4, Who.PLAINTEXT, What.FORGED_TOKEN, Meaning.PEER_REFUSED),
    ],
)
def test_rungs(rung: int, who: Who, what: What, meaning: Meaning) -> None:
    assert meaning_of(LADDER[rung], who, what) is meaning


def test_each_rung_is_told_apart_from_every_other() -> None:
    tables = [
        tuple(meaning_of(posture, who, What.ALLOWED) for who in Who)
        + tuple(row.meaning for row in expectations(posture))
        for posture in EVERY
    ]
    assert len(set(tables)) == len(EVERY)


@pytest.mark.parametrize("posture", EVERY, ids=lambda posture: posture.name)
def test_at_l4_only_callers_are_judged_and_as_at_l7(posture: Posture) -> None:
    rows = expectations(posture, Layer.L4)
    assert {row.what for row in rows} == {What.ALLOWED}
    assert rows == tuple(row for row in expectations(posture) if row.what is What.ALLOWED)


def test_each_rung_of_the_ladder_is_told_apart_at_l4_too() -> None:
    tables = {tuple(row.meaning for row in expectations(posture, Layer.L4)) for posture in LADDER}
    assert len(tables) == len(LADDER)


def test_without_a_mesh_plaintext_is_answered() -> None:
    assert {(row.who, row.meaning) for row in expectations(NO_MESH)} == {
        (Who.MESH, Meaning.ANSWERED),
        (Who.PLAINTEXT, Meaning.ANSWERED),
    }
