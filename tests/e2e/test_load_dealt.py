"""One stream to several targets: dealt as told, nobody behind another's queue, differences that are there."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats
from tests.e2e.test_load_command import SHORT, run
from tests.support.hostile import OK_HTTP1, hostile, never_answers, read_request
from tests.support.loads import MS, load_spec, run_dealt, started
from tests.support.nodes import RunningNode, fresh_address, running_node
from tests.support.people import ORDINARY, ROOT, command_as, environment_as

from meshwise.load.dealt import Dealt, times_of_each
from meshwise.load.records import peek, read_records
from meshwise.load.spec import LoadSpec
from meshwise.service.spec import NodeSpec
from meshwise.study.model import Arrivals, Protocol

CHANCE = 1e-5


def answers(sock: socket.socket) -> None:
    while True:
        read_request(sock)
        sock.sendall(OK_HTTP1)


def answers_later(sock: socket.socket) -> None:
    """By 200 us, on the CPU: a sleep would be longer by what the machine makes of it."""
    while True:
        read_request(sock)
        until_ns = time.monotonic_ns() + 200_000
        while time.monotonic_ns() < until_ns:
            pass
        sock.sendall(OK_HTTP1)


@pytest.fixture(scope="module")
def node() -> Iterator[RunningNode]:
    with running_node(NodeSpec("node-1", fresh_address(), work_rounds_per_us=2.0)) as running:
        yield running


def of_node(node: RunningNode, protocol: Protocol, **changes: object) -> LoadSpec:
    port = node.spec.ports[protocol]
    path = "/meshwise.Echo/Call" if protocol is Protocol.GRPC else "/echo"
    method = "POST" if protocol is Protocol.GRPC else "GET"
    values = {"address": node.address, "path": path, "method": method, "timeout_ns": 5000 * MS, **changes}
    return load_spec(port, protocol, **values)


NEW, CHURN = {"requests_per_connection": 1}, {"churn_per_s": 40.0}


@pytest.mark.parametrize(
    ("protocol", "pattern"),
    [*((each, pattern) for each in Protocol for pattern in ({}, NEW)), (Protocol.HTTP1, CHURN)],
)
def test_every_target_has_its_own_requests_at_its_own_times(
    node: RunningNode, protocol: Protocol, pattern: dict[str, object], tmp_path: Path
) -> None:
    streams = 2 if protocol in (Protocol.HTTP2, Protocol.GRPC) else 1
    spec = of_node(node, protocol, streams=streams, response_bytes=100, **pattern)
    dealt = Dealt((spec, replace(spec, connections=2), spec), 7)
    ran = run_dealt(dealt, tmp_path)
    for (table, found), times, own in zip(ran, times_of_each(dealt), dealt.targets, strict=True):
        assert np.array_equal(np.array(table["intended_ns"]), times)
        assert (found.requests, found.errors) == (100, {})
        assert np.all(np.array(table["sent_ns"]) >= times)
        assert set(table["connection"].to_pylist()) == set(range(own.connections))
        if "requests_per_connection" in pattern:
            assert found.connections_made >= 100
        if "churn_per_s" in pattern:
            assert found.connections_replaced >= 10


def groups(ran: Sequence[tuple[Any, object]]) -> tuple[np.ndarray, np.ndarray]:
    """Of two targets: response times and whether the first came first, for each group."""
    intended, done = (np.array([table[name] for table, _ in ran]) for name in ("intended_ns", "done_ns"))
    return done - intended, intended[0] < intended[1]


@pytest.mark.parametrize("arrivals", [Arrivals.CONSTANT, Arrivals.POISSON])
def test_equal_targets_do_not_differ_whoever_comes_first(arrivals: Arrivals, tmp_path: Path) -> None:
    """Who comes first was drawn, so both tests are exact on any machine, however busy."""
    with hostile(answers) as port:
        spec = load_spec(port, arrivals=arrivals, rate_rps=500, duration_ns=1500 * MS, timeout_ns=9000 * MS)
        response, first = groups(run_dealt(Dealt((spec, spec), 3), tmp_path))
    slower = response[0] > response[1]
    assert 0.3 < first.mean() < 0.7
    assert stats.binomtest(int(slower.sum()), slower.size).pvalue > CHANCE
    leads, follows = slower[first], ~slower[~first]
    table = [[leads.sum(), (~leads).sum()], [follows.sum(), (~follows).sum()]]
    assert stats.fisher_exact(table).pvalue > CHANCE


def test_a_planted_difference_is_found(tmp_path: Path) -> None:
    """Of 200 us, by the command, within (three times) its interval."""
    with hostile(answers) as fast, hostile(answers_later) as slow:
        ended = run(
            f"http://127.0.0.1:{fast}/", f"http://127.0.0.1:{slow}/", "--rate", "200/s", "--duration", "4s",
            "--warmup", "200ms", "--connections", "4", "--json", "--parquet", str(tmp_path / "r.parquet"),
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    told = json.loads(ended.stdout)
    assert [target["requests"] for target in told["targets"]] == [800, 800]
    assert [target["url"] for target in told["targets"]] == [
        f"http://127.0.0.1:{port}/" for port in (fast, slow)
    ]
    p50 = next(each for each in told["differences"] if each["metric"] == "response_p50_us")
    assert (p50["from"], p50["to"]) == tuple(target["url"] for target in told["targets"])
    half = (p50["high"] - p50["low"]) / 2
    assert abs(p50["estimate"] - 200) < 3 * half + 20
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.num_rows == 1680
    own = [table.filter(np.array(table["target"]) == number) for number in (0, 1)]
    response, _ = groups([(each, None) for each in own])
    slower = response[1] > response[0]
    assert stats.binomtest(int(slower.sum()), slower.size, alternative="greater").pvalue < 0.01


def test_a_target_that_does_not_answer_delays_nobody_else(tmp_path: Path) -> None:
    with hostile(answers) as port, hostile(never_answers) as silent:
        spec = load_spec(port, connections=32, timeout_ns=400 * MS)
        dealt = Dealt((spec, replace(spec, port=silent, connections=1), spec), 5)
        (_, good), (_, bad), (_, other) = run_dealt(dealt, tmp_path)
    assert bad.errors == {"timeout": 100}
    assert bad.waited_for["slot"] + bad.waited_for["connection"] > 90
    for found in (good, other):
        assert found.errors == {}
        assert found.waited_for["slot"] + found.waited_for["connection"] == 0
        assert found.queued_requests == 0


def test_a_target_that_dies_and_comes_back_is_alone_with_it(tmp_path: Path) -> None:
    with hostile(answers) as port:
        spec = load_spec(port, connections=32, duration_ns=1500 * MS, timeout_ns=3000 * MS)
        with ExitStack() as stack:
            with hostile(answers) as mortal:
                dealt = Dealt((spec, replace(spec, port=mortal)), 5)
                instrument = stack.enter_context(started(dealt, tmp_path))
                time.sleep(0.3)
            time.sleep(0.4)
            with hostile(answers, port=mortal):
                assert instrument.wait(60) == 0
        good, bad = (read_records(tmp_path / name) for name in ("0", "1"))
    assert set(good["error"].to_pylist()) == {""}
    errors = bad["error"].to_pylist()
    assert "connect" in errors
    assert errors[-1] == ""
    assert len(errors) == 300


def test_one_that_cannot_be_reached_is_named_before_anything_is_sent() -> None:
    with hostile(answers) as port:
        ended = run(f"http://127.0.0.1:{port}/", "http://127.0.0.1:1/", *SHORT)
    assert ended.returncode == 3
    assert "127.0.0.1:1: no connection could be made (connect)" in ended.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_progress_and_an_early_end(processes: int, tmp_path: Path) -> None:
    with hostile(answers) as port:
        spec = load_spec(port, duration_ns=60_000 * MS, processes=processes)
        with started(Dealt((spec, spec), 1), tmp_path) as process:
            time.sleep(0.7)
            so_far = [peek(tmp_path / name)[0] for name in ("0", "1")]
            process.send_signal(signal.SIGTERM)  # to the first process only, as the command does
            assert process.wait(20) == 0
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("0", "1")]
    for answered, found in zip(so_far, reports, strict=True):
        assert found["stopped_early"]
        assert found["errors"] in ({}, {"stopped": found["errors"].get("stopped")})
        assert 0 < answered <= found["requests"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arrivals", "closed"], "a closed loop has none"),
        (["--think", "10ms", "--arrivals", "closed"], "a closed loop has none"),
    ],
)
def test_what_cannot_be_dealt_is_refused(arguments: list[str], words: str) -> None:
    ended = run("http://127.0.0.1:1/", "http://127.0.0.1:2/", *arguments)
    assert ended.returncode == 2
    assert words in " ".join(ended.stderr.split())
    assert run("http://127.0.0.1:1/", "tcp://127.0.0.1:2").returncode == 2


def test_the_summary_of_several_fits_a_screen() -> None:
    with hostile(answers) as port:
        ended = run(f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{port}/b", *SHORT)
    assert ended.returncode == 0
    assert max(len(line) for line in ended.stdout.splitlines()) <= 100
    for words in ("dealt at random", "95 % interval", "failed requests", "B - A"):
        assert words in ended.stdout


@pytest.mark.parametrize("person", [ROOT, ORDINARY])
def test_sockets_are_made_in_each_targets_network(person: str) -> None:
    """Also those that replace others during the run."""
    done = subprocess.run(
        command_as(person, "-m", "tests.support.inside_world", "deal"),
        env=environment_as(person), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    *ran, refused = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ran) == 3
    for told in ran:
        assert told["statuses"] == [{"201": 50}, {"202": 50}, {"203": 50}]
        assert told["errors"] == [{}, {}, {}]
        assert min(told["made"]) >= 16
    assert refused == {"error": "MW315", "where": "/proc/self/ns/none"}


def test_a_target_that_stops_answering_is_said_to_with_when_and_how_many() -> None:
    """It ends in the middle of the run; the other one answers to the end."""
    answered: list[bytes] = []

    def mortal(sock: socket.socket) -> None:
        while len(answered) < 80:
            answered.append(read_request(sock))
            sock.sendall(OK_HTTP1)

    options = ("--rate", "100/s", "--duration", "2s", "--warmup", "0s", "--connections", "1")
    with hostile(answers) as lives, hostile(mortal) as dies:
        urls = [f"http://127.0.0.1:{port}/" for port in (lives, dies)]
        told = json.loads(run(*urls, *options, "--json").stdout)
        first, second = told["targets"]
        assert (first["silent_from_s"], first["silent_requests"]) == (None, 0)
        assert second["silent_requests"] == sum(second["errors"].values()) == 120
        assert 0.8 <= second["silent_from_s"] < 0.81
        assert any("none of the last 120 requests had an answer" in note for note in second["notes"])
        answered.clear()
        shown = " ".join(run(*urls, *options).stdout.split())
    assert re.search(
        r"B stopped answering at 0\.8[01] s of 2 s: its last 120 requests had no answer\.", shown
    )
    assert "A stopped answering" not in shown


def test_those_that_cannot_be_reached_are_named_and_nobody_else(tmp_path: Path) -> None:
    """Others that take longer to be ready than one takes to refuse are not blamed for it."""

    def settles_later(sock: socket.socket) -> None:
        time.sleep(0.3)
        sock.sendall(b"\0\0\0\4\0\0\0\0\0")  # SETTINGS
        never_answers(sock)

    with socket.create_server(("127.0.0.1", 0)) as taken, hostile(never_answers) as mute:
        refusing = taken.getsockname()[1]
        taken.close()
        with hostile(settles_later) as late:
            specs = [
                load_spec(late, Protocol.HTTP2, connections=1, connect_ns=1500 * MS),
                load_spec(refusing, Protocol.HTTP2, connect_ns=1500 * MS),
                load_spec(late, Protocol.HTTP2, connect_ns=1500 * MS),
                load_spec(mute, Protocol.HTTP2, connect_ns=1500 * MS),
            ]
            (tmp_path / "spec.json").write_text(Dealt(tuple(specs), 5).to_json())
            argv = [sys.executable, "-m", "meshwise.load", "--spec", str(tmp_path / "spec.json")]
            done = subprocess.run(
                [*argv, "--out", str(tmp_path)], stdout=subprocess.PIPE, check=False, timeout=60
            )
    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert (told["event"], told["code"]) == ("failed", "MW306")
    assert set(told["targets"]) == {"1", "3"}
    assert "Connection refused" in told["targets"]["1"]
