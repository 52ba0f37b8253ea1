"""What is made of the instruments' files: one table on one clock, and plain facts."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pyarrow as pa
import pytest
from tests.support.loads import load_spec

from meshwise.archive.schema import REQUESTS, conform
from meshwise.core.patience import USUAL
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.load.records import SCHEMA
from meshwise.testbed.local.instrument import Client, start_round
from meshwise.testbed.local.measure import flat_reports, joined
from meshwise.testbed.local.pod import Pod


def requests(client: str, *intended_ns: int) -> pa.Table:
    rows = [
        {"intended_ns": t, "sent_ns": t + 1, "first_byte_ns": None, "done_ns": t + 5, "status": 200,
         "bytes": 1, "error": "", "connection": 0, "queued": False, "waited_for": ""}
        for t in intended_ns
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    return table.append_column("client", pa.array([client] * len(rows)).dictionary_encode())


def test_two_clients_come_on_one_clock_in_order() -> None:
    table = joined([(requests("mesh", 0, 100), 0), (requests("outside", 0, 10), 40)])
    assert table.column("intended_ns").to_pylist() == [0, 40, 50, 100]
    assert table.column("sent_ns").to_pylist() == [1, 41, 51, 101]
    assert table.column("first_byte_ns").to_pylist() == [None] * 4
    assert table.column("client").to_pylist() == ["mesh", "outside", "outside", "mesh"]


def test_the_table_is_one_that_the_archive_takes() -> None:
    table = joined([(requests("mesh", 0), 0), (requests("outside", 0), 1)])
    assert conform(table, REQUESTS, "b000-p00").num_rows == 2


def test_one_client_is_left_as_it_is() -> None:
    table = requests("mesh", 5, 3)
    assert joined([(table, 0)]) is table


def test_reports_become_plain_facts() -> None:
    inside = {
        "requests": 10,
        "lateness_us": {"p50": 3.0, "p99": None},
        "errors": {"timeout": 2},
        "notes": ("a", "b"),
    }
    assert flat_reports({"mesh": inside, "outside": {"requests": 4, "tls": ""}}) == {
        "requests": 10,
        "lateness_p50_us": 3.0,
        "errors_timeout": 2,
        "notes": "a; b",
        "outside_requests": 4,
        "outside_tls": "",
    }
    assert flat_reports({"mesh": {}}) == {}


class APod:
    """Starts what sleeps; refuses where it was told to."""

    network_fd, patience = None, USUAL

    def __init__(self, *, refuses: bool) -> None:
        self._refuses = refuses
        self.started: list[OwnedProcess] = []

    def start(self, role: str, argv: object, environment: object, log: Path, **_: object) -> OwnedProcess:
        if self._refuses:
            raise OSError("no more processes")
        plan = LaunchPlan(role, ("sleep", "60"), dict(os.environ), log=log)
        self.started.append(OwnedProcess(plan, pipe_stdout=True))
        return self.started[-1]


def test_a_first_client_does_not_outlive_a_second_that_does_not_start(tmp_path: Path) -> None:
    pods = APod(refuses=False), APod(refuses=True)
    clients = [Client(name, cast(Pod, pod), load_spec(1)) for name, pod in zip("ab", pods, strict=True)]
    with pytest.raises(OSError, match="no more processes"), ExitStack() as owner:
        start_round([clients], tmp_path, (), 1, owner)
    (first,) = pods[0].started
    assert not first.running
