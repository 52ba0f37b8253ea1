"""The counter `callgrind`: processes run under valgrind, and a library inside them begins and ends windows.

Rules of this file:
- Nobody is stopped from outside: no ptrace, no vgdb. The library's thread (inside.c) waits in a socket call.
- Nothing of ours is left on a disk: the library is in memory (memfd), dumps are read and removed.
- What is counted depends on the program and its work alone: addresses are fixed, the environment always has
  the same size, the user's valgrind options are not read, jemalloc gives nothing back by the clock.
- Between the windows of one trial and those of the next nothing is instrumented, because a program is six
  times slower with it: it starts so, too. What was translated is lost with it, so each trial has to warm up.
- Threads take turns in order (`--fair-sched`), as valgrind runs one at a time; and so do processes that call
  one another (`together`), because what one finds when it wakes would else depend on who is faster.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import Patience
from meshwise.core.process import LaunchPlan, OwnedProcess, ask, tail
from meshwise.telemetry.counting import calls, profile, troubles, valgrind
from meshwise.telemetry.counting.seam import ARITHMETIC, Count

SLOWNESS = 50.0
"""Measured: an Envoy is ready after 15 s instead of 0.3 s, and a request takes 8 ms instead of 0.15 ms."""
KNOWN_WORK = 100_000
"""Instructions that a check must count at least: the turns of a loop (inside.c)."""
_MARK = f"getpriority ( {0x6D77}, 0 )"
"""A system call that only our thread makes (inside.c)."""
_SOCKET, _LOG, _PROFILE = "control", "valgrind.log", "profile"
_VARIABLE_BYTES = 512
_DESCRIPTOR_BYTES = 32
_ONCE_MORE_S = 0.02
_TOLD_LINES = 40
_KEPT_BY_ALLOCATOR = "dirty_decay_ms:-1,muzzy_decay_ms:-1"


class CallgrindCounter:
    """A context manager: owns the memory in which the library is."""

    def __init__(self, scratch: Path, patience: Patience, environment: Mapping[str, str]) -> None:
        """`scratch`: a directory in which to compile; `patience`: of an ordinary process here; `environment`:
        where programs are found. Raises MW230, MW231, MW232."""
        self._valgrind = valgrind.find(environment)
        self._patience = patience.slowed(SLOWNESS)
        self._programs: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        library = valgrind.compile_library(scratch, environment)
        with contextlib.ExitStack() as self._owned:
            self._library = self._own(_in_memory(library))
            self._cpu, instructions = self._presented_cpu(scratch, environment)
            self._arithmetic_ns = self._arithmetic(environment) / instructions
            self._fixed_addresses = valgrind.may_fix_addresses()
            self._owned = self._owned.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._owned.close()

    @property
    def name(self) -> str:
        return "callgrind"

    @property
    def slowness(self) -> float:
        return SLOWNESS

    def start(self, plan: LaunchPlan, directory: Path, together: str = "") -> LaunchPlan:
        program = plan.argv[0]
        if valgrind.interpreter(Path(program)) is False:
            reason = "it is linked statically, so nothing can be preloaded into it"
            raise messages.NOT_COUNTABLE.error(path=program, reason=reason)
        for left in (directory / _SOCKET, directory / _LOG, *directory.glob(f"{_PROFILE}*")):
            left.unlink(missing_ok=True)
        if plan.uid is not None:
            os.chown(directory, plan.uid, plan.uid if plan.gid is None else plan.gid)
        descriptors = (*plan.descriptors, self._library)
        if plan.uid is not None and not valgrind.open_to(plan.uid, Path(program)):
            opened = self._program(program)
            descriptors, program = (*descriptors, opened), _through(opened)
        turn = {}
        if together:
            descriptors = (*descriptors, self._turn(together))
            turn = {"MESHWISE_TURN": _through(self._turn(together))}
        words = (
            "--tool=callgrind", "--command-line-only=yes", "--vgdb=no", "--fair-sched=yes",
            "--dump-line=no", "--instr-atstart=no", f"--callgrind-out-file={directory / _PROFILE}",
            f"--log-file={directory / _LOG}",
        )  # fmt: skip
        return replace(
            plan,
            argv=(str(self._valgrind.path), *words, program, *plan.argv[1:]),
            environment={
                **plan.environment,
                "LD_PRELOAD": _through(self._library),
                "MESHWISE_COUNTER": _padded(str(directory.absolute()), _VARIABLE_BYTES),
                **turn,
                "MALLOC_CONF": _KEPT_BY_ALLOCATOR,
                "_RJEM_MALLOC_CONF": _KEPT_BY_ALLOCATOR,
            },
            descriptors=descriptors,
            fixed_addresses=self._fixed_addresses,
        )

    def attach(self, process: OwnedProcess, directory: Path) -> CallgrindProcess:
        return CallgrindProcess(process, directory, self._patience)

    def describe(self) -> Mapping[str, str]:
        return {
            "tool": "valgrind --tool=callgrind",
            "version": self._valgrind.version,
            "counts": "instructions in user space of all threads; system calls by name",
            "cpu": f"{self._cpu}, as valgrind presents it",
            ARITHMETIC: f"{self._arithmetic_ns:.4f}",
            "addresses": "fixed" if self._fixed_addresses else "randomised: this machine forbids to fix them",
        }

    def _own(self, descriptor: int) -> int:
        self._owned.callback(os.close, descriptor)
        return descriptor

    def _turn(self, together: str) -> int:
        """What processes of this name lock."""
        if together not in self._turns:
            self._turns[together] = self._own(_in_memory(b""))
        return self._turns[together]

    def _program(self, path: str) -> int:
        if path not in self._programs:
            self._programs[path] = self._own(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return self._programs[path]

    def _presented_cpu(self, scratch: Path, environment: Mapping[str, str]) -> tuple[str, int]:
        """Which CPU a program under valgrind sees, and what the known arithmetic counts there."""
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            words = ("--tool=callgrind", "--command-line-only=yes", "--vgdb=no", "-q", "--dump-line=no")
            out = f"--callgrind-out-file={directory}/{_PROFILE}"
            cpu = self._told_by_library([self._valgrind.path, *words, out], "cpu", environment)
            with (Path(directory) / f"{_PROFILE}.1").open(encoding="utf-8", errors="replace") as file:
                return cpu.strip("\0 "), sum(profile.functions(file).values())

    def _arithmetic(self, environment: Mapping[str, str]) -> int:
        """CPU time of the same on this machine's own CPU, ns."""
        return int(self._told_by_library([], "arithmetic", environment))

    def _told_by_library(self, words: Sequence[str | Path], what: str, environment: Mapping[str, str]) -> str:
        """Asked of this Python, whose own code is not reached: the library ends it. Raises MW230."""
        given = {**environment, "LD_PRELOAD": _through(self._library), "MESHWISE_COUNTER": what}
        argv = [*words, sys.executable]
        try:
            said = ask(argv, self._patience.start_s, environment=given, descriptors=[self._library])
        except (OSError, ValueError) as error:
            raise messages.NO_VALGRIND.error(reason=f"{argv[0]}: {valgrind.words_of(error)}") from error
        found = [line for line in said.text.splitlines() if line.startswith(f"{what} ")]
        if said.status or not found:
            command = " ".join(map(str, argv[:2]))
            raise messages.NO_VALGRIND.error(reason=f"{command} with the counter's library {said.ending}")
        return found[0].removeprefix(f"{what} ")


class CallgrindProcess:
    """A process that was started as `CallgrindCounter.start` says; owns the connection to its thread."""

    def __init__(self, process: OwnedProcess, directory: Path, patience: Patience) -> None:
        """Waits until the thread answers and has counted known work. Raises MW234, MW235, MW236."""
        self._process = process
        self._directory = directory
        self._patience = patience
        self._traced_from: int | None = None
        self._instrumented = False
        self._connection = self._connect()
        try:
            self._command("o")  # one that was let go of may have been
            self._count_known_work()
            self.pause()
        except BaseException:
            self._connection.close()
            raise

    def begin(self) -> None:
        if not self._instrumented:
            self._command("i")
            self._instrumented = True
        self._traced_from = self._log.stat().st_size
        self._command("z")

    def end(self) -> Count:
        count = self._ended()
        if not count.instructions and count.system_calls:
            raise self._nothing("it made system calls, and no instruction was counted")
        return count

    def pause(self) -> None:
        self._command("o")
        self._instrumented = False

    def close(self) -> None:
        self._connection.close()

    def _ended(self) -> Count:
        if self._traced_from is None:
            raise ValueError("a window ends that has not begun")
        self._command("d")
        count = self._read(self._traced_from)
        self._traced_from = None
        return count

    @property
    def _log(self) -> Path:
        return self._directory / _LOG

    def _connect(self) -> socket.socket:
        begun = time.monotonic()
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return _connected(self._directory)
            self._look("its thread inside never listened", begun, self._patience.ready_s)
            time.sleep(_ONCE_MORE_S)

    def _count_known_work(self) -> None:
        self.begin()
        self._command("k")
        if (counted := self._ended().instructions) < KNOWN_WORK:
            raise self._nothing(f"known work of {KNOWN_WORK} turns of a loop counted as {counted}")

    def _command(self, letter: str) -> None:
        """Sends it and waits for its answer."""
        begun = time.monotonic()
        word = letter.encode()
        try:
            self._connection.send(word)
            while not select.select([self._connection], [], [], _ONCE_MORE_S)[0]:
                self._look(f"its thread inside was told `{letter}`", begun, self._patience.control_s)
            answered = self._connection.recv(1) == word
        except ConnectionError:
            answered = False
        if not answered:  # a process that ends closes its connection a little before
            self._process.wait(self._patience.stop_s)
            self._look("its thread inside ended", begun, 0.0)

    def _look(self, what: str, begun: float, limit_s: float) -> None:
        """Raises MW235 when the process has ended, MW234 when this took too long."""
        if not self._process.running:
            raise troubles.ended(self._process, "callgrind", self._told())
        if time.monotonic() - begun >= limit_s:
            raise messages.COUNTER_SILENT.error(
                name=self._process.name, what=what, timeout=limit_s, tail=self._told()
            )

    def _read(self, traced_from: int) -> Count:
        dumps = sorted(self._directory.glob(f"{_PROFILE}.*"), key=lambda path: int(path.suffix[1:]))
        if not dumps:
            raise self._nothing("valgrind wrote nothing")
        with dumps[-1].open(encoding="utf-8", errors="replace") as file:
            by_function = profile.functions(file)
        for path in dumps:
            path.unlink()
        with self._log.open(encoding="utf-8", errors="replace") as log:
            log.seek(traced_from)
            made = calls.system_calls(log, _MARK)
        if made is None:
            raise self._nothing("valgrind traced no system calls")
        return Count(sum(by_function.values()), None, made, by_function)

    def _nothing(self, reason: str) -> MeshwiseError:
        return messages.NOTHING_COUNTED.error(counter="callgrind", name=self._process.name, reason=reason)

    def _told(self) -> str:
        """The end of what valgrind said, then of what the process said."""
        said = [line for line in tail(self._log).splitlines() if not line.startswith("SYSCALL[")]
        return "\n".join([*said[-_TOLD_LINES:], self._process.log_tail()]).strip() or "(its logs are empty)"


def _connected(directory: Path) -> socket.socket:
    """Through a descriptor, as a socket's address holds 107 bytes and a path may be longer."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        made.connect(f"/proc/self/fd/{place}/{_SOCKET}")
    except OSError:
        made.close()
        raise
    finally:
        os.close(place)
    return made


def _in_memory(content: bytes) -> int:
    try:
        descriptor = os.memfd_create("meshwise-counter", os.MFD_CLOEXEC)
    except OSError as error:
        raise messages.NO_COUNTER_LIBRARY.error(reason=f"memfd_create: {error.strerror}") from error
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    return descriptor


def _through(descriptor: int) -> str:
    return _padded(f"/proc/self/fd/{descriptor}", _DESCRIPTOR_BYTES)


def _padded(path: str, multiple: int) -> str:
    """The same file under a longer name, as more slashes in front mean nothing: its length is a multiple.

    What stands in a program's arguments or environment moves its stack, and with it what is counted."""
    return "/" * (-len(path) % multiple) + path
