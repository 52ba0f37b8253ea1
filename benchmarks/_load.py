"""What the load benchmarks share: fast servers on a CPU of their own, other tools, intervals over rounds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from meshwise.load.launch import running_load
from meshwise.load.report import LoadReport
from meshwise.load.spec import LoadSpec
from meshwise.study.model import Arrivals, Protocol

CLIENT_CPU, SERVER_CPU = 0, max(os.sched_getaffinity(0))
GRPC_PATH = "/t.Echo/Say"
_GRPC_ANSWER = b"\0\0\0\0\5hello"
_NGINX = """
worker_processes 1; daemon off; error_log stderr crit; pid {root}/pid;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; open_file_cache max=10;
  client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;
  uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;
  server {{ listen 127.0.0.1:{http1}; location / {{ return 200 "hello world\\n"; }} }}
  server {{ listen 127.0.0.1:{http2} http2; location / {{ return 200 "hello world\\n"; }} }}
  server {{ listen 127.0.0.1:{grpc} http2; root {root}; default_type application/grpc;
            error_page 405 =200 $uri; location / {{ add_trailer grpc-status 0 always; }} }}
}}
"""


@dataclass(frozen=True)
class Ports:
    http1: int
    http2: int
    grpc: int


@contextlib.contextmanager
def nginx() -> Iterator[Ports]:
    """One worker pinned to SERVER_CPU; a small answer over each protocol. Ends the program without nginx."""
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        sys.exit("this benchmark needs nginx (apt-get install nginx-light)")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        answer = root / GRPC_PATH.lstrip("/")
        answer.parent.mkdir()
        answer.write_bytes(_GRPC_ANSWER)
        ports = Ports(free_port(), free_port(), free_port())
        (root / "conf").write_text(_NGINX.format(root=root, **vars(ports)))
        argv = ["taskset", "-c", str(SERVER_CPU), binary, "-p", name, "-c", str(root / "conf")]
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(ports.grpc)
                yield ports
            finally:
                process.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    sys.exit(f"the server on port {port} did not start")


# --- the instrument --------------------------------------------------------------------------------


def spec(port: int, protocol: Protocol, seconds: float, **changes: object) -> LoadSpec:
    """Closed loop unless `rate_rps` is given; pinned to CLIENT_CPU."""
    values: dict[str, object] = {
        "address": "127.0.0.1",
        "port": port,
        "authority": f"127.0.0.1:{port}",
        "protocol": protocol,
        "method": "POST" if protocol is Protocol.GRPC else "GET",
        "path": GRPC_PATH if protocol is Protocol.GRPC else "/",
        "headers": (),
        "body_bytes": 0,
        "rate_rps": 0.0,
        "arrivals": Arrivals.CONSTANT if "rate_rps" in changes else Arrivals.CLOSED,
        "seed": 1,
        "warmup_ns": 300_000_000,
        "duration_ns": round(seconds * 1e9),
        "connections": 16,
        "streams": 1,
        "timeout_ns": 5 * 10**9,
        "cpu": CLIENT_CPU,
    }
    return LoadSpec(**{**values, **changes})  # type: ignore[arg-type]


def instrument(load: LoadSpec) -> LoadReport:
    with running_load(load) as running:
        running.process.wait(load.duration_ns / 1e9 + 60)
        report = running.report()
    if report.errors:
        sys.exit(f"the instrument met errors: {report.errors}")
    return report


# --- other tools -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Used:
    """What a tool used: CPU of the whole process (its start included) and requests that it says it made."""

    cpu_us: float
    requests: int
    rate: float

    @property
    def cpu_us_per_request(self) -> float:
        return self.cpu_us / self.requests


def tool(argv: Sequence[str], requests: str) -> Used:
    """Runs a tool on CLIENT_CPU; `requests` is a pattern whose group is its count of requests."""
    began = time.monotonic()
    with subprocess.Popen(
        ["taskset", "-c", str(CLIENT_CPU), *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    counts = re.findall(requests, output)
    if not counts:
        sys.exit(f"{argv[0]} said no count of requests:\n{output[-2000:]}")
    count = int(counts[-1])
    return Used((usage.ru_utime + usage.ru_stime) * 1e6, count, count / (time.monotonic() - began))


def wrk(port: int, seconds: int, connections: int) -> Used:
    return tool(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{port}/"], r"(\d+) requests in"
    )


def h2load(port: int, seconds: int, connections: int, streams: int) -> Used:
    argv = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", f"http://127.0.0.1:{port}/"]
    return tool(argv, r"requests: (\d+) total")


def find_hey() -> str | None:
    return shutil.which("hey", path=f"{os.environ.get('PATH', '')}:{Path.home() / 'go/bin'}")


def hey(binary: str, port: int, seconds: int, connections: int) -> Used:
    argv = [binary, "-z", f"{seconds}s", "-c", str(connections), f"http://127.0.0.1:{port}/"]
    return tool(argv, r"\[200\]\s+(\d+) responses")


def find_k6() -> str | None:
    return shutil.which("k6", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


def k6(binary: str, port: int, seconds: int, connections: int) -> Used:
    """Its start is long; what a run of one request takes is taken off."""
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "script.js"
        call = f'http.get("http://127.0.0.1:{port}/");'
        script.write_text(f'import http from "k6/http"; export default function () {{ {call} }}')
        summary = Path(name) / "summary.json"
        argv = [binary, "run", "--quiet", "--no-usage-report", "--summary-export", str(summary)]
        pattern = r"http_reqs[^\d]*(\d+)"
        start = tool([*argv, "--iterations", "1", str(script)], pattern)
        whole = tool([*argv, "--vus", str(connections), "--duration", f"{seconds}s", str(script)], pattern)
        count = int(json.loads(summary.read_text())["metrics"]["http_reqs"]["count"])
    return Used(whole.cpu_us - start.cpu_us, count, count / seconds)


# --- intervals -------------------------------------------------------------------------------------


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high): a t interval over rounds."""
    array = np.asarray(values)
    half = stats.t.ppf((1 + confidence) / 2, array.size - 1) * array.std(ddof=1) / array.size**0.5
    return float(array.mean()), float(array.mean() - half), float(array.mean() + half)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The same of the paired ratio, over its logarithm."""
    low_to_high = interval(np.log(np.asarray(ours) / np.asarray(theirs)))
    mean, low, high = np.exp(low_to_high)
    return float(mean), float(low), float(high)
