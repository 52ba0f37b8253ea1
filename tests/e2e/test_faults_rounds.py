"""Faults in a round of real proxies: an arm whose proxy ends, a run that is killed amid its arms."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.real_study import (
    ME,
    RealRun,
    Seen,
    kill,
    namespaces,
    need_real_proxies,
    nothing_stays,
    private_directory,
    records,
    traces,
)

ARMS = 2
"""No mesh, and strict mTLS."""


@pytest.fixture(autouse=True)
def directory() -> Iterator[Path]:
    need_real_proxies()
    with private_directory(ME, blocks=2, duration="1200ms") as made:
        study = made / "study.yaml"
        study.write_text(study.read_text().replace("arrangement: apart", "arrangement: together\nalone: 0"))
        yield made


def in_a_round(run: RealRun, process: subprocess.Popen[str]) -> Seen:
    """The one instrument of a round, once it records."""

    def recording() -> Seen | None:
        found = [one for one in run.everyone(process) if b"meshwise.load" in one.command]
        return next((one for one in found if records(one)), None)

    return run.await_(process, recording, "an instrument that records")


def test_an_arm_whose_proxy_ends_fails_alone_and_its_round_is_tried_again(directory: Path) -> None:
    run, before = RealRun(directory), traces()
    with run.started() as process:
        in_a_round(run, process)
        everyone = run.everyone(process)
        proxy = next(one for one in everyone if b"--concurrency" in one.command)
        kill(proxy, signal.SIGKILL)
        spaces = namespaces(everyone)
        status, (_, told) = process.wait(120), process.communicate()
    nothing_stays(run, everyone, spaces, before)
    assert status == 0, told
    first = [row for row in run.rows() if row["round"] == 0 and not row["attempt"]]
    by_mesh = {row["mesh"]: row for row in first}
    assert by_mesh["istio"]["status"] == "failed"
    assert "killed by SIGKILL" in str(by_mesh["istio"]["failure"])
    assert by_mesh["none"]["status"] == "ok", "the arm beside it stays valid"
    assert any(str(flag).startswith("company") for flag in by_mesh["none"]["flags"]), "and says so"
    again = [row for row in run.rows() if row["attempt"] == 1]
    assert {row["mesh"] for row in again} == {"none", "istio"}, "a round is tried again whole"
    assert {row["status"] for row in again} == {"ok"}


def test_a_run_killed_in_a_round_leaves_nothing_and_goes_on_at_that_round(directory: Path) -> None:
    run, before = RealRun(directory), traces()
    with run.started() as process:
        in_a_round(run, process)
        everyone = run.everyone(process)
        spaces = namespaces(everyone)
        process.kill()
        process.wait()
    nothing_stays(run, everyone, spaces, before)
    status, told = RealRun(directory, options=("--resume",)).finish()
    assert status == 0, told
    rows = RealRun(directory).rows()
    assert [row["round"] for row in rows] == [0] * ARMS + [1] * ARMS
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["arm"] for row in rows} == {0, 1}
