"""Every sampler against the contract of the seam, on real targets and on a fake."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.sampler_conformance import SamplerConformance

from meshwise.telemetry import process
from meshwise.telemetry.counters import CounterWatch, change, is_counter
from meshwise.telemetry.envoy import EnvoySampler, parse_memory, parse_stats
from meshwise.telemetry.host import HostSampler, parse_pressure, parse_stat
from meshwise.telemetry.labels import read_labels, write_labels
from meshwise.telemetry.process import CpuSampler, ProcessSampler, TreeCpuSampler
from meshwise.telemetry.seam import Moment, Sample, Sampler
from meshwise.telemetry.threads import ThreadSampler

SOURCE = "none/a/node-1/service"
BUSY = """
import os, sys, threading
threads = [threading.Thread(target=lambda: sum(range(10**6))) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
while len(os.listdir("/proc/self/task")) > 1: pass  # the kernel lets go of a thread a little later
print(1, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has worked, in threads that have ended, and now waits."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield running
        running.kill()


class _OnChild(SamplerConformance):
    @pytest.fixture(autouse=True)
    def _child(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child

    def end_target(self) -> None:
        self.child.kill()
        self.child.wait()


class TestCpuSampler(_OnChild):
    def make(self) -> Sampler:
        return CpuSampler({SOURCE: self.child.pid})


class TestProcessSampler(_OnChild):
    def make(self) -> Sampler:
        return ProcessSampler(SOURCE, self.child.pid)


class TestTreeCpuSampler(_OnChild):
    def make(self) -> Sampler:
        return TreeCpuSampler(SOURCE, self.child.pid)


class TestThreadSampler(_OnChild):
    def make(self) -> Sampler:
        return ThreadSampler(SOURCE, self.child.pid)


class TestHostSampler(SamplerConformance):
    @pytest.fixture(autouse=True)
    def _proc(self, tmp_path: Path) -> None:
        self.proc = tmp_path / "proc"
        (self.proc / "pressure").mkdir(parents=True)
        for name in ("stat", "softirqs", "loadavg", "meminfo"):
            (self.proc / name).write_text(Path("/proc", name).read_text())
        (self.proc / "pressure/cpu").write_text("some avg10=0.1 avg60=0.0 avg300=0.0 total=50\n")

    def make(self) -> Sampler:
        return HostSampler(self.proc)

    def end_target(self) -> None:
        shutil.rmtree(self.proc)  # a kernel without any of it


class TestRealHostSampler(SamplerConformance):
    def make(self) -> Sampler:
        return HostSampler()

    def end_target(self) -> None:
        """The machine stays."""


STATS = b"""\
cluster.outbound|8080||node-1.backend.svc.cluster.local;.external.upstream_rq_2xx: 7
cluster.outbound|8080||node-1.backend.svc.cluster.local;.upstream_rq_2xx: 7
cluster.outbound|8080||node-1.backend.svc.cluster.local;.upstream_rq_total: 8
cluster.outbound|8080||node-1.backend.svc.cluster.local;.upstream_cx_total: 2
cluster.outbound|8080||node-1.backend.svc.cluster.local;.ssl.handshake: 2
cluster.outbound|8080||node-1.backend.svc.cluster.local;.ssl.session_reused: 1
cluster.outbound|8080||node-1.backend.svc.cluster.local;.ssl.curves.X25519MLKEM768: 2
cluster.node.ssl.certificate.a.expiration_unix_time_seconds: 1790000000
cluster.outbound|8080||node-1.backend.svc.cluster.local;.ssl.fail_verify_san: 3
cluster.outbound|8080||node-1.backend.svc.cluster.local;.circuit_breakers.default.cx_open: 0
listener.0.0.0.0_15006.ssl.versions.TLSv1.3: 5
listener.0.0.0.0_15006.ssl.ciphers.TLS_AES_256_GCM_SHA384: 5
listener.0.0.0.0_15006.ssl.connection_error: 4
listener.0.0.0.0_15006.downstream_cx_total: 6
listener.0.0.0.0_15006.worker_1.downstream_cx_total: 4
listener.0.0.0.0_15006.http.inbound_0.0.0.0_8080.downstream_rq_2xx: 9
listener.admin.downstream_cx_total: 99
http.inbound_0.0.0.0_8080.downstream_rq_2xx: 9
http.inbound_0.0.0.0_8080.downstream_rq_active: 1
http.inbound_0.0.0.0_8080.rbac.allowed: 9
http.inbound_0.0.0.0_8080.rbac.denied: 1
http.inbound_0.0.0.0_8080.rbac.istio_dry_run.shadow_denied: 2
http.inbound_0.0.0.0_8080.jwt_authn.allowed: 9
http.inbound_0.0.0.0_8080.jwt_authn.denied: 2
http.admin.downstream_rq_total: 99
tcp.rbac.denied: 1
listener_manager.lds.update_success: 3
http.outbound_0.0.0.0_8080.rds.8080.update_rejected: 1
sds.default.update_success: 2
server.concurrency: 2
server.uptime: 100
server.memory_allocated: 5
server.worker_0.watchdog_miss: 1
server.version: abc
cluster.x.upstream_cx_length_ms: P0(nan,0) P25(nan,1) P50(nan,2)
"""
MEMORY = b'{"allocated": "6915792", "heap_size": "12582912", "total_physical_bytes": "15657790", "new": "1"}'
CLUSTER = "outbound|8080||node-1.backend.svc.cluster.local;"
HTTP = "inbound_0.0.0.0_8080"


class _Admin:
    """An Envoy's admin interface from memory."""

    def __init__(self) -> None:
        self.alive = True
        self.asked: list[str] = []

    def __call__(self, path: str) -> bytes:
        self.asked.append(path)
        if not self.alive:
            raise ConnectionRefusedError(111, "refused")
        return MEMORY if path == "/memory" else STATS


class TestEnvoySampler(SamplerConformance):
    def make(self) -> Sampler:
        self.admin = _Admin()
        return EnvoySampler("istio/a/node-1/proxy", self.admin, during=True)

    def end_target(self) -> None:
        self.admin.alive = False


class _FakeSampler:
    name = "fake"

    def __init__(self) -> None:
        self.value = 0.0

    def sample(self, moment: Moment) -> Sequence[Sample]:
        self.value += 1
        return [Sample(time.monotonic_ns(), "fake", "things_total", "kind=a", self.value)]


class TestFakeSampler(SamplerConformance):
    def make(self) -> Sampler:
        return _FakeSampler()

    def end_target(self) -> None:
        """It has none."""


# --- what the readings mean --------------------------------------------------------------------------


def _values(samples: Sequence[Sample]) -> dict[tuple[str, str], float]:
    return {(sample.metric, sample.labels): sample.value for sample in samples}


def test_cpu_counts_threads_that_have_ended(child: subprocess.Popen[bytes]) -> None:
    threads_now = len(list(Path(f"/proc/{child.pid}/task").iterdir()))
    assert threads_now == 1
    main_thread_ns = int(Path(f"/proc/{child.pid}/task/{child.pid}/schedstat").read_text().split()[0])
    assert process.cpu_ns(child.pid) > main_thread_ns


def test_cpu_of_oneself_moves_with_work() -> None:
    before = process.cpu_ns(os.getpid())
    deadline = time.process_time_ns() + 20_000_000
    while time.process_time_ns() < deadline:
        pass
    assert process.cpu_ns(os.getpid()) - before >= 20_000_000


def test_a_stopped_process_uses_nothing(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    sampler = CpuSampler({SOURCE: child.pid})
    first, second = sampler.sample(Moment.START), sampler.sample(Moment.END)
    assert first[0].value == second[0].value > 0


def test_memory_switches_and_network_are_read(child: subprocess.Popen[bytes]) -> None:
    values = _values(ProcessSampler(SOURCE, child.pid).sample(Moment.START))
    assert values["rss_bytes", ""] >= values["pss_bytes", ""] > 1 << 20
    assert values["threads", ""] == 1
    assert values["context_switches_total", "kind=voluntary"] > 0
    assert values["cpu_user_ns", ""] % 10_000_000 == 0
    assert ("net_received_bytes_total", "interface=lo") in values


def test_a_thread_that_ends_takes_no_switches_away() -> None:
    sampler = ProcessSampler(SOURCE, os.getpid())
    release, started = threading.Event(), threading.Event()

    def wait() -> None:
        for _ in range(50):
            time.sleep(0)
            os.sched_yield()
        started.set()
        release.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    before = _values(sampler.sample(Moment.START))["context_switches_total", "kind=voluntary"]
    release.set()
    thread.join()
    after = _values(sampler.sample(Moment.END))["context_switches_total", "kind=voluntary"]
    assert after >= before


def test_a_process_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises(OSError):
        CpuSampler({SOURCE: 2**22 - 1})
    with pytest.raises(OSError):
        ProcessSampler(SOURCE, 2**22 - 1)


def test_another_process_with_the_same_pid_is_not_taken_for_it(child: subprocess.Popen[bytes]) -> None:
    whole, cpu = ProcessSampler(SOURCE, child.pid), CpuSampler({SOURCE: child.pid})
    whole._started -= 1
    cpu._started[SOURCE] -= 1
    assert _values(whole.sample(Moment.START)) == {("alive", ""): 0.0}
    assert cpu.sample(Moment.START) == []


def test_the_envoy_selection() -> None:
    readings = {(metric, labels): value for metric, labels, value in parse_stats(STATS)}
    to, of, at = f"name={CLUSTER}", f"name={HTTP}", "name=0.0.0.0_15006,scope=listener"
    tls = write_labels({"scope": "cluster", "name": CLUSTER})
    assert readings == {
        ("upstream_2xx_total", to): 7,
        ("upstream_requests_total", to): 8,
        ("upstream_connections_total", to): 2,
        ("tls_handshakes_total", tls): 2,
        ("tls_resumed_total", tls): 1,
        ("tls_curves_total", f"is=X25519MLKEM768,{tls}"): 2,
        ("certificate_expiry_unix_s", "certificate=a,name=node,scope=cluster"): 1790000000,
        ("tls_verify_failures_total", f"{to},reason=san,scope=cluster"): 3,
        ("tls_versions_total", f"is=TLSv1.3,{at}"): 5,
        ("tls_ciphers_total", f"is=TLS_AES_256_GCM_SHA384,{at}"): 5,
        ("tls_connection_errors_total", at): 4,
        ("downstream_connections_total", at): 6,
        ("downstream_connections_total", f"{at},worker=1"): 4,
        ("downstream_2xx_total", f"{of},scope=http"): 9,
        ("downstream_requests", f"{of},scope=http"): 1,
        ("rbac_allowed_total", of): 9,
        ("rbac_denied_total", of): 1,
        ("rbac_shadow_denied_total", f"{of},rules=istio_dry_run"): 2,
        ("rbac_denied_total", "name=tcp"): 1,
        ("jwt_allowed_total", of): 9,
        ("jwt_denied_total", of): 2,
        ("config_updates_total", "name=listener_manager.lds"): 3,
        ("config_updates_total", "name=sds.default"): 2,
        ("config_rejections_total", "name=http.outbound_0.0.0.0_8080.rds.8080"): 1,
        ("workers", ""): 2,
        ("uptime_s", ""): 100,
        ("memory_allocated_bytes", ""): 5,
        ("watchdog_misses_total", "thread=worker_0"): 1,
    }


def test_envoy_is_left_alone_during_a_trial() -> None:
    admin = _Admin()
    sampler = EnvoySampler("p", admin)
    assert sampler.sample(Moment.DURING) == ()
    assert admin.asked == []
    assert (
        _values(sampler.sample(Moment.END))["memory_allocated_bytes", ""] == 6915792
    )  # /memory is the exact one


def test_an_envoy_that_answers_nonsense_is_unreachable() -> None:
    sampler = EnvoySampler("p", lambda path: b"<html>" if path == "/memory" else STATS)
    assert _values(sampler.sample(Moment.START)) == {("reachable", ""): 0.0}
    assert parse_stats(b"\xff\xfe: 1\nno colon\n: 3\n") == []
    assert parse_memory(b"{}") == []


def test_host_files_are_read_by_their_formats() -> None:
    stat = parse_stat("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2\nctxt 99\nprocs_running 3\n")
    assert stat["host_cpu_ns", "mode=steal"] == 8 * 10_000_000
    assert stat["host_cpu_ns", "mode=softirq"] == 7 * 10_000_000
    assert (stat["host_context_switches_total", ""], stat["tasks_running", ""]) == (99, 3)
    pressure = parse_pressure("io", "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0 total=5\n")
    assert pressure == {
        ("pressure_stall_ns", "kind=some,resource=io"): 12_000,
        ("pressure_stall_ns", "kind=full,resource=io"): 5_000,
    }


# --- counters and labels -----------------------------------------------------------------------------


def test_a_reset_is_seen_and_is_never_a_negative_change() -> None:
    assert change(5, 9) == 4
    assert change(9, 5) is None
    watch = CounterWatch()

    def read(value: float, metric: str = "tls_handshakes_total") -> list[Sample]:
        return watch.resets([Sample(1, "proxy", metric, "name=a", value)])

    assert read(5) == read(5) == read(9) == []
    [reset] = read(1)
    assert (reset.source, reset.metric, reset.value) == ("telemetry", "counter_reset", 1.0)
    assert read_labels(reset.labels) == {"source": "proxy", "metric": "tls_handshakes_total", "of": "name=a"}
    assert read(2) == []
    assert read(9, "rss_bytes") == read(1, "rss_bytes") == []
    assert is_counter("cpu_ns")
    assert not is_counter("rss_bytes")


@pytest.mark.parametrize("pairs", [{}, {"a": "b"}, {"b": "1,2", "a": "x=y%2C"}])
def test_labels_survive(pairs: dict[str, str]) -> None:
    text = write_labels(pairs)
    assert read_labels(text) == pairs
    assert text.count("=") == len(pairs)
