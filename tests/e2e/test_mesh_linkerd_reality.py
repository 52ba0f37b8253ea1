"""The third depth: every posture and protocol on real linkerd2-proxy, proven; and faults, as they happen.

Needs the binary: MESHWISE_LINKERD_PROXY, or `meshwise proxies pull linkerd`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from tests.support import linkerd_world
from tests.support.linkerd_samples import cells
from tests.support.mesh_samples import ONE_THING
from tests.support.people import ORDINARY, ROOT, scene_as

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.linkerd import binary
from meshwise.study.model import LADDER, RuleKind, RulePlace

CHECKOUT = Path(__file__).parent.parent.parent


def play(person: str, *scene: str) -> list[dict[str, Any]]:
    try:
        path = binary.proxy_path()
        binary.facts(path)
    except MeshwiseError as error:
        pytest.skip(str(error))
    return scene_as(person, linkerd_world.__name__, *scene, MESHWISE_LINKERD_PROXY=str(path))


@pytest.mark.parametrize("person", [ROOT, ORDINARY])
def test_every_posture_is_proven_on_every_protocol(person: str) -> None:
    started, *proofs = play(person, "postures")
    assert started["started_s"] > 0
    assert [(each["posture"], each["failed"]) for each in proofs if not each["passed"]] == []
    assert {(each["posture"], each["protocol"]) for each in proofs} == {
        (cell.posture.name, cell.protocol) for cell in cells()
    }
    assert median(each["apply_ms"] + each["prove_ms"] for each in proofs) > 0
    for each in proofs:
        facts = each["facts"]
        assert facts["workers"] == "1"
        plaintext = each["posture"].startswith("plaintext")
        assert facts["tls_version"] == ("none" if plaintext else "TLSv1.3")
        assert facts["tls_group"] == ("none" if plaintext else "X25519MLKEM768")
        if not plaintext:
            suffix = "serviceaccount.identity.linkerd.cluster.local"
            assert facts["client_identity"] == f"client.frontend.{suffix}"
            assert facts["server_identity"] == f"node-1.backend.{suffix}"


def test_a_posture_is_not_proven_while_another_one_is_applied() -> None:
    passed: dict[str, set[str]] = defaultdict(set)
    for each in play(ROOT, "wrong"):
        passed[each["applied"]] |= {each["claimed"]} if each["passed"] else set()
        assert each["passed"] or each["failed"]
    assert passed == {posture.name: {posture.name} for posture in LADDER}


def test_chains_and_lives_of_certificates_change_on_running_proxies() -> None:
    deep, short, plain, usual, claimed = play(ROOT, "certificates")
    for each in (deep, short, plain, usual):
        assert each["passed"], each
    facts = [each["facts"] for each in (deep, short, usual)]
    assert [each["chain_depth"] for each in facts] == ["3", "3", "1"]
    assert [each["certificate_life"] for each in facts] == ["86400 s", "600 s", "86400 s"]
    assert "chain_depth" not in plain["facts"]
    assert len(claimed["failed"]) == 2
    assert {name.partition(":")[0] for name in claimed["failed"]} == {
        "intermediates that the server sends", "life of the server's certificate",
    }  # fmt: skip


def test_factors_change_on_running_proxies() -> None:
    *proofs, unpushed = play(ROOT, "factors")
    assert [(each["cell"], each["failed"]) for each in proofs if not each["passed"]] == []
    assert len(proofs) == 7
    assert unpushed["cell"] == "unpushed"


def test_further_rules_of_every_kind_change_nothing_that_is_let_through() -> None:
    proofs = play(ROOT, "rules")
    assert [(each["cell"], each["failed"]) for each in proofs if not each["passed"]] == []
    none = [kind for kind, place in ONE_THING if kind in (RuleKind.CLAIM, RuleKind.PATH_SUFFIX)]
    denies = [kind for kind, place in ONE_THING if place is RulePlace.DENY]
    of_callers = (RuleKind.WHOLE, RuleKind.IDENTITY, RuleKind.NAMESPACE)
    met = [kind for kind, place in ONE_THING if place is RulePlace.HIT and kind in of_callers]
    assert len(proofs) == len(ONE_THING) - len(none) - len(denies) - len(met), "what Linkerd has no rule for"


def test_traffic_survives_the_death_of_the_control_plane() -> None:
    (seen,) = play(ROOT, "controller_killed")
    assert set(seen["without"]) == {"200"}, "proxies go on with what they know"
    assert seen["code"] == "MW421", "a push to a dead control plane is an error with a name"
    assert set(seen["answers"]) == {"200"}
    assert seen["failed"] == [], "the successor's snapshot is in force"


def test_the_control_plane_rests_while_requests_flow() -> None:
    (seen,) = play(ROOT, "idle_cost")
    assert seen["calls"] > 20
    assert seen["cpu_share"] < 0.02


def test_counters_are_sampled() -> None:
    (seen,) = play(ROOT, "sampled")
    before, after = seen["before"], seen["after"]
    for counted in ("authorization_allowed_total", "authorization_denied_total", "tls_handshakes_total"):
        assert after[counted] > before[counted], counted
    assert after["reachable"] == after["workers"] == 1
    assert after["certificate_expiry_unix_s"] > 1_000_000_000
    assert after["certificate_refreshes_total"] == 1
    assert after["memory_resident_bytes"] > 1_000_000


def test_proxies_ask_what_the_recorded_ones_asked() -> None:
    """The control plane is tested with them (`exchange.jsonl`) where there is no binary."""
    golden = CHECKOUT / "tests" / "golden" / "linkerd" / "exchange.jsonl"
    recorded = [json.loads(line) for line in golden.read_text().splitlines()]
    assert play(ROOT, "record") == recorded


@pytest.mark.parametrize("kind", [kind for kind in linkerd_world.WORDS if kind != "nothing"])
def test_a_proxy_without_a_good_certificate_never_becomes_ready(kind: str) -> None:
    (seen,) = play(ROOT, "fault", kind)
    assert not seen["ready"]
    if kind == "missing token":
        assert "status" in seen["ending"], "it ends by itself"
    else:
        assert seen["ending"] == ""
        assert linkerd_world.WORDS[kind] in seen["log"]


def test_without_a_fault_the_same_proxy_is_ready() -> None:
    assert play(ROOT, "fault", "nothing")[0]["ready"]
