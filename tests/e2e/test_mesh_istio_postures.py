"""The third depth: every posture and protocol on real sidecars, applied while they run, and proven."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from tests.support import mesh_world
from tests.support.envoy import envoy
from tests.support.mesh_samples import CELL, ONE_THING, POSTURES
from tests.support.people import ORDINARY, ROOT, scene_as

from meshwise.study.grid.expressible import inexpressible
from meshwise.study.model import LADDER, Protocol


def play(person: str, scene: str) -> list[dict[str, Any]]:
    envoy()
    return scene_as(person, mesh_world.__name__, scene)


@pytest.mark.parametrize("person", [ROOT, ORDINARY])
def test_every_posture_is_proven_on_every_protocol(person: str) -> None:
    proofs = play(person, "postures")
    assert [(each["posture"], each["failed"]) for each in proofs if not each["passed"]] == []
    assert {(each["posture"], each["protocol"]) for each in proofs} == {
        (posture.name, protocol)
        for posture in POSTURES
        for protocol in Protocol
        if inexpressible(replace(CELL, posture=posture, protocol=protocol)) is None
    }
    for each in proofs:
        facts = each["facts"]
        assert facts["workers"] == "1"
        plaintext = each["posture"].startswith("plaintext")
        assert facts["tls_version"] == ("none" if plaintext else "TLSv1.3")
        assert facts["tls_group"] == ("none" if plaintext else "X25519")
        if not plaintext:
            assert facts["client_identity"] == "spiffe://cluster.local/ns/frontend/sa/client"
            assert facts["server_identity"] == "spiffe://cluster.local/ns/backend/sa/node-1"
            assert facts["resumption"].startswith("offered")


@pytest.mark.parametrize("scene", ["wrong", "wrong_l4"])
def test_a_posture_is_not_proven_while_another_one_is_applied(scene: str) -> None:
    passed: dict[str, set[str]] = defaultdict(set)
    for each in play(ROOT, scene):
        passed[each["applied"]] |= {each["claimed"]} if each["passed"] else set()
        assert each["passed"] or each["failed"]
    assert passed == {posture.name: {posture.name} for posture in LADDER}


def test_factors_change_on_running_proxies() -> None:
    """Key type, chain length, policy count, request size: each seen by the proof."""
    proofs = play(ROOT, "factors")
    assert [(each["cell"], each["failed"]) for each in proofs if not each["passed"]] == []
    assert [each["facts"]["server_key"] for each in proofs[:3]] == ["rsa-2048", "ecdsa-p256", "rsa-2048"]
    assert [each["facts"]["tls_group"] for each in proofs[-4:]] == [
        "X25519",
        "none",
        "X25519MLKEM768",
        "X25519",
    ]
    assert any("configuration of" in name for name in play(ROOT, "unchanged")[0]["failed"])


def test_validation_mechanisms_are_proven_on_the_wire() -> None:
    """Each is seen where it is, and none is taken for proven where it is not."""
    *shown, crl_of_chain, crl, prefix, old_version, no_sessions = play(ROOT, "validation")
    assert [(each["cell"], each["failed"]) for each in shown if not each["passed"]] == []
    facts = [each["facts"] for each in shown]
    assert [(each["server_key"], each["chain_depth"], each["tls_version"]) for each in facts] == [
        ("rsa-3072", "3", "TLSv1.3"),
        ("ecdsa-p384", "2", "TLSv1.3"),
        ("rsa-2048", "2", "TLSv1.3"),
        ("rsa-2048", "1", "TLSv1.3"),
        ("rsa-2048", "1", "TLSv1.3"),
        ("rsa-2048", "1", "TLSv1.2"),
        ("rsa-2048", "1", "TLSv1.3"),
        ("rsa-2048", "1", "TLSv1.2"),
        ("rsa-2048", "1", "TLSv1.3"),
    ]
    assert [number for number, each in enumerate(facts) if each["crl"] != "none"] == [2, 3, 7]
    assert [number for number, each in enumerate(facts) if each["resumption"] == "none"] == [6, 7]
    assert [each["certificate_life"] for each in facts[3:6]] == ["86400 s", "600 s", "86400 s"]
    assert [each["san_match"] for each in facts[3:6]] == ["exact", "prefix", "exact"]
    for each, words in (
        (crl_of_chain, "intermediates that the server sends"),
        (crl, "with a revoked certificate"),
        (prefix, "names that the client's sidecar wants"),
        (old_version, "TLS version between sidecars"),
        (no_sessions, "sessions that the server resumes"),
    ):
        assert any(words in failure for failure in each["failed"]), (each["cell"], each["failed"])


def test_further_rules_of_every_kind_change_nothing_that_is_let_through() -> None:
    proofs = play(ROOT, "rules")
    assert [(each["cell"], each["failed"]) for each in proofs if not each["passed"]] == []
    assert len(proofs) == len(ONE_THING)


@pytest.mark.parametrize("person", [ROOT, ORDINARY])
def test_a_fan_out_is_proven_at_every_leaf(person: str) -> None:
    proofs = play(person, "fanout")
    assert [(each["cell"], each["failed"]) for each in proofs if not each["passed"]] == []
    assert len(proofs) == len(LADDER) + 4
    assert {each["facts"]["workers"] for each in proofs} == {"2"}


def test_a_proxy_with_other_workers_is_not_proven() -> None:
    (seen,) = play(ROOT, "miscounted")
    wanted = [f"worker threads of {name}: expected 2, observed 1" for name in ("client", "node-1")]
    assert seen["failed"] == wanted


def test_a_refused_configuration_is_named_in_the_proxys_words_and_the_former_holds() -> None:
    pushed, reset, kept, again = play(ROOT, "refused")
    for seen in (pushed, reset):
        assert seen["code"] == "MW404"
        assert "Error adding/updating cluster(s)" in seen["text"]
        assert "Failed to initialize ECDH curves nonsense" in seen["text"]
    assert kept == {"kept": []}
    assert again == {"again": True}


def test_without_its_control_plane_a_proxy_keeps_what_it_has_and_goes_on_when_it_is_back() -> None:
    without, refused, behind, back, whole = play(ROOT, "uncontrolled")
    assert without["without"]["passed"], without
    assert refused["code"] == "MW421"
    assert behind == {"behind": 0}
    assert back["back"]["passed"], back
    assert whole == {"whole": []}, "killed in the middle of a long push"


def test_no_connection_outlives_its_posture() -> None:
    (seen,) = play(ROOT, "drained")
    assert seen == {"first": "HTTP/1.1 200", "rest": 0}


def test_a_push_within_a_trial_leaves_connections_to_the_drain_time() -> None:
    (seen,) = play(ROOT, "pushed")
    assert seen == {"first": "HTTP/1.1 200", "second": "HTTP/1.1 200", "refused": ""}


def test_counters_are_sampled() -> None:
    (seen,) = play(ROOT, "sampled")
    before, after = seen["before"], seen["after"]
    for counted in ("rbac_allowed_total", "rbac_denied_total", "jwt_denied_total", "tls_handshakes_total"):
        assert after[counted] > before.get(counted, 0), counted
    assert after["memory_allocated_bytes"] > 1_000_000
    assert after["certificate_expiry_unix_s"] > 1_000_000_000
    assert seen["gone"] == {"reachable": 0}


def test_without_a_mesh_nothing_is_in_between() -> None:
    proofs = play(ROOT, "none")
    assert len(proofs) == len(Protocol)
    assert [each["failed"] for each in proofs if not each["passed"]] == []
    assert [each for each in play(ROOT, "none_with_proxy") if each["passed"]] == []
