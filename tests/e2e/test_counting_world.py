"""Counting in a world: real Envoy under valgrind, and what is left when a run is killed in a window."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.counter_conformance import state
from tests.support.people import ORDINARY, ROOT, command_as, environment_as, scene_as
from tests.support.real_study import (
    MARKER,
    RealRun,
    kill,
    namespaces,
    need_real_proxies,
    nothing_stays,
    private_directory,
    traces,
)

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.binary import envoy_path
from meshwise.telemetry.counting import valgrind

PROGRAM = ("-m", "tests.support.counted_world")
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _what_is_needed() -> None:
    need_real_proxies()
    try:
        valgrind.find(os.environ)
    except MeshwiseError as error:
        pytest.skip(str(error))


def test_a_real_envoy_is_counted_and_ends_in_order() -> None:
    counted, ended = scene_as(ROOT if os.geteuid() == 0 else ORDINARY, "tests.support.counted_world", "envoy")
    assert counted["running"]
    assert counted["instructions"] > 10_000
    assert counted["system_calls"]["epoll_wait"] > 1
    assert "clock_gettime" not in counted["system_calls"]
    assert str(envoy_path()) in counted["binaries"]
    assert ended["ending"] == "ended with status 0"


@pytest.mark.parametrize(
    ("person", "doing", "victim"),
    [
        (ROOT, "sleeps", 0),
        (ORDINARY, "works", 0),
        (ROOT, "works", 3),
        (ROOT, "sleeps", signal.SIGINT),
        (ORDINARY, "works", signal.SIGINT),
    ],
    ids=["user's process", "ordinary user's process", "runner", "Ctrl-C", "an ordinary user's Ctrl-C"],
)
def test_nothing_is_left_of_a_run_that_is_killed_in_a_window(person: str, doing: str, victim: int) -> None:
    with private_directory(person, blocks=1) as directory:
        run, before = RealRun(directory, person), traces()
        with subprocess.Popen(
            command_as(person, *PROGRAM, "window", doing),
            env=environment_as(person, **{MARKER: run.marker, "TMPDIR": str(directory / "tmp")}),
            cwd=CHECKOUT, process_group=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            told = json.loads(process.stdout.readline() or "{}")
            assert told.get("open"), process.communicate()[1]
            assert told["uid"] == (1337 if person == ROOT else 0)
            everyone = run.everyone(process)
            counted = [one for one in everyone if any(b"--tool=callgrind" in word for word in one.command)]
            assert len(counted) == 1
            assert state(counted[0].pid) in "RS", "neither stopped nor traced"
            spaces = namespaces(everyone)
            if victim == signal.SIGINT:
                os.killpg(process.pid, signal.SIGINT)
            else:
                kill(run.line(process)[victim])
            process.wait(60)
        nothing_stays(run, everyone, spaces, before)
