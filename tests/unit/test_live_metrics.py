"""`meshwise run --metrics`: right numbers on loopback, and nothing of it in the way of what is measured."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.support.fake_study import small_study
from tests.support.prometheus import free_port, needs_prometheus

from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.cli.live_metrics import both, live_address, live_observer, serving, told_into
from meshwise.core.errors import MeshwiseError
from meshwise.runner.loop import Observer, run_study, schedule_of
from meshwise.series.live import LiveState
from meshwise.study.design.blocks import design
from meshwise.testbed.fake import FakeTestbed

STUDY = small_study()
TRIALS = design(STUDY)


def run(directory: Path, observe: Observer) -> None:
    testbed = FakeTestbed(STUDY, crashes={TRIALS[1].trial_id})
    with testbed, Archive.start(directory, STUDY, TRIALS, testbed.environment()) as archive:
        run_study(STUDY, schedule_of(STUDY, TRIALS), testbed, archive, observe, rest=lambda seconds: None)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Mapping[str, Any]]]:
    """A study that was told on, and all that was told."""
    directory = tmp_path_factory.mktemp("live") / "told"
    lines: list[Mapping[str, Any]] = []
    run(directory, live_observer(lines.append, STUDY, len(TRIALS)))
    return directory, lines


def values(text: str) -> dict[str, float]:
    rows = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in rows}


def test_what_is_told_is_what_is_stored(told: tuple[Path, list[Mapping[str, Any]]]) -> None:
    directory, lines = told
    state = LiveState()
    for line in lines:
        state.take(json.loads(json.dumps(line)))
    found = values(state.text())
    reader = ArchiveReader.open(directory)
    for status in ("ok", "failed", "unproven"):
        stored = reader.trials().filter(pl.col("status") == status).height
        assert found[f'meshwise_run_trials_total{{status="{status}"}}'] == stored
    assert found["meshwise_run_trials_planned"] == len(TRIALS)
    assert found["meshwise_run_measuring"] == 0
    row = reader.trials().filter((pl.col("status") == "ok") & (pl.col("posture") == "strict")).to_dicts()[-1]
    requests = reader.scan_requests([row["trial_id"]]).filter(pl.col("intended_ns") >= 0).collect()
    p50_s = float((requests["done_ns"] - requests["intended_ns"]).quantile(0.5, "linear") or 0) / 1e9
    labels = (
        f'{{mesh="istio",posture="strict",process_set="{row["process_set"]}",protocol="http1",rate_rps="200",'
        f'role="{row["role"]}"}}'
    )
    assert found[f"meshwise_run_last_response_p50_seconds{labels}"] == pytest.approx(p50_s)
    assert found[f"meshwise_run_last_sidecar_cpu_seconds_per_request{labels}"] > 0


def test_while_a_round_is_measured_it_says_which(told: tuple[Path, list[Mapping[str, Any]]]) -> None:
    _, lines = told
    state = LiveState()
    upto = next(place for place, line in enumerate(lines) if line["what"] == "now")
    for line in lines[: upto + 1]:
        state.take(line)
    text = state.text()
    assert "meshwise_run_measuring 1.0" in text
    assert f'trial="{TRIALS[0].trial_id}"' in text
    assert values(text)["meshwise_run_current_requests"] > 0


def test_nothing_that_is_told_breaks_it() -> None:
    state = LiveState()
    state.take({"what": "unknown"})
    state.take({})
    assert "meshwise_run_info" in state.text()


@needs_prometheus
def test_promtool_finds_nothing_to_say(told: tuple[Path, list[Mapping[str, Any]]]) -> None:
    state = LiveState()
    for line in told[1]:
        state.take(line)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=state.text(), capture_output=True, text=True
    )
    assert checked.returncode in (0, 3), checked.stderr  # 3: remarks on style
    assert "error while linting" not in checked.stderr
    assert "parsing" not in checked.stderr


def test_the_tables_of_a_trial_are_the_same_with_and_without(tmp_path: Path) -> None:
    with serving(("127.0.0.1", free_port())) as tell:
        run(tmp_path / "with", live_observer(tell, STUDY, len(TRIALS)))
    run(tmp_path / "without", lambda event: None)
    told, alone = ArchiveReader.open(tmp_path / "with"), ArchiveReader.open(tmp_path / "without")
    assert told.trials().schema == alone.trials().schema
    moments = [
        name
        for name in told.trials().columns
        if name.endswith(("unix_ns", "apply_ns", "prove_ns", "measure_ns"))
    ]
    assert told.trials().drop(moments).equals(alone.trials().drop(moments))
    for trial_id in told.trials().filter(pl.col("requests_rows").is_not_null())["trial_id"]:
        for scan in ("scan_requests", "scan_telemetry"):
            one, other = (getattr(reader, scan)([trial_id]).collect() for reader in (told, alone))
            assert one.schema == other.schema
            assert one.equals(other)


# --- the process that answers ----------------------------------------------------------------------


def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def eventually(ready: Callable[[], bool]) -> None:
    for _ in range(600):
        if ready():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def children() -> set[int]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(pid) for pid in path.read_text().split()}


def test_it_answers_on_loopback_under_the_idle_scheduler_and_ends() -> None:
    port, before = free_port(), children()
    with serving(("127.0.0.1", port)) as tell:
        (pid,) = children() - before
        tell({"what": "study", "name": "asked", "version": "1", "trials": 4, "started_s": 1.0})
        tell({"what": "ended", "status": "ok"})
        eventually(lambda: 'run_trials_total{status="ok"} 1.0' in get(port)[1])
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        assert get(port, "/")[0] == 404
        assert get(port, method="DELETE")[0] == 405
        assert get(port, method="HEAD") == (200, "")
        with contextlib.ExitStack() as stack:  # those that ask nothing hold nobody up for long
            for _ in range(8):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            assert get(port)[0] == 200
        other = socket.socket()
        other.settimeout(5)
        with other, contextlib.suppress(OSError):
            other.connect(("127.0.0.1", port))
            other.sendall(b"x" * 20_000)
            assert other.recv(10) == b""
        assert get(port)[0] == 200
    with pytest.raises(OSError):
        get(port)
    assert children() == before


def get_quietly(port: int) -> bool:
    try:
        return get(port)[0] == 200
    except OSError:
        return False


def test_the_pipe_never_blocks_and_what_is_dropped_is_said() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    tell = told_into(writing)
    for _ in range(2000):
        tell({"what": "now", "elapsed_s": 1.0, "completed": 1, "p50_us": None, "filler": "x" * 100})
    tell({"filler": "x" * 10_000})
    kept = os.read(reading, 1 << 20)
    tell({"what": "round"})
    last = json.loads(os.read(reading, 4096).splitlines()[-1])
    os.close(reading)
    os.close(writing)
    assert kept.endswith(b"\n")
    assert last["dropped"] == 2001 - kept.count(b"\n")


def test_it_ends_with_the_study_also_when_that_is_killed() -> None:
    port = free_port()
    script = (
        "import time\n"
        "from meshwise.cli.live_metrics import serving\n"
        f"with serving(('127.0.0.1', {port})):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as study:
        assert study.stdout is not None
        study.stdout.readline()
        eventually(lambda: get_quietly(port))
        study.send_signal(signal.SIGKILL)
    eventually(lambda: not get_quietly(port))


def test_a_port_that_is_taken_is_said_before_anything_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(MeshwiseError) as caught, serving(("127.0.0.1", other.getsockname()[1])):
            pass
    assert caught.value.code == "MW030"


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0:9100", "192.0.2.1:9100", "example.org:9100", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:x",
        ":9100", "[::]:1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_on_loopback(text: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        live_address(text)
    assert caught.value.code == "MW010"


def test_addresses_on_loopback() -> None:
    assert live_address("127.0.0.1:9100") == ("127.0.0.1", 9100)
    assert live_address("localhost:9100") == ("127.0.0.1", 9100)
    assert live_address("[::1]:9100") == ("::1", 9100)


def test_both_observers_hear_all() -> None:
    heard: list[str] = []
    observe = both(lambda event: heard.append("first"), lambda event: heard.append("second"))
    observe(None)  # type: ignore[arg-type]
    both(lambda event: heard.append("alone"), None)(None)  # type: ignore[arg-type]
    assert heard == ["first", "second", "alone"]
