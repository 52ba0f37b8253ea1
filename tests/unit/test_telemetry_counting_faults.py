"""What keeps a process from being counted, each with what a user is told."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.counter_conformance import state
from tests.support.worker import NAME, Worker, compile_worker

from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import USUAL, Patience
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.telemetry.counting import calls, profile, valgrind
from meshwise.telemetry.counting.callgrind import SLOWNESS, CallgrindCounter
from meshwise.telemetry.counting.seam import CountedProcess, Function

SHORT = Patience(ready_s=0.5 / SLOWNESS, control_s=0.5 / SLOWNESS)
VALGRIND = shutil.which("valgrind")
needs_valgrind = pytest.mark.skipif(VALGRIND is None, reason="needs valgrind: apt-get install valgrind")


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


def counter(scratch: Path, patience: Patience = USUAL, **environment: str) -> CallgrindCounter:
    return CallgrindCounter(scratch, patience, {**os.environ, **environment})


def refused(scratch: Path, **environment: str) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        counter(scratch, **environment).__exit__()
    return caught.value


# --- what is not there -----------------------------------------------------------------------------


def test_no_valgrind(tmp_path: Path) -> None:
    for told in (
        refused(tmp_path, PATH=str(tmp_path)),
        refused(tmp_path, MESHWISE_VALGRIND="/nowhere/valgrind"),
        refused(tmp_path, MESHWISE_VALGRIND="/bin/true"),
        refused(tmp_path, MESHWISE_VALGRIND="/bin/false"),
    ):
        assert told.code == "MW230"
        assert "apt-get install valgrind" in told.remedy
    assert "/bin/false --version ended with status 1" in told.what


def test_a_valgrind_that_is_too_old(tmp_path: Path) -> None:
    old = script(tmp_path / "valgrind", "echo valgrind-3.9.1")
    told = refused(tmp_path, MESHWISE_VALGRIND=str(old))
    assert (told.code, told.what) == ("MW231", f"{old} is valgrind 3.9.1; counting needs 3.19 or newer")


@pytest.mark.parametrize("version", ["3.19.0", "3.20.0.GIT", "4.0.0-Debian"])
def test_versions_that_are_new_enough(tmp_path: Path, version: str) -> None:
    found = valgrind.find({"MESHWISE_VALGRIND": str(script(tmp_path / "v", f"echo valgrind-{version}"))})
    assert found.version == version


@needs_valgrind
def test_no_compiler_or_one_that_fails(tmp_path: Path) -> None:
    told = refused(tmp_path, CC="no-such-compiler")
    assert told.code == "MW232"
    assert "no C compiler (no-such-compiler) is on PATH" in told.what
    assert "apt-get install gcc" in told.remedy
    failing = script(tmp_path / "failing", "echo 'pthread.h: No such file or directory' >&2", "exit 1")
    told = refused(tmp_path, CC=str(failing))
    assert told.code == "MW232"
    assert "ended with status 1: pthread.h: No such file or directory" in told.what
    assert [path.name for path in tmp_path.iterdir()] == ["failing"], "nothing is left of it"


@needs_valgrind
def test_a_valgrind_that_cannot_run_callgrind(tmp_path: Path) -> None:
    lines = ('[ "$1" = --version ] && exec valgrind "$@"', "echo valgrind: failed to start tool; exit 1")
    told = refused(tmp_path, MESHWISE_VALGRIND=str(script(tmp_path / "valgrind", *lines)))
    assert told.code == "MW230"
    assert "failed to start tool" in told.what


# --- programs that cannot be counted ---------------------------------------------------------------


@needs_valgrind
def test_a_static_program_is_refused_before_it_starts(tmp_path: Path) -> None:
    made = compile_worker(tmp_path, "-static")
    with counter(tmp_path) as counting, pytest.raises(MeshwiseError) as caught:
        counting.start(LaunchPlan(NAME, (str(made),)), tmp_path)
    assert caught.value.code == "MW233"
    assert "linked statically" in caught.value.what
    assert valgrind.interpreter(Path(sys.executable)) is True
    assert valgrind.interpreter(Path(__file__)) is None


@contextmanager
def attached(
    directory: Path, program: Path, patience: Patience = USUAL, wrapper: Path | None = None
) -> Iterator[tuple[CountedProcess, Worker, OwnedProcess]]:
    (directory / "counted").mkdir()
    named = {} if wrapper is None else {"MESHWISE_VALGRIND": str(wrapper)}
    with (
        counter(directory, patience, **named) as counting,
        closing(Worker(program, directory)) as worker,
        OwnedProcess(counting.start(worker.plan, directory / "counted")) as process,
        closing(counting.attach(process, directory / "counted")) as counted,
    ):
        yield counted, worker, process


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_worker(tmp_path_factory.mktemp("worker"))


def but_python(path: Path, *lines: str) -> Path:
    """A valgrind that does this first, except when it is asked what it is (which is asked of a Python)."""
    harmless = f'case "$*" in --version|*{sys.executable}) exec {VALGRIND} "$@" ;; esac'
    return script(path, harmless, *lines)


@needs_valgrind
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction is one of amd64")
def test_a_program_that_does_not_survive_valgrind(tmp_path: Path) -> None:
    source = tmp_path / "wide.c"
    source.write_text('int main(void) { __asm__("vpxord %zmm0, %zmm0, %zmm0"); return 0; }')
    subprocess.run(["cc", "-o", tmp_path / "wide", source], check=True)
    with pytest.raises(MeshwiseError) as caught, attached(tmp_path, tmp_path / "wide"):
        pass
    assert caught.value.code == "MW235"
    assert f"{NAME} killed by SIGILL while it was counted by callgrind" in caught.value.what
    assert "unhandled instruction bytes" in caught.value.what


@needs_valgrind
def test_a_counter_that_reads_zero(tmp_path: Path, program: Path) -> None:
    wrapper = but_python(
        tmp_path / "valgrind", "tool=$1; shift", f'exec {VALGRIND} "$tool" --collect-atstart=no "$@"'
    )
    with pytest.raises(MeshwiseError) as caught, attached(tmp_path, program, wrapper=wrapper):
        pass
    assert caught.value.code == "MW236"
    assert "known work of 100000 turns of a loop counted as " in caught.value.what


@needs_valgrind
def test_a_slow_start_is_waited_for_as_long_as_patience_goes(tmp_path: Path, program: Path) -> None:
    wrapper = but_python(tmp_path / "valgrind", "sleep 1", f'exec {VALGRIND} "$@"')
    with attached(tmp_path, program, wrapper=wrapper) as (counted, worker, process):
        counted.begin()
        worker.work(10, process.pid)
        assert counted.end().instructions > 0
    shutil.rmtree(tmp_path / "counted")
    (tmp_path / "wanted").unlink(), (tmp_path / "done").unlink()
    with pytest.raises(MeshwiseError) as caught, attached(tmp_path, program, SHORT, wrapper):
        pass
    assert caught.value.code == "MW234"
    assert "its thread inside never listened, and there was no answer within 0.5 s" in caught.value.what


@needs_valgrind
def test_one_that_does_not_answer_in_a_window(tmp_path: Path, program: Path) -> None:
    with attached(tmp_path, program) as (counted, _, process):
        counted.begin()
        counted._patience = replace(USUAL, control_s=0.2)  # type: ignore[attr-defined]
        process.send(signal.SIGSTOP)
        with pytest.raises(MeshwiseError) as caught:
            counted.end()
        process.send(signal.SIGCONT)
    assert caught.value.code == "MW234"
    assert "its thread inside was told `d`" in caught.value.what


OWNER = """
import os, sys, time
from pathlib import Path
from meshwise.core.patience import USUAL
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.telemetry.counting.callgrind import CallgrindCounter
directory = Path(sys.argv[1])
with CallgrindCounter(directory, USUAL, os.environ) as counter:
    plan = LaunchPlan("counted", (sys.executable, "-c", "while True: pass"), dict(os.environ))
    with OwnedProcess(counter.start(plan, directory)) as process:
        counted = counter.attach(process, directory)
        counted.begin()
        print(process.pid, flush=True)
        time.sleep(600)
"""


@needs_valgrind
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_end_of_who_counts_is_the_end_of_what_is_counted(tmp_path: Path, number: signal.Signals) -> None:
    """In a window, of a process that works all the time: nothing is left, stopped or running."""
    with subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert state(pid) in "RS"
        owner.send_signal(number)
        owner.wait()
        while Path(f"/proc/{pid}").exists() and state(pid) != "Z":
            assert state(pid) not in "tT"
            time.sleep(0.01)


# --- who may read what -----------------------------------------------------------------------------


@needs_valgrind
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user's process")
def test_a_program_in_a_directory_that_is_closed_to_the_process(tmp_path: Path, program: Path) -> None:
    """As /root is to the uid of a sidecar: usual runs get such a program by a descriptor, and so do these."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy(program, closed / "worker")
    (closed / "worker").chmod(0o755)
    assert not valgrind.open_to(1337, closed / "worker")
    assert valgrind.open_to(0, closed / "worker")
    (tmp_path / "counted").mkdir()
    for each in tmp_path.resolve().parents[:-2]:
        each.chmod(stat.S_IMODE(each.stat().st_mode) | 0o001)
    tmp_path.chmod(0o711)
    with counter(tmp_path) as counting, closing(Worker(closed / "worker", tmp_path)) as worker:
        for name in ("wanted", "done"):
            (tmp_path / name).chmod(0o666)
        plan = replace(worker.plan, uid=1337, gid=1337)
        with OwnedProcess(counting.start(plan, tmp_path / "counted")) as process:
            counted = counting.attach(process, tmp_path / "counted")
            counted.begin()
            worker.work(100, process.pid)
            assert counted.end().instructions > 50_000
            counted.close()


# --- what valgrind writes --------------------------------------------------------------------------

DUMP = """\
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir
summary: 999

ob=(1) /usr/bin/proxy
fl=(1) ???
fn=(1) serve
0 100
cob=(2) /lib/libc.so.6
cfi=(2) ???
cfn=(2) malloc
calls=3 7
0 5000
+2 11
fn=(3) rec'2
* 4

ob=(2)
fl=(2)
fn=(2)
-1 30
fn=(4) free
0 0

ob=(3) ???
fl=(1)
fn=(5) 0x00000000048713
0 1
ob=(1)
fn=(3)
0
fn=(6) rec
0 5
totals: 151
"""


def test_a_dump_is_read_by_function_without_what_is_called() -> None:
    assert profile.functions(DUMP.splitlines(keepends=True)) == {
        Function("/usr/bin/proxy", "serve"): 111,
        Function("/usr/bin/proxy", "rec"): 9,
        Function("/lib/libc.so.6", "malloc"): 30,
        Function("", "0x00000000048713"): 1,
    }


@pytest.mark.parametrize("text", ["", "hello\n", "events: Dr\n0 1\n"])
def test_what_is_no_dump_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no profile"):
        profile.functions(text.splitlines())


TRACE = """\
==7== Handling new value --trace-syscalls=yes for option --trace-syscalls
SYSCALL[7,9](140) sys_getpriority ( 28023, 0 )[sync] --> Success(0x14)
SYSCALL[7,9](44) sys_sendto ( 5, 0x522feaf, 1, 16384, 0x0, 0 ) --> [async] ...
SYSCALL[7,1](0) ... [async] --> Success(0x7)
SYSCALL[7,1](1) sys_write ( 1, 0x40363d0, 7 ) --> [async] ...
SYSCALL[7,1](1) ... [async] --> Success(0x7)
SYSCALL[7,2](  5) sys_newfstat ( 3, 0x1 )[sync] --> Success(0x0)
SYSCALL[7,2](228) sys_clock_gettime( 1, 0x1 )[sync] --> Success(0x0)
SYSCALL[7,1](20) sys_writev ( 3, 0x1, 2 ) --> [async] ...
SYSCALL[7,1](334) unimplemented (by the kernel) syscall: 334! (ni_syscall)
SYSCALL[8,1](20) sys_writev ( 3, 0x1, 2 ) --> [async] ...
"""


def test_system_calls_are_those_of_the_other_threads_by_the_kernels_names() -> None:
    found = calls.system_calls(TRACE.splitlines(), "getpriority ( 28023, 0 )")
    assert found == {"fstat": 1, "syscall_334": 1, "write": 1, "writev": 1}


def test_a_trace_without_our_own_call_is_none() -> None:
    assert calls.system_calls(TRACE.splitlines()[3:], "getpriority ( 28023, 0 )") is None


@needs_valgrind
def test_a_counter_that_could_not_be_made_keeps_nothing_open(tmp_path: Path) -> None:
    lines = ('[ "$1" = --version ] && exec valgrind "$@"', "exit 1")
    wrapper = script(tmp_path / "valgrind", *lines)
    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    refused(tmp_path, MESHWISE_VALGRIND=str(wrapper))
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before
