"""Attempts on HTTP, on time and on amount, on real proxies: what is stopped, what is let through, and why one
knows. Each table is what was seen; where it differs from the mesh's documentation the test says so by name.

Linkerd's needs the binary: MESHWISE_LINKERD_PROXY, or `meshwise proxies pull linkerd`.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import inside_attempts
from tests.support.people import ROOT, scene_as

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.linkerd import binary
from meshwise.mesh.protection.attempt import AttemptOutcome
from meshwise.mesh.protection.catalogue import BY_KEY
from meshwise.study.model import MeshName
from meshwise.study.security import POSTURES

NAMESPACE, FINE = "strict+namespace", "strict+fine"
DENY = [key for key in BY_KEY if key.startswith("deny-")]
HTTP = ["allow-method", "allow-path", "allow-header", "allow-header-twice", "allow-header-beside",
        "smuggle-lengths", "smuggle-chunks", "speech-http2-unasked", "speech-h2c-upgrade", "speech-websocket",
        "speech-raw-on-http", "excess-head"]  # fmt: skip


def tried(mesh: MeshName, postures: str, keys: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
    environment = {}
    if mesh is MeshName.LINKERD:
        try:
            path = binary.proxy_path()
            binary.facts(path)
        except MeshwiseError as error:
            pytest.skip(str(error))
        environment["MESHWISE_LINKERD_PROXY"] = str(path)
    lines = scene_as(ROOT, inside_attempts.__name__, mesh, postures, ",".join(keys), **environment)
    return {(each["posture"], each["attempt"]): each for each in lines}


def surprises(mesh: MeshName, found: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], str]:
    """What did not come as documented."""
    return {
        (posture, key): each["outcome"]
        for (posture, key), each in found.items()
        if each["outcome"] != BY_KEY[key].expected(mesh, POSTURES[posture])
    }


def test_istio_under_a_rule_that_forbids() -> None:
    found = tried(MeshName.ISTIO, NAMESPACE, DENY)
    assert surprises(MeshName.ISTIO, found) == {
        # GHSA-w44g-8m76-8gc5: over HTTP/2 a method in lower case is another one.
        (NAMESPACE, "deny-method-case-http2"): AttemptOutcome.LET_THROUGH
    }
    assert "arrived as delete /echo" in found[NAMESPACE, "deny-method-case-http2"]["status"]
    assert found[NAMESPACE, "deny-method-case"]["reason"] == "400: lower case, mixed case"
    slashes = found[NAMESPACE, "deny-path-slashes"]
    assert "arrived as POST /echo//admin" in slashes["status"]
    assert slashes["reason"] == "not: 403: a backslash"
    assert found[NAMESPACE, "deny-path-dots"]["counted"]["rbac.denied"] == 5, "the four, and the one by name"


def test_istio_under_least_privilege_and_what_outlives_a_push() -> None:
    keys = [*HTTP, "kept-caller-http1", "uncontrolled-known-port", "uncontrolled-new-port"]
    found = tried(MeshName.ISTIO, f"{NAMESPACE},{FINE}", keys)
    assert surprises(MeshName.ISTIO, found) == {
        # Documented: joined by commas, so no value is allowed. Envoy matches each value by itself since the
        # mend of CVE-2026-26308 (envoy.reloadable_features.rbac_match_headers_individually).
        (FINE, "allow-header-twice"): AttemptOutcome.LET_THROUGH
    }
    assert found[FINE, "smuggle-lengths"]["reason"].startswith("400: ")
    assert found[FINE, "uncontrolled-new-port"]["counted"] == {"no_filter_chain_match": 1}, "without asking"
    kept = found[NAMESPACE, "kept-caller-http1"]
    assert "connection: close" in kept["reason"], "it is asked to leave, and served until it is put out"
    assert found[FINE, "kept-caller-http1"]["outcome"] == AttemptOutcome.NOT_APPLICABLE


def test_linkerd_under_a_rule_that_forbids_and_under_least_privilege() -> None:
    keys = [*DENY, *HTTP, "kept-caller-http1", "uncontrolled-known-port", "uncontrolled-new-port"]
    found = tried(MeshName.LINKERD, f"{NAMESPACE},{FINE}", keys)
    assert surprises(MeshName.LINKERD, found) == {
        # Documented by the Gateway API: joined by commas. The proxy lets any of the values match.
        (FINE, "allow-header-twice"): AttemptOutcome.LET_THROUGH
    }
    assert "arrived as POST /echo/x/../admin" in found[NAMESPACE, "deny-path-dots"]["status"]
    assert found[NAMESPACE, "kept-caller-http1"]["status"].endswith("403")
    assert found[FINE, "uncontrolled-known-port"]["status"] == "403"
    assert "502" in found[FINE, "uncontrolled-new-port"]["status"]
