"""Events on real proxies: each is proven by what was seen of it, and by what became of requests."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from tests.support.people import ORDINARY, ROOT, command_as, environment_as

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.binary import envoy_path
from meshwise.mesh.linkerd.binary import proxy_path

ME = ROOT if os.geteuid() == 0 else ORDINARY


def scene(name: str) -> list[dict[str, Any]]:
    of_linkerd = ("gone", "linkerd_changes", "linkerd_forbidden")
    for binary in (proxy_path,) if name in of_linkerd else (envoy_path,):
        try:
            binary()
        except MeshwiseError as error:
            pytest.skip(f"needs a proxy: {error.remedy}")
    done = subprocess.run(
        command_as(ME, "-m", "tests.support.inside_events", name),
        env=environment_as(ME), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def of(told: dict[str, Any], event: str, occurrence: int | None = None) -> list[dict[str, Any]]:
    return [
        row for row in told["events"] if row["event"] == event and occurrence in (None, row["occurrence"])
    ]


def test_what_istio_changes_is_proven_no_request_notices_and_the_next_trial_has_none_of_it() -> None:
    *arms, first, second = scene("changes")
    told, twin = sorted(arms, key=lambda each: str(each["role"]))
    assert (told["role"], twin["role"]) == ("cell", "twin")
    assert twin["events"] == []
    assert {each["failure"] for each in arms} == {""}, arms
    assert told["failed"] == twin["failed"] == []

    sidecars = ["istio/a/client/proxy", "istio/a/node-1/proxy"]
    if told["events"][0]["target"].startswith("istio/b"):
        sidecars = ["istio/b/client/proxy", "istio/b/node-1/proxy"]
    for row in told["events"]:
        assert row["intended_ns"] <= row["begun_ns"] <= row["done_ns"], row
    serials: dict[str, list[str]] = {name: [] for name in sidecars}
    for name in ("rotate leaf", "rotate issuer", "rotate anchor"):
        rows = of(told, name)
        assert [row["target"] for row in rows] == sidecars
        for row in rows:
            detail = row["detail"]
            assert detail["proven"], row
            assert detail["connections_before"] > 0
            assert detail["connections_kept"], "open connections outlive their certificates"
            serials[row["target"]] += [detail["serial_before"], detail["serial_seen"]]
        assert [row["detail"]["seen"] for row in rows] == ["by its administration", "on the wire"]
    for seen in serials.values():
        assert len(set(seen)) == 4, "each rotation is another certificate"
        assert seen[1] == seen[2]
        assert seen[3] == seen[4], "what one left is what the next one finds"
    versions = [row["detail"]["version"] for name in ("push policies", "posture") for row in of(told, name)]
    assert len(set(versions)) == 4
    [controller] = of(told, "restart controller")
    assert "not_done" not in controller["detail"]
    assert first == second == {"proven": True}


def test_certificates_that_expire_stop_those_who_start_anew_until_somebody_signs() -> None:
    [told] = scene("renewal")
    assert told["failure"] == ""
    refused = of(told, "rotate leaf", 2)
    assert {(row["done_ns"], row["detail"]["not_done"]) for row in refused} == {
        (None, "the authority cannot be reached")
    }
    [restart] = of(told, "restart proxy")
    renewed = max(row["done_ns"] for row in of(told, "rotate leaf", 4))
    failed = [when for when, *_ in told["failed"]]
    before = [done_ns for *_, done_ns in told["failed"] if done_ns and done_ns < restart["begun_ns"]]
    assert before == [], "connections that are open outlive a certificate that has expired"
    without = [when for when in failed if restart["done_ns"] < when * 1e9 < renewed]
    assert len(without) > 50, "100 a second for more than a second"
    assert [when for when in failed if when * 1e9 > renewed + 0.5e9] == []
    assert all(row["detail"]["proven"] for row in of(told, "rotate leaf", 4))


def test_a_plaintext_client_fails_from_strict_on_and_is_served_again_when_it_is_permissive() -> None:
    [told] = scene("transition")
    assert told["failure"] == ""
    strict, back = (max(row["done_ns"] for row in of(told, "posture", number)) for number in (0, 1))
    assert {client for _, client, *_ in told["failed"]} == {"outside"}
    when = [at_s * 1e9 for at_s, *_ in told["failed"]]
    begun = of(told, "posture", 0)[0]["begun_ns"]
    assert min(when) > begun - 1e9, "only what was under way, or came later"
    assert len([each for each in when if strict < each < back]) > 50
    assert [each for each in when if each > back + 0.5e9] == []
    named = [row["detail"] for row in of(told, "posture")]
    assert [each["back"] for each in named] == [False, False, True, True]


def passes_on(one: dict[str, Any]) -> None:
    """Envoy decides on opaque TCP when a connection begins, and lets it go on for Istio's drain time of 45 s:
    longer than this trial, which is told and not taken for a change that forbids nothing."""
    assert one["failure"] == "", one["failure"]
    [whole] = [each for each in one["passed"] if not each["connection"]]
    assert (whole["event"], whole["client"]) == ("posture strict+namespace", "stranger")
    assert whole["still_open"]
    forbidden = [row for row in one["rows"] if row["client"] == "stranger"]
    assert {row["error"] for row in forbidden} == {""}
    following = whole["happening"]["begun_ns"] + 1e9
    assert whole["last_old_at_ns"] > following


@pytest.mark.parametrize("name", ["forbidden", "linkerd_forbidden"])
def test_the_last_forbidden_request_that_passed_is_told_for_request_and_for_identity(name: str) -> None:
    """On connections that were open before: what `fine` forbids by request, and `namespace` by identity."""
    found = {(each.get("protocol"), each.get("by")): each for each in scene(name)}
    if tcp := found.pop(("tcp", "identity"), None):
        passes_on(tcp)
    told = {by: each for (_, by), each in found.items()}
    for by, event, client in (
        ("request", "posture strict+fine", "mesh"),
        ("identity", "posture strict+namespace", "stranger"),
    ):
        one = told[by]
        assert one["failure"] == "", one["failure"]
        assert {(each["event"], each["client"], each["forbidden"]) for each in one["passed"]} == {
            (event, client, True)
        }
        [whole] = [each for each in one["passed"] if not each["connection"]]
        assert whole["closes"]
        begun = whole["happening"]["begun_ns"]
        forbidden = [row for row in one["rows"] if row["forbidden"]]
        assert {row["client"] for row in forbidden} == {client}
        assert len(forbidden) == pytest.approx(len(one["rows"]) / 4, rel=0.1)
        passed = [row["at_ns"] for row in forbidden if not row["error"]]
        assert max(passed) == whole["last_old_at_ns"], "the last of all that passed, and no other"
        assert whole["last_old_ms"] == pytest.approx((max(passed) - begun) / 1e6)
        assert {(row["status"], row["error"]) for row in forbidden if row["at_ns"] > max(passed)} == {
            (403, "http_status")
        }
        assert all(row["first_ns"] < begun for row in forbidden), "on places that were in use before"
        others = [row for row in one["rows"] if not row["forbidden"]]
        assert {row["client"] for row in others} == {"mesh"}
        assert [row for row in others if row["error"]] == [], "no other request is refused"


def test_what_linkerd_changes_is_proven_and_only_starts_cost_requests() -> None:
    told, again = scene("linkerd_changes")
    assert (told["failure"], again) == ("", {"proven": True})
    sidecars = ["linkerd/a/client/proxy", "linkerd/a/node-1/proxy"]
    anchor = of(told, "rotate anchor")
    for rows in (of(told, "rotate leaf", 0), of(told, "rotate issuer"), anchor):
        assert [row["target"] for row in rows] == sidecars
        assert all(row["detail"]["proven"] and row["done_ns"] > row["begun_ns"] for row in rows), rows
    for row in (*of(told, "rotate leaf", 0), *of(told, "rotate issuer")):
        assert row["detail"]["connections_kept"], row
    pushed, [_, node] = of(told, "push policies", 4), of(told, "push policies", 1)
    assert node["detail"]["sent"] == 1
    assert {(row["done_ns"], "no stream open" in row["detail"]["not_done"]) for row in pushed} == {
        (None, True)
    }
    refused = of(told, "rotate leaf", 6)
    assert {(row["done_ns"], row["detail"]["not_done"]) for row in refused} == {
        (None, "the identity service refuses every call")
    }
    assert [row["target"] for row in of(told, "fail policy")] == ["linkerd/a"]
    assert all(done_ns is None or done_ns > anchor[0]["begun_ns"] for *_, done_ns in told["failed"])


def test_a_control_plane_that_is_gone_for_good_fails_the_trial_and_the_next_one_is_well() -> None:
    proven, failed, next_one = scene("gone")
    assert proven == {"proven": True}
    assert failed["failure"].startswith(
        "event `fail controller` at 500ms failed: linkerd/a/client/controller"
    )
    assert [flag.partition(":")[0] for flag in failed["flags"] if "late" not in flag] == ["event_failed"]
    assert failed["requests"] > 0, "what was recorded until then is kept"
    assert [(row["event"], row["done_ns"]) for row in failed["events"]] == [
        ("fail controller", None),
        ("restart proxy", None),
    ]
    assert next_one["failure"] == ""
    assert all(row["done_ns"] for row in next_one["events"]), next_one["events"]
