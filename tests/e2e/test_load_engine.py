"""The engine on real sockets: schedule, queueing, repair, stopping, and what it records of it."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.support.hostile import OK_HTTP1, hostile, read_request
from tests.support.loads import MS, load_spec, run_here
from tests.support.truth_server import truth_server

from meshwise.load.engine import Engine
from meshwise.load.records import peek, read_records
from meshwise.load.report import LoadReport
from meshwise.load.spec import LoadSpec
from meshwise.study.model import Arrivals


def answers(sock: socket.socket) -> None:
    while True:
        read_request(sock)
        sock.sendall(OK_HTTP1)


def test_open_loop_keeps_to_its_schedule(tmp_path: Path) -> None:
    with hostile(answers) as port:
        ran = run_here(load_spec(port, warmup_ns=100 * MS), tmp_path)
    intended = np.array(ran.table["intended_ns"])
    assert np.array_equal(intended, np.arange(120) * 5 * MS - 100 * MS)
    assert set(ran.errors()) == {""}
    sent, first, done = (np.array(ran.table[name]) for name in ("sent_ns", "first_byte_ns", "done_ns"))
    assert np.all(sent >= intended)  # never early
    assert np.all((first >= sent) & (done >= first))
    assert set(ran.table["status"].to_pylist()) == {200}
    assert set(ran.table["connection"].to_pylist()) == {0, 1, 2, 3}
    assert (ran.report.requests, ran.report.closed_loop) == (100, False)


def test_a_stall_is_charged_to_every_request_that_was_meant_to_be_sent(tmp_path: Path) -> None:
    """One slot, a server that stands still for 200 ms: the wait is in the response times."""
    with truth_server("--stall", "200ms", "--every", "60s") as server:
        left_s = 0.2 - (time.monotonic_ns() - server.start_ns) / 1e9
        ran = run_here(load_spec(server.port, connections=1, rate_rps=500, timeout_ns=2000 * MS), tmp_path)
    stalled = max(0.0, left_s)
    queued = np.array(ran.table["queued"])
    response = np.array(ran.table["done_ns"]) - np.array(ran.table["intended_ns"])
    assert set(ran.errors()) == {""}
    if stalled > 0.1:  # else this machine was too slow to start inside the stall
        assert queued.sum() > 30
        assert np.count_nonzero(response > 20 * MS) > 30
        assert ran.report.waited_for["slot"] > 30
        assert ran.report.limited_by in ("server", "host")  # host: something else had this machine's CPU


def test_closed_loop_sends_when_answers_come(tmp_path: Path) -> None:
    with hostile(answers) as port:
        ran = run_here(
            load_spec(port, arrivals=Arrivals.CLOSED, rate_rps=0.0, duration_ns=300 * MS), tmp_path
        )
    assert ran.report.closed_loop
    assert ran.report.requests > 100
    assert ran.table["intended_ns"].equals(ran.table["sent_ns"])
    assert ran.report.rate_intended is None


def test_requests_behind_a_full_slot_time_out_without_being_sent(tmp_path: Path) -> None:
    def one_then_silence(sock: socket.socket) -> None:
        read_request(sock)
        while sock.recv(65536):
            pass

    with hostile(one_then_silence) as port:
        ran = run_here(load_spec(port, connections=1, timeout_ns=150 * MS), tmp_path)
    assert set(ran.errors()) == {"timeout"}
    assert ran.table["sent_ns"].null_count > 80


def test_a_server_that_goes_and_comes_back(tmp_path: Path) -> None:
    """While it is away requests fail of `connect` or `reset`, at once; afterwards all is well."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()

    def restart(_: Engine) -> None:
        time.sleep(0.3)
        first.close()
        time.sleep(0.2)
        comeback.start()

    first, comeback = _Server(port), _Server(port)
    first.start()
    ran = run_here(load_spec(port, duration_ns=900 * MS), tmp_path, restart)
    comeback.close()
    errors = ran.errors()
    assert set(errors[:50]) == {""}
    assert {"connect"} <= set(errors[60:110]) <= {"connect", "reset", ""}
    assert set(errors[-20:]) == {""}
    assert "connect" in ran.report.setup_failures


class _Server:
    """An answering server that can be ended and started again on its port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._close = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def start(self) -> None:
        self._thread.start()
        time.sleep(0.02)

    def _serve(self) -> None:
        listener = socket.create_server(("127.0.0.1", self._port), reuse_port=False)
        listener.settimeout(0.02)
        socks: list[socket.socket] = []
        while not self._close.is_set():
            try:
                sock, _ = listener.accept()
            except TimeoutError:
                continue
            socks.append(sock)
            threading.Thread(target=self._answer, args=(sock,), daemon=True).start()
        listener.close()
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _answer(sock: socket.socket) -> None:
        try:
            answers(sock)
        except (EOFError, OSError):
            sock.close()

    def close(self) -> None:
        self._close.set()
        self._thread.join()


# --- the process ---------------------------------------------------------------------------------


def _process(spec: LoadSpec, directory: Path) -> subprocess.Popen[str]:
    (directory / "spec.json").write_text(spec.to_json())
    argv = [
        sys.executable,
        "-m",
        "meshwise.load",
        "--spec",
        str(directory / "spec.json"),
        "--out",
        str(directory),
    ]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_the_contract_of_the_process_and_a_stop_by_signal(tmp_path: Path) -> None:
    with hostile(answers) as port, _process(load_spec(port, duration_ns=60_000 * MS), tmp_path) as process:
        assert process.stdout is not None
        event = json.loads(process.stdout.readline())
        assert event["event"] == "started"
        deadline = time.monotonic() + 10
        while peek(tmp_path)[0] < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        completed, p50_us = peek(tmp_path)
        assert completed >= 20
        assert p50_us is not None
        assert read_records(tmp_path).num_rows >= 20
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    found = LoadReport.from_json((tmp_path / "report.json").read_text())
    assert found.stopped_early
    assert found.requests == read_records(tmp_path).num_rows < 12_000
    assert not found.errors


def test_a_run_that_ends_in_its_warm_up_makes_no_verdict(tmp_path: Path) -> None:
    def stop(engine: Engine) -> None:
        time.sleep(0.2)
        engine.stop()

    with hostile(answers) as port:
        ran = run_here(load_spec(port, warmup_ns=60_000 * MS), tmp_path, stop)
    assert (ran.facts.wall_ns, ran.report.requests, ran.report.stopped_early) == (0, 0, True)
    assert (ran.report.limited_by, ran.report.cpu_share, ran.report.cpu_us_per_request) == (
        "unknown",
        None,
        None,
    )


def test_what_a_killed_process_recorded_is_readable(tmp_path: Path) -> None:
    with hostile(answers) as port, _process(load_spec(port, duration_ns=60_000 * MS), tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 10
        while peek(tmp_path)[0] < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    assert read_records(tmp_path).num_rows >= 20


def test_several_processes_share_one_schedule(tmp_path: Path) -> None:
    with hostile(answers) as port, _process(load_spec(port, processes=3, connections=5), tmp_path) as process:
        assert process.wait(30) == 0
    table = read_records(tmp_path)
    assert np.array_equal(np.array(table["intended_ns"]), np.arange(100) * 5 * MS)
    found = LoadReport.from_json((tmp_path / "report.json").read_text())
    assert (found.requests, found.processes, found.connections_made, found.errors) == (100, 3, 5, {})


@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_that_is_not_there(tmp_path: Path, processes: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with _process(load_spec(port, processes=processes), tmp_path) as process:
        assert process.stdout is not None
        event = json.loads(process.stdout.readline())
        assert process.wait(20) == 3
    assert (event["event"], event["code"]) == ("failed", "MW306")


def test_a_spec_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"address": 1}')
    argv = [
        sys.executable,
        "-m",
        "meshwise.load",
        "--spec",
        str(tmp_path / "spec.json"),
        "--out",
        str(tmp_path),
    ]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert json.loads(ended.stdout)["code"] == "MW305"
    assert ended.returncode == 3
