"""Every attempt on real proxies, once each on every rung: what was stopped, and what the mesh documents.

Linkerd needs the binary: MESHWISE_LINKERD_PROXY, or `meshwise proxies pull linkerd`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.test_testbed_world import MARKER, traces, wait_for_nobody
from tests.support import inside_protection
from tests.support.envoy import envoy
from tests.support.inside_protection import ATTEMPTS
from tests.support.people import ORDINARY, ROOT, command_as, environment_as, scene_as

from meshwise.archive.read import ArchiveReader
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.linkerd import binary
from meshwise.mesh.protection.catalogue import ATTEMPTS as EVERY
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_while_it_tries_nothing_is_left_and_what_is_kept_is_said(
    tmp_path: Path, number: signal.Signals
) -> None:
    person = ROOT if os.geteuid() == 0 else ORDINARY
    study, out, before, marker = tmp_path / "alone.yaml", tmp_path / "out", traces(), uuid.uuid4().hex
    study.write_text("name: alone\nenvironments: [none]\nfactors: {posture: none}\n")
    words = ["-c", "from meshwise.cli.main import main; main()", "protect", str(study), "--out", str(out)]
    with subprocess.Popen(
        command_as(person, *words), env=environment_as(person) | {MARKER: marker}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stderr
        first = process.stderr.readline()
        while "execution 0" not in first:
            assert first, "it ended before it tried"
            first = process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    wait_for_nobody(marker)
    assert traces() == before
    if number is signal.SIGINT:
        tries = ArchiveReader.open(out).protection()
        assert process.returncode == 130
        assert tries
        assert f"stopped; {len(tries)} tries are kept in {out}" in " ".join(said.split())
    else:
        # What it had done with, protocol by protocol, is kept; never a part of one.
        kept = ArchiveReader.open(out).protection()
        for protocol in {one.protocol for one in kept}:
            due = {attempt.key for attempt in EVERY if str(attempt.protocol) == protocol}
            assert {one.attempt for one in kept if one.protocol == protocol} == due
