"""Loads that move, on real sockets: a shape, a trace, a loop that thinks; and `meshwise load` with each."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.e2e.test_load_command import run
from tests.e2e.test_load_engine import answers
from tests.support.hostile import hostile
from tests.support.loads import MS, load_spec, run_here
from tests.support.truth_server import read_record, truth_server

from meshwise.load.intended import intended_times
from meshwise.load.launch import running_load
from meshwise.load.records import read_records
from meshwise.load.trace import write_trace
from meshwise.study.load.profile import LoadProfile, Spike, Think, TraceFile
from meshwise.study.load.trace import read_trace
from meshwise.study.model import Arrivals

S = 10**9


def test_a_shape_is_what_is_intended_by_two_processes_too(tmp_path: Path) -> None:
    shape = LoadProfile(spike=Spike(200 * MS, 100 * MS, 4.0))
    with hostile(answers) as port:
        spec = load_spec(port, shape=shape, warmup_ns=100 * MS, processes=2)
        with running_load(spec) as running:
            running.process.wait(30)
            report, table = running.report(), read_records(running.files)
    intended = np.array(table["intended_ns"])
    assert report.errors == {}
    assert np.array_equal(np.sort(intended), intended_times(spec) - 100 * MS)
    assert np.count_nonzero((intended >= 200 * MS) & (intended < 300 * MS)) == 80
    assert report.requests == 160
    assert report.rate_intended == 320.0


def test_a_trace_reaches_the_server_in_its_order(tmp_path: Path) -> None:
    """Counts and times as intended; how near they are is `benchmarks/load_replay.py`'s to say."""
    gaps = np.random.default_rng(4).exponential(2 * MS, 300)
    rows = "".join(f"{t / 1e9:.9f}\n" for t in np.cumsum(gaps))
    (tmp_path / "t.csv").write_text("time_s\n" + rows)
    found = read_trace(tmp_path / "t.csv", 500 * MS)
    write_trace(TraceFile("t.csv", str(tmp_path / "t.csv"), found.sha256), 500 * MS, tmp_path / "bin")
    record = tmp_path / "record.npy"
    with truth_server("--record", str(record)) as server:
        spec = load_spec(server.port, trace=str(tmp_path / "bin"), rate_rps=found.rate_rps)
        ran = run_here(spec, tmp_path)
    expected = np.rint(np.cumsum(gaps) - gaps[0])
    assert set(ran.errors()) == {""}
    assert np.allclose(np.array(ran.table["intended_ns"]), expected[expected < 500 * MS], atol=1000)
    assert np.all(np.array(ran.table["sent_ns"]) >= np.array(ran.table["intended_ns"]))
    assert read_record(record).shape[0] == ran.table.num_rows


def pauses_ns(table: object) -> np.ndarray:
    """From each answer to the next request on the same connection."""
    columns = {name: np.array(table[name]) for name in ("connection", "sent_ns", "done_ns")}  # type: ignore[index]
    found = []
    for connection in np.unique(columns["connection"]):
        own = columns["connection"] == connection
        sent, done = np.sort(columns["sent_ns"][own]), np.sort(columns["done_ns"][own])
        found.append(sent[1:] - done[:-1])
    return np.concatenate(found)


def test_a_closed_loop_thinks_before_it_asks_again(tmp_path: Path) -> None:
    with hostile(answers) as port:
        spec = load_spec(port, arrivals=Arrivals.CLOSED, rate_rps=0.0, think=Think(20 * MS))
        ran = run_here(spec, tmp_path)
    pauses = pauses_ns(ran.table)
    assert set(ran.errors()) == {""}
    assert pauses.size > 4
    assert pauses.min() >= 20 * MS
    assert np.array(ran.table["sent_ns"]).min() >= 20 * MS  # each user thinks before the first request
    assert ran.table.num_rows <= 4 * 25


def test_exponential_think_times_differ(tmp_path: Path) -> None:
    with hostile(answers) as port:
        think = Think(5 * MS, exponential=True)
        spec = load_spec(port, arrivals=Arrivals.CLOSED, rate_rps=0.0, think=think)
        ran = run_here(spec, tmp_path)
    pauses = pauses_ns(ran.table)
    assert pauses.size > 20
    assert pauses.min() >= 0
    assert np.quantile(pauses, 0.9) > 2 * np.median(pauses)


def lazy(sock: socket.socket) -> None:
    """Never answers."""
    sock.recv(1)
    while sock.recv(65536):
        pass


def test_a_thinking_loop_goes_on_after_a_time_out(tmp_path: Path) -> None:
    with hostile(lazy) as port:
        spec = load_spec(
            port, arrivals=Arrivals.CLOSED, rate_rps=0.0, think=Think(10 * MS), timeout_ns=50 * MS
        )
        ran = run_here(spec, tmp_path)
    assert set(ran.errors()) <= {"timeout", "stopped"}
    assert ran.table.num_rows > 4


# --- the command -------------------------------------------------------------------------------------------

SHORT = ["--duration", "500ms", "--warmup", "100ms", "--connections", "2", "--json"]


def test_the_command_takes_a_shape(tmp_path: Path) -> None:
    shape = "{spike: {at: 200ms, lasts: 100ms, height: 4x}}"
    with hostile(answers) as port:
        parquet = ["--parquet", str(tmp_path / "r")]
        ended = run(f"http://127.0.0.1:{port}/", *SHORT, "--rate", "200/s", "--shape", shape, *parquet)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["requests"] == 160
    intended = pq.read_table(tmp_path / "r")["intended_ns"].to_numpy()
    assert np.count_nonzero((intended >= 200 * MS) & (intended < 300 * MS)) == 80


def test_the_command_replays_a_trace(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time_ms\n" + "".join(f"{k}\n" for k in range(0, 2000, 5)))
    with hostile(answers) as port:
        ended = run(f"http://127.0.0.1:{port}/", *SHORT, "--trace", str(tmp_path / "t.csv"))
    assert ended.returncode == 0
    assert ended.stderr == "note: a trial replays the first 500ms of t.csv: 100 of its 400 requests\n"
    assert json.loads(ended.stdout)["requests"] == 100


def test_the_command_replays_rates_and_thinks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time_s,rate_rps\n0,100\n0.25,300\n")
    with hostile(answers) as port:
        url = f"http://127.0.0.1:{port}/"
        rates = run(url, *SHORT, "--trace", str(tmp_path / "t.csv"), "--arrivals", "uniform")
        thinks = run(url, *SHORT[:-1], "--arrivals", "closed", "--think", "exponential 10ms")
    assert json.loads(rates.stdout)["requests"] == 100
    assert thinks.returncode == 0
    assert "closed loop, thinking exponential 10ms" in thinks.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--shape", "{spik: {}}"], "MW103"),
        (["--shape", "{ramp: {start: 1x, end: 900x}}"], "MW107"),
        (["--shape", "{ramp: {start: 0x, end: 2x}}", "--arrivals", "closed"], "MW107"),
        (["--trace", "/no/such.csv"], "MW113"),
        (["--trace", "{csv}", "--shape", "{ramp: {start: 0x, end: 2x}}"], "MW303"),
        (["--trace", "{csv}", "--arrivals", "poisson"], "MW303"),
        (["--trace", "{csv}", "--arrivals", "closed"], "MW303"),
        (["--trace", "{fast}"], "MW303"),
        (["--think", "10ms"], "MW303"),
        (["--think", "a while", "--arrivals", "closed"], "MW101"),
        (["--trace", "{csv}", "--duration", "2h"], "MW303"),
    ],
)
def test_what_the_command_refuses(tmp_path: Path, arguments: list[str], code: str) -> None:
    (tmp_path / "t.csv").write_text("time_s\n0\n0.1\n")
    (tmp_path / "fast.csv").write_text("time_s,rate_rps\n0,500000\n")
    files = {"{csv}": str(tmp_path / "t.csv"), "{fast}": str(tmp_path / "fast.csv")}
    ended = run("http://127.0.0.1:1/", *(files.get(each, each) for each in arguments))
    assert ended.returncode == 2, ended.stderr
    assert code in ended.stderr
    assert "Traceback" not in ended.stderr
