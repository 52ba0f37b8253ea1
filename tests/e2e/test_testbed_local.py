"""The local testbed with real Envoy sidecars: every kind of trial, and each process killed during one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from tests.e2e.test_testbed_world import MARKER, traces, wait_for_nobody
from tests.support.people import ORDINARY, ROOT, command_as, environment_as
from tests.support.testbed_conformance import BedConformance

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.binary import envoy_path

PROGRAM = ("-m", "tests.support.inside_testbed")


@pytest.fixture(autouse=True)
def _envoy() -> None:
    try:
        envoy_path()
    except MeshwiseError as error:
        pytest.skip(f"needs Envoy: {error.remedy}")


def scene(person: str, *words: str, **more: str) -> list[dict[str, object]]:
    done = subprocess.run(
        command_as(person, *PROGRAM, *words),
        env=environment_as(person, **more), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def sources(*names: str) -> list[str]:
    return sorted(names)


@pytest.mark.parametrize("person", [ROOT, ORDINARY])
def test_every_kind_of_trial_runs_on_real_proxies(person: str) -> None:
    told, none, plaintext, chain, http2, grpc, shared, opaque, twin, again, left = scene(person, "ladder")
    environment = told["environment"]
    assert isinstance(environment, dict)
    assert environment["testbed"] == "local"
    assert environment["privileged"] is (person == ROOT)
    assert environment["proxies"]["istio"]["version"]

    good = {"failure": "", "lost": 0}
    for one in (none, plaintext, chain, http2, grpc, shared, opaque, twin, again):
        assert {key: one[key] for key in good} == good, one
        # A second client keeps its own start.
        assert one in (shared, opaque) or one["first_ns"] == [-400_000_000]
        assert {"cpu_ns", "rss_bytes", "pss_bytes"} <= set(one["metrics"])  # type: ignore[call-overload]
        assert {"limited_by", "lateness_p99_us", "cpu_us_per_request"} <= set(one["instrument"])  # type: ignore[call-overload]
    for one in (none, plaintext, chain, http2, twin, again):
        assert one["status"] == {"200": 300}
        assert one["clients"] == {"mesh": 300}
    assert grpc["status"] == {"1000": 300}
    assert opaque["status"] == {"0": 300}, "whole answers, which have no status"
    assert opaque["clients"] == {"mesh": 150, "outside": 150}

    assert none["cpu"] == sources("none/a/client/instrument", "none/a/node-1/service")
    sidecars = ("istio/a/client/proxy", "istio/a/node-1/proxy")
    controller = "istio/a/client/controller"
    point_to_point = sources("istio/a/client/instrument", "istio/a/node-1/service", controller, *sidecars)
    assert plaintext["cpu"] == http2["cpu"] == again["cpu"] == point_to_point
    assert chain["cpu"] == sources(*point_to_point, "istio/a/node-2/proxy", "istio/a/node-2/service")
    assert twin["cpu"] == [source.replace("/a/", "/b/") for source in point_to_point]
    assert shared["clients"] == {"mesh": 150, "outside": 150}
    assert shared["cpu"] == sources(*point_to_point, "istio/a/outsider/instrument")
    assert left == {"left": []}


def test_a_proxy_that_starts_slowly_is_waited_for_because_the_run_has_measured_that() -> None:
    directory = Path("/tmp") / f"meshwise-test-{uuid.uuid4().hex}"
    directory.mkdir()
    directory.chmod(0o755)
    slow = directory / "envoy"
    # Only what starts a proxy is slow: to ask what a configuration may hold takes as long as ever.
    slow.write_text(f'#!/bin/sh\ncase "$*" in *validate*) ;; *) sleep 2 ;; esac\nexec {envoy_path()} "$@"\n')
    slow.chmod(0o755)
    person = ROOT if os.geteuid() == 0 else ORDINARY
    try:
        refused, known, measured = scene(person, "slow_start", MESHWISE_ENVOY=str(slow))
    finally:
        slow.unlink()
        directory.rmdir()
    assert refused["refused"] == "MW212"
    assert re.search(r"not ready within (0\.\d|1) s", str(refused["what"])), "what is left of a second"
    assert known["slowness"] == known["measured"] >= 20  # type: ignore[operator]
    assert known["of"] == "starting Envoy"
    assert (measured["failure"], measured["status"]) == ("", {"200": 300})


def test_it_conforms_to_its_seam() -> None:
    person = ROOT if os.geteuid() == 0 else ORDINARY
    done = subprocess.run(
        command_as(person, *PROGRAM, "conform"),
        env=environment_as(person), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    laws = [name for name in vars(BedConformance) if name.startswith("test_")]
    assert f"{len(laws)} passed" in done.stdout


@pytest.mark.parametrize("role", ["proxy", "service", "instrument"])
def test_a_process_killed_during_a_trial_fails_it_and_is_named(role: str) -> None:
    person = ROOT if os.geteuid() == 0 else ORDINARY
    failed, after, again = scene(person, "fault", role)
    assert f"/{role} killed by SIGKILL" in str(failed["failure"])
    assert failed["status"], "what was recorded until then is kept"
    if role == "instrument":
        assert after == {"applied": True}
    else:
        assert (after["refused"], after["fault"]) == ("MW503", "proxy")
        assert f"/{role} killed by SIGKILL" in str(after["what"])
    assert (again["failure"], again["status"]) == ("", {"200": 750})


def test_only_arms_that_cannot_be_reached_leave_a_round_and_the_others_say_so() -> None:
    """After their proof and before the start: a proxy that takes no connection, and a service that ended."""
    person = ROOT if os.geteuid() == 0 else ORDINARY
    rounds = scene(person, "gone")
    assert [len(one["lost"]) for one in rounds] == [1, 2, 3]  # type: ignore[arg-type]
    for one in rounds:
        arms, lost = one["arms"], one["lost"]
        assert isinstance(arms, dict)
        assert isinstance(lost, list)
        assert len(arms) == 3
        for name, arm in arms.items():
            if name in lost:
                assert arm["status"] == "failed"
                why = "/client/instrument: no connection could be made (connect): Connection refused [MW306]"
                if name == "none":
                    why = "none/a/node-1/service killed by SIGKILL"
                assert why in arm["failure"], arm
                assert arm["failure"].startswith("none/a/" if name == "none" else "istio/")
                assert (arm["answers"], arm["cpu"], arm["flags"]) == ({}, [], [])
            else:
                assert (arm["status"], arm["failure"]) == ("ok", "")
                assert arm["answers"] == {"200": 300}
                assert len(arm["cpu"]) == (2 if name == "none" else 5), (
                    "instrument, service, sidecars, control plane"
                )
                (flag,) = arm["flags"]
                assert flag.startswith("company")
                assert {name.split("/")[1] for name in flag.split(": ")[2].split(", ")} == set(lost)


@pytest.mark.parametrize("moment", range(4))
def test_sigkill_during_a_study_leaves_nothing(moment: int) -> None:
    """At random moments of starting processes, of changing the posture, and of trials."""
    person = ROOT if os.geteuid() == 0 else ORDINARY
    marker, before = uuid.uuid4().hex, traces()
    with subprocess.Popen(
        command_as(person, *PROGRAM, "hold"),
        env=environment_as(person, **{MARKER: marker}), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        namespace = int(json.loads(process.stdout.readline())["pid_namespace"])
        time.sleep(random.Random(moment).uniform(0.0, 3.0))
        process.send_signal(signal.SIGKILL)
    wait_for_nobody(marker)
    deadline = time.monotonic() + 10
    while members := inside(namespace):
        assert time.monotonic() < deadline, f"still in the world: {members}"
    assert traces() == before


def inside(pid_namespace: int) -> list[str]:
    """Processes in that PID namespace: proxies, which do not inherit the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "ns/pid").stat().st_ino == pid_namespace:
                found.append(entry.name)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found
