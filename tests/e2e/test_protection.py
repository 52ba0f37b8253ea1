"""Every attempt on real proxies, once each on every rung: what was stopped, and what the mesh documents.

Linkerd needs the binary: MESHWISE_LINKERD_PROXY, or `meshwise proxies pull linkerd`.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import inside_protection
from tests.support.envoy import envoy
from tests.support.inside_protection import ATTEMPTS
from tests.support.people import ORDINARY, ROOT, scene_as

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.linkerd import binary
from meshwise.study.model import LADDER

SURPRISES = {("istio", "strict+fine", "token-wrong-audience")}
"""docs/protection.md says why."""


def play(person: str, scene: str, mesh: str) -> list[dict[str, Any]]:
    envoy()
    more = {}
    if mesh == "linkerd":
        try:
            binary.facts(path := binary.proxy_path())
        except MeshwiseError as error:
            pytest.skip(str(error))
        more = {"MESHWISE_LINKERD_PROXY": str(path)}
    return scene_as(person, inside_protection.__name__, scene, mesh, **more)


@pytest.mark.parametrize(("person", "mesh"), [(ORDINARY, "none"), (ORDINARY, "istio"), (ROOT, "linkerd")])
def test_what_is_stopped_is_what_is_documented(person: str, mesh: str) -> None:
    found = play(person, "everything", mesh)
    assert len(found) == len(ATTEMPTS) * (1 if mesh == "none" else len(LADDER))
    others = {
        (mesh, each["posture"], each["attempt"]): each["evidence"]
        for each in found
        if each["outcome"] != each["expected"]
    }
    assert set(others) == {each for each in SURPRISES if each[0] == mesh}, others
    assert not any(each["harmed"] for each in found)
    for each in found:
        if each["attempt"].startswith("sniff"):
            count = "1" if each["outcome"] == "let_through" else "0"
            assert f"found in plaintext in {count} of" in each["evidence"]
        for secret in ("PRIVATE KEY", "BEGIN CERTIFICATE", "eyJ"):
            assert secret not in each["evidence"]


def test_a_proxy_that_ends_or_falls_silent_is_a_finding_and_is_started_again() -> None:
    killed, stopped, after = play(ROOT, "deadly", "istio")
    assert (killed["outcome"], killed["harmed"]) == ("undecided", 1)
    assert "SIGKILL" in killed["evidence"]
    assert (stopped["outcome"], stopped["harmed"]) == ("undecided", 1)
    assert "fell silent" in stopped["evidence"]
    assert (after["outcome"], after["harmed"]) == ("let_through", 0)
