"""The isolated world: what is inside, how it ends, and that killing any part of it leaves nothing."""

from __future__ import annotations

import json
import os
import pty
import random
import resource
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.people import NOBODY, ORDINARY, ROOT, command_as, environment_as

PROGRAM = ("-m", "tests.support.inside_world")
MARKER = "MESHWISE_TEST_MARKER"


@pytest.fixture(params=[ROOT, ORDINARY])
def person(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def user_directory(tmp_path_factory: pytest.TempPathFactory, person: str) -> Iterator[Path]:
    """A directory that the person owns, where no parent keeps others out."""
    directory = Path("/tmp") / f"meshwise-test-{uuid.uuid4().hex}"
    directory.mkdir()
    if person == ORDINARY and os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    yield directory
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()


def run(person: str, *words: str) -> tuple[int, list[dict[str, object]], str]:
    done = subprocess.run(
        command_as(person, *PROGRAM, *words),
        env=environment_as(person), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_world_has_its_own_processes_network_and_secrets(person: str, user_directory: Path) -> None:
    status, [seen], stderr = run(person, "look", str(user_directory))
    assert (status, stderr) == (7, "")
    assert seen["pids"] == [1, 2]
    assert seen["uid"] == 0
    assert seen["links"] == ["lo"]
    assert seen["privileged"] is (person == ROOT)
    assert not Path(str(seen["secrets"]), "key").exists()


def test_the_user_keeps_what_was_written(person: str, user_directory: Path) -> None:
    run(person, "look", str(user_directory))
    written = user_directory / "output"
    assert written.read_text() == "kept"
    assert written.stat().st_uid == user_directory.stat().st_uid


def test_errors_cross_the_border(person: str) -> None:
    status, [told], _ = run(person, "refuse")
    assert (status, told["error"], told["what"]) == (3, "MW210", "thing could not be started: no reason")
    status, told_nothing, stderr = run(person, "crash")
    assert (status, told_nothing) == (1, [])
    assert "ZeroDivisionError: on purpose" in stderr


def test_what_the_system_refuses_inside_is_said_in_words(person: str) -> None:
    status, [told], stderr = run(person, "without_threads")
    assert (status, told["error"], stderr) == (3, "MW220", "")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGQUIT, signal.SIGKILL])
def test_a_runner_that_is_killed_is_said_to_be(person: str, number: signal.Signals) -> None:
    status, [told], _ = run(person, "die", str(int(number)))
    assert (status, told["error"]) == (3, "MW202")
    assert str(told["what"]).startswith(f"meshwise's own processes were killed by {number.name}")


def test_a_terminal_that_closes_ends_it_in_order(person: str) -> None:
    """SIGHUP is heeded as Ctrl-C is: the runner cleans up and keeps what is complete."""
    status, told, stderr = run(person, "die", str(int(signal.SIGHUP)))
    assert (status, told, stderr.splitlines()[-1]) == (-signal.SIGINT, [], "KeyboardInterrupt")


def test_a_refused_world_says_why(person: str) -> None:
    """Without capabilities root falls back to a user namespace; without that as well, there is no world."""
    inner = command_as(person, *PROGRAM, "refuse")
    limit = Path("/proc/sys/user/max_user_namespaces")
    if os.geteuid() != 0:
        pytest.skip("needs root, to forbid namespaces in a namespace of its own")
    nested = ["unshare", "--user", "--map-root-user", "--mount-proc", "--fork", "--pid", "sh", "-c"]
    script = f'echo 0 > {limit}; exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin "$@"'
    done = subprocess.run(
        [*nested, script, "sh", *inner[inner.index("-m") - 1 :]],
        env=environment_as(person), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["error"] == "MW201"


def test_a_signal_reaches_the_runner_once(person: str) -> None:
    with subprocess.Popen(
        command_as(person, *PROGRAM, "count_signals"),
        env=environment_as(person),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"]
        process.send_signal(signal.SIGINT)
        assert json.loads(process.stdout.readline()) == {"count": 1}
        assert process.wait(10) == 0


def test_what_the_user_ignores_stays_ignored(person: str) -> None:
    """As under nohup, or in the background of a script."""
    with subprocess.Popen(
        command_as(person, *PROGRAM, "count_signals"),
        env=environment_as(person),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"]
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        assert json.loads(process.stdout.readline()) == {"count": 1}
        assert process.wait(10) == 0


def test_control_c_on_a_terminal_reaches_the_runner_once(person: str) -> None:
    command, environment = command_as(person, *PROGRAM, "count_signals"), environment_as(person)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environment)
    with os.fdopen(terminal, "r+b", buffering=0) as tty:
        seen = b""
        while b"ready" not in seen:
            seen += tty.read(1024)
        tty.write(b"\x03")
        while b"count" not in seen:
            seen += tty.read(1024)
    os.waitpid(pid, 0)
    assert b'{"count": 1}' in seen


@pytest.mark.parametrize("uid", [1337, 2102])
def test_a_user_of_this_machine_with_a_sidecars_uid_reaches_nothing(uid: int) -> None:
    """The meshes' own uids are used inside; outside they may be a user's."""
    marker = uuid.uuid4().hex
    with subprocess.Popen(
        command_as(ROOT, *PROGRAM, "keep_keys"),
        env=environment_as(ROOT, **{MARKER: marker}),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            assert told["uids"] == [1337, 2102]
            inside = marked(marker)
            assert len(inside) == 6, "user's process, keeper, init, runner, two sidecars"
            become = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
            for pid in inside:
                for what in (f"root{told['secrets']}/{uid}/key", "environ", "mem", "fd/1", "cwd/."):
                    read = [*become, "head", "-c", "64", f"/proc/{pid}/{what}"]
                    done = subprocess.run(read, capture_output=True, text=True, check=False)
                    assert "Permission denied" in done.stderr, (pid, what, done)
                stop = [*become, "sh", "-c", f"kill -0 {pid}"]
                assert subprocess.run(stop, capture_output=True, check=False).returncode != 0
            assert told["own_users"] is True
        finally:
            process.kill()
    wait_for_nobody(marker)


def test_what_holds_the_keys_is_closed_to_its_own_user_and_leaves_no_core_file(
    person: str, user_directory: Path
) -> None:
    def allow_core_files() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY and os.geteuid() != 0:
        pytest.skip("needs core files to be allowed: `ulimit -Hc unlimited`")
    done = subprocess.run(
        command_as(person, *PROGRAM, "crash_hard", str(user_directory)), preexec_fn=allow_core_files,
        env=environment_as(person), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"endings": [-signal.SIGABRT], "pod": "killed by SIGABRT"}
    assert list(user_directory.iterdir()) == []

    with subprocess.Popen(
        command_as(person, *PROGRAM, "count_signals"),
        env=environment_as(person), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        init, runner = (int(pid) for pid in line_of(process.pid)[2:])
        for pid in (init, runner):
            read = subprocess.run(
                command_as(person, "-c", f"open('/proc/{pid}/mem', 'rb')"),
                env=environment_as(person), capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert ("PermissionError" in read.stderr) is (person == ORDINARY), "root may, as it may anything"
        process.send_signal(signal.SIGINT)


def line_of(pid: int) -> list[int]:
    """The user's process, keeper, init, runner."""
    found = [pid]
    while children := Path(f"/proc/{found[-1]}/task/{found[-1]}/children").read_text().split():
        found.append(int(children[0]))
    return found


def marked(marker: str) -> list[int]:
    """Processes whose environment holds the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if marker.encode() in (entry / "environ").read_bytes() and state != "Z":
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def wait_for_nobody(marker: str) -> None:
    deadline = time.monotonic() + 10
    while marked(marker):
        assert time.monotonic() < deadline, f"still there: {marked(marker)}"
        time.sleep(0.01)


def traces() -> tuple[set[str], set[str], set[str]]:
    """What could stay behind with a name: links, named namespaces, mounts."""
    links = {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]}
    named = Path("/run/netns")
    mounts = {
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if "meshwise" in line
    }
    return links, {path.name for path in named.iterdir()} if named.exists() else set(), mounts


@pytest.mark.parametrize("moment", range(10))
def test_sigkill_at_any_moment_leaves_nothing(person: str, moment: int) -> None:
    """Half of the kills fall while the world is being made, half once it stands; any of its processes."""
    chance = random.Random(moment)
    marker = uuid.uuid4().hex
    before = traces()
    process = subprocess.Popen(
        command_as(person, *PROGRAM, "hold"),
        env=environment_as(person, **{MARKER: marker}), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if moment % 2:
            process.stdout.readline()
            victim = sorted(marked(marker))[chance.randrange(4)]  # user's process, keeper, init, runner
        else:
            time.sleep(chance.uniform(0.0, 0.4))
            victim = process.pid
        os.kill(victim, signal.SIGKILL)
        process.wait(20)
        wait_for_nobody(marker)
    finally:
        process.kill()
        process.wait(5)
        if process.stdout:
            process.stdout.close()
    assert traces() == before
