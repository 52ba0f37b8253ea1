"""What is made of the instruments' files: one table on one clock, and plain facts."""

from __future__ import annotations

import pyarrow as pa

from meshwise.archive.schema import REQUESTS, conform
from meshwise.load.records import SCHEMA
from meshwise.testbed.local.measure import flat_reports, joined


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
