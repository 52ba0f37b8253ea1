"""`meshwise run` on real proxies, watched and harmed from outside: its processes are found through /proc.

The world has its own PID namespace, but the machine sees all that is in it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as pq
import pytest

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.binary import envoy_path
from meshwise.testbed.local import checks
from meshwise.testbed.local.world import COVERED_DIRECTORIES
from tests.support.people import NOBODY, ORDINARY, ROOT, command_as, environment_as

STUDY = """\
name: faults
seed: 7
environments: [none, istio]
factors:
  posture: [none, strict]
  rate: 200/s
  connections: 2
  request: 64B
  response: 64B
control: {same: [], twin: []}
trial: {warmup: 100ms, duration: %s}
blocks: %d
arrangement: apart
"""
MARKER = "MESHWISE_TEST_MARKER"
MARKS = {"proxy": b"--concurrency", "service": b"meshwise.service", "instrument": b"meshwise.load"}
PROGRAM = ("-c", "from meshwise.cli.main import main; main()")
T = TypeVar("T")
ME = ROOT if os.geteuid() == 0 else ORDINARY


def need_real_proxies() -> None:
    """Skips the test, with the remedy, where no world with Envoy can be made."""
    try:
        envoy_path()
    except MeshwiseError as error:
        pytest.skip(f"needs Envoy: {error.remedy}")
    for result in checks.kernel():
        if result.grade is checks.Grade.FAILED:
            pytest.skip(f"needs namespaces: {result.name}: {result.detail}; {result.remedy}")


@dataclass(frozen=True)
class Seen:
    """One process of the run, as the machine sees it; start ticks tell it from a later one of its pid."""

    pid: int
    start_ticks: int
    command: tuple[bytes, ...]

    @property
    def lives(self) -> bool:
        return _ticks(self.pid) == self.start_ticks


@dataclass
class RealRun:
    """One `meshwise run` as its user starts it."""

    directory: Path
    """Holds `study.yaml`, the archive `out`, and `tmp` for what programs put into TMPDIR."""
    person: str = ME
    options: tuple[str, ...] = ()
    umask: int = -1
    """-1: as these tests have it."""
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def out(self) -> Path:
        return self.directory / "out"

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        """The command in a process group of its own, as a shell starts it; killed at the end if it lives."""
        words = ("run", str(self.directory / "study.yaml"), "--out", str(self.out), *self.options)
        with subprocess.Popen(
            command_as(self.person, *PROGRAM, *words),
            env=environment_as(self.person, **{MARKER: self.marker, "TMPDIR": str(self.directory / "tmp")}),
            cwd=self.directory, process_group=0, text=True, umask=self.umask,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def finish(self) -> tuple[int, str]:
        """Run it to its end: exit status and stderr."""
        with self.started() as process:
            return process.wait(120), process.communicate()[1]

    def rows(self) -> list[dict[str, object]]:
        path = self.out / "trials.parquet"
        return pq.read_table(path).to_pylist() if path.exists() else []

    def line(self, process: subprocess.Popen[str]) -> list[Seen]:
        """The user's process, keeper, init, runner, as far as they are there: each the parent of the next."""
        found = [seen for seen in [_seen(process.pid)] if seen]
        while found and len(found) < 4:
            children = [seen for pid in _children(found[-1].pid) if (seen := _seen(pid))]
            if len(children) != 1:
                break
            found.append(children[0])
        return found

    def everyone(self, process: subprocess.Popen[str]) -> list[Seen]:
        """All descendants and the process itself."""
        found, due = [], [process.pid]
        while due:
            pid = due.pop()
            if seen := _seen(pid):
                found.append(seen)
            due += _children(pid)
        return found

    def in_pod_of_sidecar(self, process: subprocess.Popen[str], role: str) -> list[Seen]:
        """Processes of that role that share their network with a proxy."""
        everyone = self.everyone(process)
        pods = {network(one) for one in everyone if MARKS["proxy"] in one.command} - {0}
        return [one for one in everyone if MARKS[role] in one.command and network(one) in pods]

    def await_(self, process: subprocess.Popen[str], look: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + 60
        while (found := look()) is None:
            assert process.poll() is None, f"ended before {what}: {process.communicate()[1]}"
            assert time.monotonic() < deadline, f"no {what}"
            time.sleep(0.01)
        return found


def network(one: Seen) -> int:
    """The number of its network namespace; 0 if it has ended."""
    try:
        return Path(f"/proc/{one.pid}/ns/net").stat().st_ino
    except OSError:
        return 0


def records(instrument: Seen) -> bool:
    """Whether an instrument has come so far that it records requests."""
    try:
        return "/records" in Path(f"/proc/{instrument.pid}/maps").read_text()
    except OSError:
        return False


def kill(one: Seen, number: signal.Signals = signal.SIGKILL) -> None:
    assert one.lives, "it ended before it could be harmed"
    os.kill(one.pid, number)


@contextmanager
def private_directory(person: str, blocks: int, duration: str = "400ms") -> Iterator[Path]:
    """With a study in it; owned by the person, where no parent keeps others out; gone afterwards."""
    directory = Path("/tmp") / f"meshwise-test-{uuid.uuid4().hex}"
    (directory / "tmp").mkdir(parents=True)
    (directory / "study.yaml").write_text(STUDY % (duration, blocks))
    if person == ORDINARY and os.geteuid() == 0:
        for path in (directory, directory / "tmp", directory / "study.yaml"):
            os.chown(path, NOBODY, NOBODY)
    try:
        yield directory
    finally:
        subprocess.run(["rm", "-rf", str(directory)], check=True)


# --- what could stay behind ------------------------------------------------------------------------


def marked(marker: str) -> list[int]:
    """Processes whose environment holds the marker."""
    found = []
    for pid in _pids():
        try:
            if marker.encode() in Path(f"/proc/{pid}/environ").read_bytes() and _state(pid) != "Z":
                found.append(pid)
        except (OSError, IndexError):
            continue
    return found


def namespaces(members: list[Seen]) -> set[tuple[str, int]]:
    """The PID, mount and network namespaces of these processes that are not the machine's own."""
    found = set()
    for member in members:
        for kind in ("pid", "mnt", "net", "ipc"):
            try:
                found.add((kind, Path(f"/proc/{member.pid}/ns/{kind}").stat().st_ino))
            except OSError:
                continue
    ours = {(kind, Path(f"/proc/self/ns/{kind}").stat().st_ino) for kind in ("pid", "mnt", "net", "ipc")}
    return found - ours


def inhabited(wanted: set[tuple[str, int]], before_ticks: int) -> list[int]:
    """Processes older than that which hold one of these namespaces (a number is used again later)."""
    found = []
    for pid in _pids():
        for kind, inode in wanted:
            try:
                if (
                    Path(f"/proc/{pid}/ns/{kind}").stat().st_ino == inode
                    and _ticks(pid, 10**18) < before_ticks
                ):
                    found.append(pid)
            except OSError:
                continue
    return found


def now_ticks() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")) + 1


def traces() -> tuple[set[str], set[str], set[str], set[str]]:
    """What could stay behind with a name on the machine: links, named namespaces, mounts, files with keys."""
    links = {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]}
    named = Path("/run/netns")
    names = {path.name for path in named.iterdir()} if named.exists() else set()
    mounts = {
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if "meshwise" in line or " nsfs " in line
    }
    kept = {str(path) for place in COVERED_DIRECTORIES if place.is_dir() for path in place.rglob("*")}
    return links, names, mounts, kept


def nothing_stays(
    run: RealRun,
    members: list[Seen],
    spaces: set[tuple[str, int]],
    before: tuple[set[str], set[str], set[str], set[str]],
) -> None:
    """Within ten seconds there is no process, namespace, link, mount or key of the run. Asserts it."""
    deadline, limit_ticks = time.monotonic() + 10, now_ticks()
    while left := (
        marked(run.marker), [m for m in members if m.lives], inhabited(spaces, limit_ticks)
    ):  # fmt: skip
        if not any(left):
            break
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)
    assert traces() == before
    for path in run.directory.rglob("*"):
        assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes(), f"a key in {path}"
    assert not list((run.directory / "tmp").iterdir())


# --- /proc -----------------------------------------------------------------------------------------


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _fields(pid: int) -> list[str]:
    """proc(5) `stat` from field 3 on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    return _fields(pid)[0]


def _ticks(pid: int, absent: int = -1) -> int:
    """Start in clock ticks since boot; `absent` without such a process, or when only its entry is left."""
    fields = _fields(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else absent


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _seen(pid: int) -> Seen | None:
    try:
        command = tuple(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    except OSError:
        return None
    ticks = _ticks(pid)
    return Seen(pid, ticks, command) if ticks >= 0 else None
