"""`meshwise load` as its users meet it: output, files, exit statuses, Ctrl-C."""

from __future__ import annotations

import csv
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.e2e.test_load_engine import answers
from tests.support.hostile import hostile

COMMAND = [
    sys.executable,
    "-c",
    """
import sys, typer
from meshwise.cli.load import load
from meshwise.core.errors import MeshwiseError
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(load)
try:
    app()
except MeshwiseError as error:
    typer.echo(f"error: {error}", err=True)
    sys.exit(error.exit_status)
""",
]
SHORT = ["--rate", "200/s", "--duration", "500ms", "--warmup", "100ms", "--connections", "2"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_json_and_files(tmp_path: Path) -> None:
    parquet, table = tmp_path / "r.parquet", tmp_path / "r.csv"
    with hostile(answers) as port:
        url = f"http://127.0.0.1:{port}/"
        ended = run(
            url, *SHORT, "--json", "--parquet", str(parquet), "--csv", str(table), "--arrivals", "uniform"
        )
    assert (ended.returncode, ended.stderr) == (0, "")
    report = json.loads(ended.stdout)
    assert (report["requests"], report["errors"]) == (100, {})
    for name in ("response_time_us", "service_time_us", "lateness_us"):
        assert set(report[name]) == {"p50", "p90", "p99", "p999", "mean", "max"}
    assert report["limited_by"] in ("none", "instrument", "host", "server", "connection")
    assert sum(report["statuses"].values()) == report["requests"]
    assert {"rate_achieved", "cpu_us_per_request", "version"} <= set(report)
    assert pq.read_table(parquet).num_rows == 120
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    assert rows[0]["error"] == ""


def test_the_summary_fits_a_screen_and_says_what_matters() -> None:
    with hostile(answers) as port:
        ended = run(f"http://127.0.0.1:{port}/", *SHORT, "--arrivals", "closed")
    assert ended.returncode == 0
    assert max(len(line) for line in ended.stdout.splitlines()) <= 100
    for words in ("closed loop", "response time", "P99.9", "Half of the requests were answered within"):
        assert words in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["nonsense"], 2, "MW301"),
        (["http://127.0.0.1:1/", "--rate", "fast"], 2, "MW101"),
        (["http://127.0.0.1:1/", "--streams", "4"], 2, "MW303"),
        (["http://127.0.0.1:1/", "--protocol", "grpc"], 2, "MW303"),
        (["http://127.0.0.1:1/", "--grpc-method", "a.B/C"], 2, "MW303"),
        (["http://127.0.0.1:1/", "--ca", "x.pem"], 2, "MW303"),
        (["https://127.0.0.1:1/", "--key", "x.pem"], 2, "MW303"),
        (["https://127.0.0.1:1/", "--ca", "/no/such.pem"], 2, "MW304"),
        (["http://127.0.0.1:1/", "--header", "x"], 2, "MW302"),
        (["http://127.0.0.1:1/", "--parquet", "/no/such/dir/file"], 3, "MW310"),
        (["http://127.0.0.1:1/"], 3, "MW306"),
        (["http://127.0.0.1:1/", "--arrivals", "sometimes"], 2, ""),
        ([], 2, ""),
    ],
)
def test_bad_input_and_no_server(arguments: list[str], status: int, code: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == status, ended.stderr
    assert code in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_ctrl_c_prints_what_there_is() -> None:
    with hostile(answers) as port:
        url = f"http://127.0.0.1:{port}/"
        argv = [*COMMAND, url, "--rate", "200/s", "--duration", "60s", "--warmup", "0s", "--json"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            _wait_for_load(process.pid)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    report = json.loads(output)
    assert report["stopped_early"]
    assert 0 < report["requests"] < 12_000


def _wait_for_load(pid: int) -> None:
    """Until the instrument, the command's child, has connections (a `started` run), then a little more."""
    deadline = time.monotonic() + 20
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while time.monotonic() < deadline:
        for child in children.read_text().split():
            links = [fd.readlink() for fd in Path(f"/proc/{child}/fd").iterdir() if fd.is_symlink()]
            if sum(str(link).startswith("socket:") for link in links) >= 16:
                time.sleep(0.5)
                return
        time.sleep(0.02)
    raise AssertionError("the instrument did not connect")


def test_a_port_that_accepts_and_says_nothing_is_no_http2_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        ended = run(url, "--protocol", "http2", "--connections", "1")
    assert (ended.returncode, "MW306" in ended.stderr) == (3, True)
