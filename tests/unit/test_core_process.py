"""Owned processes: how they start, what is said of their end, and that stopping stops."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshwise.core import process as process_module
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.core.process import (
    LaunchPlan,
    OwnedProcess,
    ProgramOutput,
    ask,
    describe_status,
    stop_all,
    tail,
    wait_any,
)

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""


def plan(tmp_path: Path, *argv: str, **more: object) -> LaunchPlan:
    return LaunchPlan("thing", argv, dict(os.environ), tmp_path / "log", **more)  # type: ignore[arg-type]


def python(tmp_path: Path, code: str, **more: object) -> LaunchPlan:
    return plan(tmp_path, sys.executable, "-I", "-S", "-c", code, **more)


def test_a_process_becomes_the_program_in_its_own_process_group(tmp_path: Path) -> None:
    with OwnedProcess(python(tmp_path, "import os; print(os.getpid(), os.getpgrp(), os.getppid())")) as owned:
        assert owned.wait(10)
        assert owned.log_tail().split() == [str(owned.pid), str(owned.pid), str(os.getpid())]
    assert owned.ending == "ended with status 0"


def test_limits_and_affinity_are_set_before_the_program_runs(tmp_path: Path) -> None:
    cpu = max(os.sched_getaffinity(0))
    code = (
        "import os, resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], os.sched_getaffinity(0))"
    )
    with OwnedProcess(python(tmp_path, code, cpus=(cpu,), open_files=99)) as owned:
        assert owned.wait(10)
        assert owned.log_tail() == f"99 {{{cpu}}}\n"


def test_a_limit_above_the_hard_one_is_cut_to_it(tmp_path: Path) -> None:
    code = "import resource; soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE); print(soft == hard)"
    with OwnedProcess(python(tmp_path, code, open_files=1 << 40)) as owned:
        assert owned.wait(10)
        assert owned.log_tail() == "True\n"


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with OwnedProcess(plan(tmp_path, "/nowhere/envoy")) as owned:
        assert owned.wait(10)
        assert owned.ending == "ended with status 127"
        assert owned.log_tail() == "launch: /nowhere/envoy: No such file or directory\n"


def test_a_program_that_may_not_run_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a program")
    with OwnedProcess(plan(tmp_path, str(text))) as owned:
        assert owned.wait(10)
        assert owned.ending == "ended with status 126"
        assert "Permission denied" in owned.log_tail()


def test_leaving_the_block_stops_it(tmp_path: Path) -> None:
    with OwnedProcess(plan(tmp_path, "/bin/sleep", "60")) as owned:
        assert owned.running
        assert owned.ending == ""
    assert not owned.running
    assert owned.ending == "killed by SIGTERM"


def test_one_that_ignores_sigterm_is_killed_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owned = OwnedProcess(python(tmp_path, STUBBORN))
    owned.wait_until(lambda: owned.log_tail() == "up\n", "up", 10)
    with caplog.at_level(logging.WARNING, logger=process_module.__name__):
        owned.stop(grace_s=0.05)
    assert caplog.messages == ["thing ignored SIGTERM for 0.1 s; killing it"]
    assert owned.ending == "killed by SIGKILL (out of memory, or someone killed it)"


def test_stopping_several_asks_all_before_it_waits(tmp_path: Path) -> None:
    owned = [OwnedProcess(plan(tmp_path, "/bin/sleep", "60")) for _ in range(3)]
    stop_all(owned)
    stop_all(owned)
    assert [process.running for process in owned] == [False] * 3


def test_waiting_for_one_that_ends_first_tells_how_and_shows_its_log(tmp_path: Path) -> None:
    with (
        OwnedProcess(python(tmp_path, "print('no port left', flush=True); raise SystemExit(3)")) as owned,
        pytest.raises(MeshwiseError) as caught,
    ):
        owned.wait_until(lambda: False, "ready", 10)
    assert (caught.value.code, caught.value.fault) == ("MW211", Fault.PROXY)
    assert caught.value.what == "thing ended with status 3 before ready; its log ends with:\nno port left\n"


def test_waiting_has_an_end(tmp_path: Path) -> None:
    with OwnedProcess(plan(tmp_path, "/bin/sleep", "60")) as owned, pytest.raises(MeshwiseError) as caught:
        owned.wait_until(lambda: False, "ready", 0.02)
    assert caught.value.code == "MW212"
    assert "thing: not ready within 0.02 s" in caught.value.what


def test_wait_any_returns_the_one_that_ended(tmp_path: Path) -> None:
    with (
        OwnedProcess(plan(tmp_path, "/bin/sleep", "60")) as lasting,
        OwnedProcess(plan(tmp_path, "/bin/sleep", "60")) as ending,
    ):
        assert wait_any([lasting, ending], 0.01) == ()
        ending.send(signal.SIGKILL)
        assert wait_any([lasting, ending], 10) == (ending,)
        assert wait_any([lasting, ending], 10) == (ending,)


def test_it_dies_with_its_owner(tmp_path: Path) -> None:
    """SIGKILL of the owner: no `finally` runs, only the kernel can end the child."""
    code = f"""
import os, sys, time
from pathlib import Path
from meshwise.core.process import LaunchPlan, OwnedProcess
log = Path({str(tmp_path / "log")!r})
owned = OwnedProcess(LaunchPlan("thing", ("/bin/sleep", "60"), dict(os.environ), log))
owned.wait_until(lambda: Path(f"/proc/{{owned.pid}}/comm").read_text() == "sleep\\n", "asleep", 10)
print(owned.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = Path(f"/proc/{int(owner.stdout.readline())}")
        assert child.exists()
        owner.kill()
    deadline = time.monotonic() + 10
    while child.exists() and "\nState:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < deadline


def test_a_child_of_another_process_is_not_started() -> None:
    """The owner may have died before the launcher could set PR_SET_PDEATHSIG."""
    launch = Path(process_module.__file__).with_name("launch.py")
    words = [sys.executable, "-I", "-S", str(launch), "--parent", "1", "--", "/bin/echo", "started"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (126, "")
    assert "parent 1 has ended" in done.stderr


def test_no_program_leaves_a_core_file(tmp_path: Path) -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    with OwnedProcess(python(tmp_path, code)) as owned:
        assert owned.wait(10)
        assert owned.log_tail() in ("(1, 1)\n", "(0, 0)\n"), "where 0 is the highest that is allowed"


def test_one_that_floods_its_log_is_cut_off(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\nwhile True: print('x' * 1000)"
    with OwnedProcess(python(tmp_path, code, file_bytes=10_000)) as owned:
        assert owned.wait(10)
        assert owned.ending == "killed by SIGXFSZ (it wrote more than it may into its log)"
    assert (tmp_path / "log").stat().st_size == 10_000


def test_asking_gives_what_was_said_and_how_it_ended() -> None:
    said = ask(["/bin/sh", "-c", "echo $WORD; echo two >&2; exit 3"], 10, environment={"WORD": "one"})
    assert said == ProgramOutput(3, "one\ntwo\n")
    assert said.ending == "ended with status 3: two"
    assert ask(["/bin/sh", "-c", "kill -SEGV $$"], 10).ending.startswith("killed by SIGSEGV")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("yes flood", "it said more than 65536 bytes"),
        ("yes flood & exec 1>&-; exec sleep 60", "it said more than 65536 bytes"),
        ("exec sleep 60", "it did not end within 0.2 s"),
        ("exec 1>&- 2>&-; sleep 60", "it did not end within 0.2 s"),
        ("sleep 60 & exit 0", "it did not end within 0.2 s"),
    ],
)
def test_asking_a_program_that_does_not_answer_has_an_end_and_leaves_nothing(
    tmp_path: Path, script: str, words: str
) -> None:
    mark = str(tmp_path)
    with pytest.raises(ValueError, match=words):
        ask(["/bin/sh", "-c", script], 0.2 if "end" in words else 10, environment={"MARK": mark})
    deadline = time.monotonic() + 10
    while _with_environment(f"MARK={mark}"):
        assert time.monotonic() < deadline


def _with_environment(word: str) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (process / "environ").read_bytes():
                found.append(process)
    return found


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with status 0"),
        (139, "ended with status 139"),
        (-11, "killed by SIGSEGV"),
        (-64, "killed by SIGRTMAX"),
    ],
)
def test_status_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words


def test_tail_starts_at_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    assert tail(path, 20) == "line 98\nline 99\n"
    assert tail(path) == path.read_text()
    assert tail(tmp_path / "missing") == ""


def test_fixed_addresses_are_the_same_at_every_start(tmp_path: Path) -> None:
    """Where the stack begins, which the kernel else moves at every start."""
    program = "print([line.split('-')[0] for line in open('/proc/self/maps') if '[stack]' in line])"

    def starts(*, fixed: bool) -> set[bytes]:
        found = set()
        for _ in range(4):
            plan = LaunchPlan("one", (sys.executable, "-c", program), {}, fixed_addresses=fixed)
            with OwnedProcess(plan, pipe_stdout=True) as process:
                assert process.stdout is not None
                found.add(process.stdout.read())
        return found

    assert len(starts(fixed=True)) == 1
    assert len(starts(fixed=False)) > 1
