"""Counting trials with real Envoys: what is asked in every window, who is counted, what a fault becomes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.e2e.test_testbed_world import MARKER, traces, wait_for_nobody
from tests.support.people import ORDINARY, ROOT, command_as, environment_as

from meshwise.archive.read import ArchiveReader
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.binary import envoy_path
from meshwise.telemetry.counting import valgrind

PERSON = ROOT if os.geteuid() == 0 else ORDINARY
CLI = "from meshwise.cli.main import main; main()"
STUDY = """\
name: few
environments: istio
factors: {posture: strict, connections: 1}
count: {requests: 10, windows: 2, warmup: 20, handshakes: 2, executions: 2}
"""


@pytest.fixture(autouse=True)
def _envoy() -> None:
    try:
        envoy_path()
    except MeshwiseError as error:
        pytest.skip(f"needs Envoy: {error.remedy}")


@pytest.fixture
def _valgrind() -> None:
    try:
        valgrind.find(os.environ)
    except MeshwiseError as error:
        pytest.skip(f"needs valgrind: {error.remedy}")


def scene(*words: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        command_as(PERSON, "-m", "tests.support.inside_counting", *words),
        env=environment_as(PERSON), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_window_has_exactly_its_requests_on_every_protocol() -> None:
    told, *trials = scene("windows")
    assert told == {
        "counter": {
            "name": "fake",
            "tool": "fake",
            "version": "1",
            "counts": "what it is told",
            "cpu": "none",
        },
        "workers": 1,
        "slowness": 1.0,  # of the machine; this counter is twice as slow
    }
    assert Counter(one["cell"] for one in trials).most_common(1)[0][1] == 2
    assert len(trials) == 2 * 6
    for one in trials:
        assert (one["status"], one["failure"], one["flags"], one["errors"]) == ("ok", "", [], [""]), one
        assert (one["requests"], one["warmup"]) == (4 + 2 * 8, 4)
        kinds = dict.fromkeys(
            (row["window"], row["kind"], row["requests"], row["connections"]) for row in one["counts"]
        )
        expected = [
            (0, "warmup", 4, 4),
            (1, "requests", 8, 4),
            (2, "requests", 8, 4),
            (3, "idle", 0, 4),
            (4, "fresh", 3, 3),
        ]
        resumed = [] if "/plaintext/" in one["cell"] else [(5, "resumed", 3, 3)]
        assert list(kinds) == expected + resumed
        sources = {row["source"] for row in one["counts"]}
        assert sources == {
            f"istio/{one['life']}/{name}/proxy" for name in ("client", "node-1", "node-2")[: one["nodes"] + 1]
        }
        spans = {row["kind"]: row["duration_ns"] for row in one["counts"]}
        for row in one["counts"]:
            if row["metric"] == "instructions":  # the fake counts nanoseconds
                assert row["value"] >= row["duration_ns"]
        assert spans["idle"] >= 0.5 * min(
            row["duration_ns"] for row in one["counts"] if row["kind"] == "requests"
        )


def test_a_sidecar_that_ends_while_it_is_counted_fails_its_trial_and_no_other() -> None:
    first, second, again = scene("killed")
    by_life = {one["life"]: one for one in (first, second)}
    assert by_life["b"]["status"] == "failed"
    assert f"{by_life['b']['killed']} killed by SIGKILL" in by_life["b"]["failure"]
    assert by_life["a"]["status"] == "ok"
    assert again == {"status": "ok", "failure": ""}


def count(
    study: Path, out: Path, marker: str, *words: str, command: str = "count", **more: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command_as(PERSON, "-c", CLI, command, str(study), "--out", str(out), *words),
        env=environment_as(PERSON, **{MARKER: marker}, **more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.usefixtures("_valgrind")
def test_the_command_counts_under_valgrind_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    study, out, before = tmp_path / "few.yaml", tmp_path / "out", traces()
    study.write_text(STUDY)
    marker = uuid.uuid4().hex
    with count(study, out, marker) as process:
        wait_for(out / "design.parquet", process)
        time.sleep(3)  # starting under valgrind, or in the first trial
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    wait_for_nobody(marker)
    assert traces() == before
    with count(study, out, marker, "--resume") as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    reader = ArchiveReader.open(out)
    assert reader.trials()["status"].to_list() == ["ok", "ok"]
    assert reader.environment["counter"]["name"] == "callgrind"
    counts = reader.counts()
    asked = counts.filter((pl.col("kind") == "requests") & (pl.col("metric") == "instructions"))
    per_request = (asked["value"] / asked["requests"]).to_list()
    assert len(per_request) == 2 * 2 * 2
    assert all(100_000 < each < 1_000_000 for each in per_request)
    calls = counts.filter((pl.col("metric") == "system_calls") & (pl.col("kind") == "requests"))
    assert {"epoll_wait", "writev"} <= set(calls["name"].cast(pl.String))
    fresh, resumed = (
        counts.filter((pl.col("kind") == kind) & (pl.col("metric") == "instructions"))["value"].max()
        for kind in ("fresh", "resumed")
    )
    assert fresh > 2 * resumed  # type: ignore[operator]


@pytest.mark.usefixtures("_valgrind")
def test_sigkill_while_counting_leaves_nothing(tmp_path: Path) -> None:
    study, out, before = tmp_path / "few.yaml", tmp_path / "out", traces()
    study.write_text(STUDY)
    marker = uuid.uuid4().hex
    with count(study, out, marker) as process:
        wait_for(out / "design.parquet", process)
        time.sleep(2)
        process.send_signal(signal.SIGKILL)
    wait_for_nobody(marker)
    assert traces() == before


@pytest.mark.usefixtures("_valgrind")
def test_without_valgrind_a_study_is_timed_and_says_so_and_counts_when_it_is_there(tmp_path: Path) -> None:
    study, out = tmp_path / "both.yaml", tmp_path / "out"
    study.write_text(STUDY + "trial: {warmup: 100ms, duration: 500ms}\nblocks: 2\nalone: 0\n")
    marker = uuid.uuid4().hex
    with count(study, out, marker, command="run", MESHWISE_VALGRIND=str(tmp_path / "none")) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "nothing is counted: " in said
    assert "--resume" in said
    roles = ArchiveReader.open(out).trials()["role"].cast(pl.String)
    assert set(roles) == {"cell", "twin"}
    with count(study, out, marker, "--resume", command="run") as process:
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    roles = ArchiveReader.open(out).trials()["role"].cast(pl.String)
    assert Counter(roles)["count"] == 2


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
