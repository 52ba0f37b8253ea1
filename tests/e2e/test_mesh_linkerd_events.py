"""Linkerd while security changes: what real linkerd2-proxy does, on kept connections and on new ones.

Needs the binary: MESHWISE_LINKERD_PROXY, or `meshwise proxies pull linkerd`.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import linkerd_events
from tests.support.people import ROOT, scene_as

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.changes import NOT_DONE
from meshwise.mesh.linkerd import binary

CLOSED = "connection refused, reset or closed"
FORBIDDEN, NOBODY_LISTENS = "403", "another answer (HTTP 502)"


def play(*scene: str) -> list[dict[str, Any]]:
    try:
        path = binary.proxy_path()
        binary.facts(path)
    except MeshwiseError as error:
        pytest.skip(str(error))
    return scene_as(ROOT, linkerd_events.__name__, *scene, MESHWISE_LINKERD_PROXY=str(path))


def test_leaves_and_issuer_rotate_at_their_time_and_connections_are_kept() -> None:
    before, leaf, spread, issuer, proof = play("rotations")
    assert (before["kept"], before["new"]) == (200, "200")
    former = before["counters"]
    serials: dict[str, str] = {}
    for rotated in (leaf, spread, issuer):
        assert (rotated["kept"], rotated["new"]) == (200, "200")
        for taken in rotated["taken"]:
            name, detail = taken["workload"], taken["detail"]
            assert detail["proven"], detail
            assert detail["serial_before"] == serials.get(name, detail["serial_before"]) != detail["serial"]
            assert detail["connections_before"] >= 1
            assert detail["connections_kept"], "a proxy looks at its certificate in a handshake only"
            assert taken["done_ns"] > rotated["begun_ns"]
            serials[name] = detail["serial"]
            counted = rotated["counters"][name]
            assert counted["taken"] == former[name]["taken"] + 1, "once each, in the proxy's own words"
            assert counted["refused"] == 0
            assert counted["expiry_s"] > former[name]["expiry_s"]
        former = rotated["counters"]
    first, second = (taken["done_ns"] for taken in spread["taken"])
    assert second - first > 0.4e9, "evenly over a second"
    assert proof["failed"] == []


def test_a_trust_anchor_rotates_by_starts_and_without_overlap_proxies_refuse_each_other() -> None:
    overlap, fault, proof = play("anchors")
    for rotated in (overlap, fault):
        assert all(taken["detail"]["proven"] for taken in rotated["taken"])
        assert set(rotated["seen"]) <= {"200", CLOSED}
        assert rotated["seen"]["200"] > 0
    assert fault["seen"][CLOSED] > 0
    assert proof["failed"] == [], "all trust the new anchor alone"


def test_certificates_end_while_renewal_is_refused_and_only_new_connections_notice() -> None:
    before, ended, mended, course = play("expiry", "refused")
    assert (before["kept"], before["new"]) == (200, "200")
    assert ended["kept"] == 200, "a connection outlives the certificates that it was made with"
    assert ended["new"].startswith(CLOSED)
    assert (mended["kept"], mended["new"]) == (200, "200")
    for name, counted in mended["counters"].items():
        assert counted["taken"] == before["counters"][name]["taken"] + 1
        assert counted["refused"] == 0, "the proxy counts what it refuses, not what it is refused"
    outcomes = [outcome for _, outcome in course["course"]]
    assert outcomes == ["200", CLOSED, "200"]
    (_, (stops_s, _), (again_s, _)) = course["course"]
    assert -1.5 < stops_s < again_s, "certificates end on a whole second"
    assert again_s > 4, "10 s after it was refused, and not sooner, the proxy tries again"


def test_without_policies_known_ports_are_judged_as_before_and_new_ones_by_the_default() -> None:
    before, within, pushed, after = play("policy_gone", "gone")
    for each in (before, within, after):
        assert (each["kept"], each["new"], each["known"]) == (200, "200", FORBIDDEN)
    assert before["unknown"] == FORBIDDEN
    assert within["unknown"] == NOBODY_LISTENS, "let through: it fails open"
    assert after["unknown"] == FORBIDDEN
    for taken in pushed["taken"]:
        assert taken["done_ns"] is None
        assert "no stream open" in taken["detail"][NOT_DONE]


def test_policies_and_postures_are_pushed_to_who_has_to_know() -> None:
    *pushes, proof = play("pushes")
    one, many, elsewhere, fine, strict = (each["taken"] for each in pushes)
    assert all((each["kept"], each["new"]) == (200, "200") for each in pushes)
    for client, node in (one, many, elsewhere, fine, strict):
        assert (client["detail"]["sent"], node["detail"]["sent"]) == (0, 1)
        assert node["done_ns"] - node["detail"]["sent_after_ns"] == client["done_ns"], "accepted"
    assert proof["failed"] == [], "a reset forgets what was pushed"


def test_what_a_clock_that_is_wrong_has_signed_is_refused_and_the_former_certificate_stays() -> None:
    ahead, behind, reset = play("clocks")
    for each, counted in ((ahead, 1), (behind, 0)):
        assert (each["kept"], each["new"]) == (200, "200")
        for taken in each["taken"]:
            assert taken["done_ns"] is None
            assert taken["detail"]["serial_seen"] not in ("", taken["detail"]["serial"])
            before, after = (each[when][taken["workload"]] for when in ("before", "after"))
            assert after["taken"] == before["taken"]
            assert after["refused"] == before["refused"] + counted, (
                "one that has ended already is not counted"
            )
    assert reset["failed"] == []
    assert all(each["taken"] == 2 for each in reset["counters"].values()), "renewed between trials"
