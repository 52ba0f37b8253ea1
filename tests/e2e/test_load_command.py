"""`meshwise load` as its users meet it: output, files, exit statuses, Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
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

COMMAND = [sys.executable, "-c", "import sys; from meshwise.cli.main import main; main()", "load"]
SHORT = ["--rate", "200/s", "--duration", "500ms", "--warmup", "100ms", "--connections", "2"]
LONG = ["--rate", "200/s", "--duration", "60s", "--warmup", "0s"]


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
        (["http://127.0.0.1:1/", "--rate", "5/s", "--trace", "t.csv"], 2, "MW303"),
        (["http://127.0.0.1:1/", "--protocol", "grpc"], 2, "MW303"),
        (["http://127.0.0.1:1/", "--grpc-method", "a.B/C"], 2, "MW303"),
        (["http://127.0.0.1:1/", "--ca", "x.pem"], 2, "MW303"),
        (["https://127.0.0.1:1/", "--key", "x.pem"], 2, "MW303"),
        (["https://127.0.0.1:1/", "--ca", "/no/such.pem"], 2, "MW304"),
        (["http://127.0.0.1:1/", "--header", "x"], 2, "MW302"),
        (["http://127.0.0.1:1/", "--parquet", "/no/such/dir/file"], 3, "MW310"),
        (["http://127.0.0.1:1/"], 3, "MW306"),
        (["http://[::1]:1/"], 3, "error: [::1]:1: no connection could be made"),
        (["http://127.0.0.1:1/", "--arrivals", "sometimes"], 2, ""),
        (["http://127.0.0.1:1/", "--seed", "-1"], 2, "--seed"),
        (["http://127.0.0.1:1/", "--method", "GET / HTTP/1.1\r\nx: y"], 2, "--method"),
        (["http://127.0.0.1:1/", "--protocol", "grpc", "--grpc-method", "пакет.S/M"], 2, "--grpc-method"),
        (["https://127.0.0.1:1/", "--server-name", "a..b"], 2, "--server-name"),
        (["http://127.0.0.1:1/", "--rate", "1000000/s", "--duration", "10h"], 2, "--rate and --duration"),
        (["http://127.0.0.1:1/", "--csv", "-", "--parquet", "-"], 2, "--csv"),
        (["http://127.0.0.1:1/", "--csv", "x", "--parquet", "./x"], 2, "--parquet and --csv both name"),
        (["http://127.0.0.1:1/", "--timeout", "90"], 2, "--timeout: `90` is not a duration"),
        (["http://127.0.0.1:1/", "--churn", "10"], 2, "--churn: `10` is not a rate"),
        (["http://127.0.0.1:1/", "--request-bytes", "x"], 2, "--request-bytes: "),
        (["http://127.0.0.1:1/", "--cpu", "9999"], 2, "--cpu"),
        ([], 2, ""),
    ],
)
def test_bad_input_and_no_server(arguments: list[str], status: int, code: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == status, ended.stderr
    assert code in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def heeding() -> None:
    """Ctrl-C is ignored in what a script starts in the background, SIGHUP under nohup: tests may run so."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def nothing_has_a_name(pid: int, children: list[int], temporary: Path) -> bool:
    """Of what the run keeps: so that no end of it, however sudden, can leave it."""
    maps = "".join(Path(f"/proc/{process}/maps").read_text() for process in (pid, *children))
    return "/memfd:meshwise-records" in maps and "/dev/shm/" not in maps and not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("number", "processes"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2"), (signal.SIGHUP, "1")]
)
def test_a_signal_prints_what_there_is_and_leaves_nothing(
    number: signal.Signals, processes: str, tmp_path: Path
) -> None:
    with hostile(answers) as port:
        argv = [*COMMAND, f"http://127.0.0.1:{port}/", *LONG, "--json", "--processes", processes]
        with subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            preexec_fn=heeding,
        ) as process:
            children = _wait_for_load(process.pid)
            assert nothing_has_a_name(process.pid, children, tmp_path)
            process.send_signal(number)
            process.send_signal(number)  # as kernel and shell both do when a terminal closes
            output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    report = json.loads(output)
    assert report["stopped_early"]
    assert 0 < report["requests"] < 12_000
    assert not list(tmp_path.iterdir())
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_killed_it_leaves_nothing_and_nobody(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s\n" + "".join(f"{number / 100}\n" for number in range(5900)))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with hostile(answers) as port:
        argv = [
            *COMMAND,
            f"http://127.0.0.1:{port}/",
            "--trace",
            str(trace),
            "--duration",
            "59s",
            "--processes",
            "2",
        ]
        environment = {**os.environ, "TMPDIR": str(temporary)}
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, env=environment) as process:
            children = _wait_for_load(process.pid)
            assert nothing_has_a_name(process.pid, children, temporary)
            process.kill()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{child}").exists() for child in children):
            assert time.monotonic() < deadline, "the instrument outlives its owner"
            time.sleep(0.02)
    assert not list(temporary.iterdir())


def test_an_instrument_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by SIGSTOP it heeds no SIGTERM; the second request to end kills it."""
    with hostile(answers) as port:
        argv = [*COMMAND, f"http://127.0.0.1:{port}/", *LONG]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            for child in _wait_for_load(process.pid):
                os.kill(child, signal.SIGSTOP)
            process.send_signal(signal.SIGTERM)
            time.sleep(1.2)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
    assert (process.returncode, "[MW309]" in said) == (3, True), said


def test_a_file_that_cannot_be_written_takes_neither_summary_nor_the_other_file(tmp_path: Path) -> None:
    parquet = tmp_path / "r.parquet"
    with hostile(answers) as port:
        ended = run(f"http://127.0.0.1:{port}/", *SHORT, "--csv", "/dev/full", "--parquet", str(parquet))
        piped = run(f"http://127.0.0.1:{port}/", *SHORT, "--json", "--parquet", "/dev/full")
    assert (ended.returncode, piped.returncode) == (3, 3)
    assert "Half of the requests were answered within" in ended.stdout
    assert ended.stderr.startswith("error: /dev/full: the output cannot be written: ")
    assert pq.read_table(parquet).num_rows == 120
    assert json.loads(piped.stdout)["requests"] == 100


def test_records_to_stdout_and_the_summary_beside_them() -> None:
    with hostile(answers) as port:
        url = f"http://127.0.0.1:{port}/"
        ended = run(url, *SHORT, "--csv", "-")
        words = [*COMMAND, url, *SHORT, "--csv", "-", "--json"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            report = json.loads(process.stderr.read())
    assert ended.returncode == 0
    assert len(list(csv.DictReader(ended.stdout.splitlines()))) == 120
    assert "Half of the requests were answered within" in ended.stderr
    assert (report["requests"], process.returncode) == (100, -signal.SIGPIPE)


def _wait_for_load(pid: int) -> list[int]:
    """Until the instruments, the command's descendants, have their connections, then a little more."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = _below(pid)
        if sum(_sockets(child) for child in found) >= 16:
            time.sleep(0.5)
            return found
        time.sleep(0.02)
    raise AssertionError("the instrument did not connect")


def _below(pid: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(further for child in children for further in _below(child))]


def _sockets(pid: int) -> int:
    links = [fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
    return sum(str(link).startswith("socket:") for link in links)


def test_a_port_that_accepts_and_says_nothing_is_no_http2_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        ended = run(url, "--protocol", "http2", "--connections", "1")
    assert (ended.returncode, "MW306" in ended.stderr) == (3, True)
