"""Profilers that look at running processes from outside: `perf record` at all, `py-spy` at Python programs.

Both are programs of their own that are started for a while and write a file: stacks, each with how often it
was seen. A stack is told from outermost to innermost frame. What cannot be had here is said (`missing`), and
the trial goes on without it.

perf samples the process's CPU clock (`cpu-clock:u`), which needs no counter of the CPU, so virtual machines
have it. Call graphs are made from copies of the stack and the programs' own tables of how to unwind it
(DWARF); where a program has no symbols, as Envoy's wheel, there is only its name.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from meshwise.core.errors import MeshwiseError
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.telemetry.counting import perf_events

PERF, PYSPY = "perf", "py-spy"
HERTZ = {PERF: 499, PYSPY: 199}
"""Of CPU time, and of time. No round numbers: what happens each millisecond is not met each time or never."""
_STACK_BYTES = 32768
"""That perf copies of each sampled stack."""
_SCRIPT_S = 300.0
_BEGINS_S, _ENDS_S = 20.0, 20.0
_UNKNOWN = "[unknown]"
_FRAME = re.compile(r"^\s+([0-9a-f]+) (.*) \((.*)\)$")
_HEAD = re.compile(r"^(\S.*?)\s+(\d+)/(\d+)\s*:?\s*$")


@dataclass(frozen=True)
class ProfiledStack:
    source: str
    tool: str
    thread: str
    """Its name; of py-spy empty."""
    frames: tuple[str, ...]
    """The outermost first."""
    samples: int


@dataclass
class Profile:
    """What profilers found; filled in when they have ended."""

    stacks: list[ProfiledStack] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Tool -> why there is nothing of it."""


def why_no_perf() -> str:
    """Empty where perf can be used."""
    if shutil.which(PERF) is None:
        return "there is no program `perf`"
    return perf_events.missing(perf_events.TASK_CLOCK)


def why_no_pyspy() -> str:
    return "" if _pyspy() else "there is no program `py-spy` (pip install 'meshwise[profile]')"


@contextmanager
def profiling(processes: Mapping[str, int], python: Sequence[str], directory: Path) -> Iterator[Profile]:
    """Profile these (source -> pid) while the block runs. `python`: the sources that are Python programs.
    Files in `directory`, which is there."""
    found = Profile()
    with ExitStack() as running:
        if why := why_no_perf():
            found.missing[PERF] = why
        elif processes:
            running.enter_context(_perf(processes, directory, found))
        own = {source: processes[source] for source in python if source in processes}
        if own and (why := why_no_pyspy()):
            found.missing[PYSPY] = why
        elif own:
            for number, (source, pid) in enumerate(own.items()):
                running.enter_context(_spy(source, pid, directory / f"spy-{number}", found))
        yield found


@contextmanager
def _perf(processes: Mapping[str, int], directory: Path, found: Profile) -> Iterator[None]:
    data = directory / "perf.data"
    pids = ",".join(map(str, processes.values()))
    options = (
        "-e",
        "cpu-clock:u",
        "-F",
        str(HERTZ[PERF]),
        "--call-graph",
        f"dwarf,{_STACK_BYTES}",
        "--no-buildid",
        "--no-buildid-cache",
    )
    program = shutil.which(PERF) or PERF
    recording = _tool(PERF, directory, (program, "record", *options, "-p", pids, "-o", str(data)))
    with recording:
        with suppress(MeshwiseError):  # it ends at once, or cannot be had: its file says nothing then
            recording.wait_until(lambda: data.exists() and data.stat().st_size > 0, "looking", _BEGINS_S)
        yield
    fields = ("script", "-i", str(data), "--no-inline", "-F", "comm,pid,tid,ip,sym,dso")
    told = subprocess.run(
        [program, *fields], capture_output=True, text=True, errors="replace", timeout=_SCRIPT_S, check=False
    )
    if told.returncode:
        found.missing[PERF] = _last_line(recording.log_tail()) or _last_line(told.stderr)
    elif seen := perf_stacks(told.stdout, {pid: source for source, pid in processes.items()}):
        found.stacks += seen
    else:
        found.missing[PERF] = "it saw nothing in this time"


@contextmanager
def _spy(source: str, pid: int, path: Path, found: Profile) -> Iterator[None]:
    how = ("--format", "raw", "--rate", str(HERTZ[PYSPY]), "--nonblocking", "--duration", "unlimited")
    argv = (_pyspy(), "record", "--pid", str(pid), *how, "--output", str(path))
    spying = _tool(f"{PYSPY}-{pid}", path.parent, argv)
    with spying:
        yield
        spying.send(signal.SIGINT)  # upon which it writes what it has
        spying.wait(_ENDS_S)
    if path.exists():
        found.stacks += spied_stacks(path.read_text(), source)
    else:
        found.missing[PYSPY] = _last_line(spying.log_tail()) or "it wrote nothing"


def _tool(name: str, directory: Path, argv: tuple[str, ...]) -> OwnedProcess:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(directory)}
    return OwnedProcess(LaunchPlan(f"profile/{name}", argv, environment, log=directory / f"{name}.log"))


def _pyspy() -> str:
    """Where the program is; empty if it is nowhere."""
    places = sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)
    return shutil.which(PYSPY, path=":".join(places)) or ""


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


# --- what they write -------------------------------------------------------------------------------


def perf_stacks(script: str, source_of: Mapping[int, str]) -> list[ProfiledStack]:
    """Of `perf script -F comm,pid,tid,ip,sym,dso`: a line of who, then one per frame, the innermost first,
    and an empty line. A frame without a symbol is its program or library in brackets."""
    counted: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
    source, thread, frames = "", "", list[str]()
    for line in (*script.splitlines(), ""):
        if (frame := _FRAME.match(line)) is not None:
            symbol, binary = frame[2].strip(), frame[3].rpartition("/")[2]
            frames.append(symbol if symbol and symbol != _UNKNOWN else f"[{binary.strip('[]')}]")
        elif (head := _HEAD.match(line)) is not None:
            source, thread, frames = source_of.get(int(head[2]), ""), head[1], []
        elif not line.strip():
            if source and frames:
                counted[source, thread, tuple(reversed(_once(frames)))] += 1
            source, frames = "", []
    return [
        ProfiledStack(source, PERF, thread, stack, count)
        for (source, thread, stack), count in counted.items()
    ]


def _once(frames: Sequence[str]) -> list[str]:
    """Without the repetition of frames that have no name: nothing tells them apart."""
    return [
        frame
        for number, frame in enumerate(frames)
        if not (number and frame == frames[number - 1] and frame[0] == "[")
    ]


def spied_stacks(raw: str, source: str) -> list[ProfiledStack]:
    """Of `py-spy record --format raw`: a line per stack, its frames joined by `;`, a blank, how often."""
    found = []
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdigit():
            found.append(ProfiledStack(source, PYSPY, "", tuple(stack.split(";")), int(count)))
    return found
