"""New TLS connections per second, fresh and resumed, beside `openssl s_time`: one server, one run, in turn.

    python benchmarks/load_handshakes.py [--rounds 5] [--seconds 2]

The server is nginx with one worker, TLS 1.3, a P-256 certificate that both clients verify; each side has a
CPU of its own. A connection is opened for one request and closed. `s_time` opens one after another, so the
instrument does the same for the comparison (one client); then it opens as many as the core allows (16
clients). CPU is that of the whole client process from the kernel (the instrument's from the end of its
warm-up).

Figure: the instrument's CPU per new connection at most 2x that of s_time, which is C with nothing to record,
and no request of the schedule lost: at half of the highest rate, open loop, every request is sent and
answered.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import _load as lab
from meshwise.load.report import LoadReport
from meshwise.load.spec import LoadSpec, TlsSpec
from meshwise.study.model import Protocol

AT_MOST = {"fresh": 2.0, "resumed": 2.0}
_NGINX = """
worker_processes 1; daemon off; error_log stderr crit; pid {root}/pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;
  uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {root}/cert.pem; ssl_certificate_key {root}/key.pem;
    ssl_protocols TLSv1.3; ssl_session_tickets on; ssl_session_timeout 10m;
    location / {{ return 200 "hello world\\n"; }}
  }}
}}
"""


@dataclass(frozen=True)
class Measured:
    cpu_us: float
    rate: float
    resumed_share: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    arguments = parser.parse_args()
    found: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    with _server() as (port, ca):
        for _ in range(arguments.rounds):
            for kind in AT_MOST:
                resume = kind == "resumed"
                found["s_time", kind].append(_s_time(port, ca, arguments.seconds, resume=resume))
                for clients in (1, 16):
                    load = _load(port, ca, arguments.seconds, resume=resume, connections=clients)
                    found[f"instrument {clients}", kind].append(_measured(lab.instrument(load)))
        print(
            f"new TLS 1.3 connections, one request each, {arguments.rounds} rounds of {arguments.seconds} s,"
            " 95 % intervals\n"
        )
        for (name, kind), runs in found.items():
            cpu, low, high = lab.interval([run.cpu_us for run in runs])
            rate = sum(run.rate for run in runs) / len(runs)
            share = min(run.resumed_share for run in runs)
            print(
                f"  {kind:8} {name:13} {cpu:7.1f} us of CPU [{low:.1f}, {high:.1f}]   {rate:7,.0f}/s"
                f"   {share:.0%} resumed"
            )
        print()
        good = _judge(found)
        for kind in AT_MOST:
            highest = sum(run.rate for run in found["instrument 16", kind]) / arguments.rounds
            good = _holds(port, ca, kind, highest / 2, arguments.seconds) and good
    return 0 if good else 1


def _judge(found: dict[tuple[str, str], list[Measured]]) -> bool:
    good = True
    for kind, most in AT_MOST.items():
        ours, theirs = found["instrument 1", kind], found["s_time", kind]
        cpu, low, high = lab.ratio([run.cpu_us for run in ours], [run.cpu_us for run in theirs])
        rate, _, _ = lab.ratio([run.rate for run in ours], [run.rate for run in theirs])
        shares = [run.resumed_share for run in (*ours, *theirs)]
        as_meant = min(shares) > 0.95 if kind == "resumed" else max(shares) == 0
        fits = cpu <= most and as_meant
        good = good and fits
        print(
            f"  {kind:8} instrument / s_time: CPU {cpu:.2f} [{low:.2f}, {high:.2f}], rate {rate:.2f}"
            f"   CPU at most {most:g}: {'reached' if fits else 'MISSED'}"
        )
    return good


def _holds(port: int, ca: str, kind: str, rate_rps: float, seconds: int) -> bool:
    load = _load(port, ca, seconds, resume=kind == "resumed", connections=64, rate_rps=rate_rps)
    report = lab.instrument(load)
    fits = not report.unsent_requests and not report.errors
    print(
        f"  {kind:8} at {rate_rps:,.0f}/s, open loop: {report.requests:,} requests,"
        f" {report.unsent_requests} unsent,"
        f" {report.late_requests} sent late, lateness P99 {report.lateness_us.p99:.0f} us,"
        f" limited by {report.limited_by}: {'reached' if fits else 'MISSED'}"
    )
    return fits


def _load(port: int, ca: str, seconds: int, *, resume: bool, connections: int, **changes: object) -> LoadSpec:
    return lab.spec(
        port,
        Protocol.HTTP1,
        seconds,
        tls=TlsSpec("localhost", ca),
        requests_per_connection=1,
        resume_tls=resume,
        connections=connections,
        **changes,
    )


def _measured(report: LoadReport) -> Measured:
    assert report.cpu_us_per_request is not None
    return Measured(
        report.cpu_us_per_request, report.rate_achieved, report.tls_resumed / report.connections_made
    )


def _s_time(port: int, ca: str, seconds: int, *, resume: bool) -> Measured:
    argv = [
        "openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-www", "/", "-time", str(seconds), "-tls1_3",
        "-CAfile", ca, "-verify", "2", "-reuse" if resume else "-new",
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        with subprocess.Popen(
            ["taskset", "-c", str(lab.CLIENT_CPU), *argv], stdout=output, stderr=subprocess.STDOUT
        ) as process:
            usage = _wait(process)
        took_s = time.monotonic() - began
        output.seek(0)
        said = output.read()
    counts = re.findall(r"(\d+) connections in \d+ real seconds", said)
    marks = re.findall(r"^[r*t]{3,}", said, re.MULTILINE)
    if not counts or process.returncode:
        sys.exit(f"openssl s_time did not work:\n{said[-1500:]}")
    count = int(counts[-1])
    reused = max((mark.count("r") for mark in marks), default=0)
    return Measured(usage / count, count / min(took_s, seconds + 1), reused / count)


def _wait(process: subprocess.Popen[bytes]) -> float:
    """Until it ends; its CPU in us."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (usage.ru_utime + usage.ru_stime) * 1e6


@contextlib.contextmanager
def _server() -> Iterator[tuple[int, str]]:
    """(port, CA file)"""
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if binary is None or shutil.which("openssl") is None:
        sys.exit("this benchmark needs nginx and openssl (apt-get install nginx-light openssl)")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        port = lab.free_port()
        argv = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", str(root / "key.pem"), "-out", str(root / "cert.pem"), "-days", "1",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        ]  # fmt: skip
        subprocess.run(argv, check=True, capture_output=True)
        (root / "conf").write_text(_NGINX.format(root=root, port=port))
        command = ["taskset", "-c", str(lab.SERVER_CPU), binary, "-p", name, "-c", str(root / "conf")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                lab.wait_for(port)
                yield port, str(root / "cert.pem")
            finally:
                process.terminate()


if __name__ == "__main__":
    sys.exit(main())
