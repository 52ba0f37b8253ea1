"""A name with several addresses: spread, where each request went, and what happens when one goes."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import hostile
from tests.support.loads import MS, load_spec, run_here

from meshwise.load.engine import Engine
from meshwise.load.records import read_records
from meshwise.load.report import LoadReport

FIRST, SECOND, NOBODY = "127.0.0.11", "127.0.0.12", "127.0.0.13"


def answers(sock: socket.socket) -> None:
    while True:
        hostile.read_request(sock)
        sock.sendall(hostile.OK_HTTP1)


@contextlib.contextmanager
def two_servers() -> Iterator[tuple[int, contextlib.ExitStack]]:
    """(port of both, what ends the first)."""
    with hostile.hostile(answers, FIRST) as port, contextlib.ExitStack() as first:
        with socket.socket() as probe:
            probe.bind((SECOND, port))  # free there too, or the test is run again
        first.enter_context(hostile.hostile(answers, SECOND, port))
        yield port, first


def instrument(spec_text: str, directory: Path) -> tuple[int, str]:
    (directory / "spec.json").write_text(spec_text)
    argv = [
        sys.executable,
        "-m",
        "meshwise.load",
        "--spec",
        str(directory / "spec.json"),
        "--out",
        str(directory),
    ]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout


@pytest.mark.parametrize("spread", [False, True])
def test_requests_go_to_those_that_answer(tmp_path: Path, spread: bool) -> None:
    addresses = (NOBODY, FIRST, SECOND)
    with two_servers() as (port, _):
        spec = load_spec(port, addresses=addresses, spread=spread, processes=2, connections=8)
        status, said = instrument(spec.to_json(), tmp_path)
    assert status == 0, said
    table = read_records(tmp_path)
    went = Counter(table["address"].to_pylist())
    made = LoadReport.from_json((tmp_path / "report.json").read_text()).addresses
    assert set(table["error"].to_pylist()) == {""}
    if spread:
        assert made == {FIRST: 4, SECOND: 4}
        assert set(went) == {FIRST, SECOND}
        assert min(went.values()) > 25, "in turn, as far as slots are free"
    else:
        assert made == {FIRST: 8}
        assert went == {FIRST: 100}


def test_no_address_answers(tmp_path: Path) -> None:
    with socket.create_server((FIRST, 0)) as listener:
        port = listener.getsockname()[1]
    status, said = instrument(load_spec(port, addresses=(NOBODY, FIRST)).to_json(), tmp_path)
    event = json.loads(said)
    assert (status, event["code"]) == (3, "MW306")
    assert f"{NOBODY}: Connection refused; {FIRST}: Connection refused" in event["what"]


@pytest.mark.parametrize("number", [0, 1], ids=["kept", "one request each"])
def test_when_an_address_goes_the_other_is_taken(tmp_path: Path, number: int) -> None:
    with two_servers() as (port, second):

        def leave(engine: Engine) -> None:
            time.sleep(0.3)
            second.close()

        addresses = (SECOND, FIRST)
        spec = load_spec(
            port, addresses=addresses, address=SECOND, requests_per_connection=number, duration_ns=800 * MS
        )
        ran = run_here(spec, tmp_path, leave)
    went, errors = ran.table["address"].to_pylist(), ran.errors()
    assert set(went[:30]) == {SECOND}
    assert set(went[-30:]) == {FIRST}
    assert set(errors[:30]) | set(errors[-30:]) == {""}
    assert errors.count("connect") == 0, "the other address was there all the time"
