"""Processes with an owner: started, watched, and stopped in words.

Rules of this file:
- A process ends with the `with` block that started it, or with the thread that did, whichever ends first
  (PR_SET_PDEATHSIG counts from the *thread*: start processes in a thread that outlives them).
- Stopping is SIGTERM, a wait, a warning that it was ignored, SIGKILL, a wait. Nothing is left as a zombie.
- A process's exit status is shown in words (`ending`), not as a number.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from meshwise.core import messages
from meshwise.core.modes import make_directory
from meshwise.core.notice import LOGGED_S, Notice
from meshwise.core.patience import USUAL

log = logging.getLogger(__name__)

_LAUNCH = Path(__file__).with_name("launch.py")
_POLL_S = 0.004
_TAIL_BYTES = 8192
ANSWER_BYTES = 1 << 16
"""More than any proxy says about itself."""
GRACE_S = USUAL.stop_s
"""The default."""


@dataclass(frozen=True)
class LaunchPlan:
    """What to start and as what. None means: as the parent."""

    name: str
    """For people and for the log's file name: `istio/a/node-1/proxy`."""
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """The whole environment of the process, not an addition."""
    log: Path = Path("/dev/null")
    """Takes stderr, and stdout unless that is asked for as a pipe."""
    directory: Path | None = None
    network_fd: int | None = None
    uid: int | None = None
    gid: int | None = None
    cpus: tuple[int, ...] = ()
    open_files: int | None = None
    descriptors: tuple[int, ...] = ()
    """Passed on under the same numbers."""
    stop_s: float = GRACE_S
    """How long it may take to heed SIGTERM, when its `with` block ends."""
    file_bytes: int | None = None
    """No file that it writes, its log included, grows beyond this: it ends with SIGXFSZ."""
    fixed_addresses: bool = False
    """Its memory lies at the same addresses at every start."""


class OwnedProcess:
    """One running program, of which this object is the owner. Use as a context manager."""

    def __init__(self, plan: LaunchPlan, *, pipe_stdout: bool = False) -> None:
        """Starts it. Raises MW210 if not even the launcher can be run."""
        self.plan = plan
        make_directory(plan.log.parent)
        with plan.log.open("ab") as output:
            try:
                self._popen = subprocess.Popen(
                    _command(plan),
                    env=dict(plan.environment),
                    cwd=plan.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if pipe_stdout else output,
                    stderr=output,
                    pass_fds=(*plan.descriptors, *(() if plan.network_fd is None else (plan.network_fd,))),
                    process_group=0,  # a terminal's Ctrl-C is for meshwise, which then stops this one
                )
            except OSError as error:
                raise messages.CANNOT_START.error(name=plan.name, reason=error.strerror or error) from error
        self.asked_to_stop = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop(self.plan.stop_s)

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def stdout(self) -> IO[bytes] | None:
        return self._popen.stdout

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def ending(self) -> str:
        """How it ended, in words; empty while it runs."""
        status = self._popen.poll()
        return "" if status is None else describe_status(status)

    def log_tail(self, limit_bytes: int = _TAIL_BYTES) -> str:
        """The end of its log, from the start of a line; `log_tail(0)` is empty."""
        return tail(self.plan.log, limit_bytes)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False if it still runs after `timeout_s`."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait until `condition()` holds. Raises MW211 when the process ends first, MW212 when time is up."""
        deadline = time.monotonic() + timeout_s
        notice = Notice(f"{self.name} to be {what}", timeout_s, max(LOGGED_S, timeout_s / 3))
        while True:
            running = self.running  # asked first: what it says before it ends is not missed
            if condition():
                return
            notice.look()
            if not running:
                raise messages.ENDED_EARLY.error(
                    name=self.name,
                    ending=self.ending,
                    what=what,
                    tail=self.log_tail() or "(its log is empty)",
                )
            if time.monotonic() > deadline:
                raise messages.NOT_READY.error(
                    name=self.name, what=what, timeout=timeout_s, tail=self.log_tail() or "(its log is empty)"
                )
            time.sleep(_POLL_S)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; to a process that has ended it does nothing."""
        self._popen.send_signal(number)

    def stop(self, grace_s: float = GRACE_S) -> None:
        stop_all((self,), grace_s)

    def close(self) -> None:
        """After its end: close the pipe, if there is one."""
        if self._popen.stdout:
            self._popen.stdout.close()


def wait_any(processes: Iterable[OwnedProcess], timeout_s: float) -> tuple[OwnedProcess, ...]:
    """Sleep until one of them ends or time is up; those that have ended. Costs nothing while they run."""
    watched = list(processes)
    poll = select.poll()
    descriptors = []
    try:
        for process in watched:
            if process.running:
                descriptors.append(os.pidfd_open(process.pid))
                poll.register(descriptors[-1], select.POLLIN)
        if len(descriptors) == len(watched):
            poll.poll(timeout_s * 1000)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return tuple(process for process in watched if not process.running)


def stop_all(processes: Iterable[OwnedProcess], grace_s: float = GRACE_S) -> None:
    """Stop several at once: all are asked before any is waited for. Stopping twice is fine."""
    owned = list(processes)
    for process in owned:
        process.asked_to_stop = True
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for process in owned:
        if not process.wait(max(0.0, deadline - time.monotonic())):
            log.warning("%s ignored SIGTERM for %.1f s; killing it", process.name, grace_s)
            process.send(signal.SIGKILL)
    for process in owned:
        if not process.wait(grace_s):
            raise messages.WILL_NOT_DIE.error(name=process.name, pid=process.pid)
        process.close()


_HINTS = {
    int(signal.SIGKILL): " (out of memory, or someone killed it)",
    int(signal.SIGXFSZ): " (it wrote more than it may into its log)",
}


@dataclass(frozen=True)
class ProgramOutput:
    """What a program printed, on stdout and stderr together, and how it ended."""

    status: int
    text: str

    @property
    def ending(self) -> str:
        """How it ended and what it said last, in words."""
        said = self.text.strip().splitlines()
        return describe_status(self.status) + (f": {said[-1].strip()[:200]}" if said else "")


def ask(
    argv: Sequence[str | Path],
    timeout_s: float,
    *,
    environment: Mapping[str, str] | None = None,
    limit_bytes: int = ANSWER_BYTES,
    descriptors: Sequence[int] = (),
) -> ProgramOutput:
    """Run a program that answers and ends, as `--version` does; it and its children are killed after that.

    `descriptors` are passed on under the same numbers. Raises OSError when it cannot be started,
    ValueError in words when it does not end in time or says more than `limit_bytes`: what a user names as a
    proxy may be any program.
    """
    deadline = time.monotonic() + timeout_s
    notice = Notice(f"{argv[0]} to answer", timeout_s)
    said = bytearray()
    with subprocess.Popen(
        list(map(str, argv)),
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        bufsize=0, process_group=0, pass_fds=descriptors,
    ) as program:  # fmt: skip
        pipe = program.stdout
        assert pipe is not None
        try:
            while chunk := _read_until(pipe, deadline, notice):
                said += chunk
                if len(said) > limit_bytes:
                    raise ValueError(f"it said more than {limit_bytes} bytes")
            program.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise ValueError(f"it did not end within {timeout_s:g} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
    return ProgramOutput(program.returncode, said.decode(errors="replace"))


def _read_until(pipe: IO[bytes], deadline: float, notice: Notice) -> bytes:
    """The next that comes; empty at the end. Raises TimeoutError."""
    while (left_s := deadline - time.monotonic()) > 0:
        if select.select([pipe], [], [], min(left_s, notice.left_s))[0]:
            return pipe.read(1 << 16)
        notice.look()
    raise TimeoutError


def describe_status(status: int) -> str:
    """subprocess's return code in words."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"killed by {name}{_HINTS.get(-status, '')}"
    return f"ended with status {status}"


def tail(path: Path, limit_bytes: int = _TAIL_BYTES) -> str:
    """The last lines of a file that may be large or missing; at most `limit_bytes` are read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit_bytes))
            text = file.read(limit_bytes).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return text if size <= limit_bytes else text.partition("\n")[2]


def _command(plan: LaunchPlan) -> Sequence[str]:
    options = {
        "--parent": os.getpid(),
        "--netns": plan.network_fd,
        "--uid": plan.uid,
        "--gid": plan.gid,
        "--cpus": ",".join(map(str, plan.cpus)) or None,
        "--nofile": plan.open_files,
        "--fsize": plan.file_bytes,
        "--fixed": 1 if plan.fixed_addresses else None,
    }
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return (sys.executable, "-I", "-S", str(_LAUNCH), *given, "--", *plan.argv)
