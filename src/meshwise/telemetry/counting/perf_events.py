"""perf_event_open(2) for one process with all of its threads, by ctypes.

Rules of this file:
- An event that is opened on a thread counts that thread and, by `inherit`, whatever it starts later. So every
  thread that there is gets one, and the list of threads must be the same before and after: otherwise a thread
  that came between would be counted twice or not at all.
- Only user space is counted, which an ordinary user may where kernel.perf_event_paranoid is 2 or less.
- Structures and numbers are from linux/perf_event.h and asm/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SYSCALL = {"x86_64": 298, "aarch64": 241}
_FLAG_FD_CLOEXEC = 8
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6
_TIME_ENABLED, _TIME_RUNNING = 1, 2
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQ")
"""The first version of struct perf_event_attr, 64 bytes: type, size, config, sample_period, sample_type,
read_format, flags, wakeup_events, bp_type, bp_addr."""
_READ = struct.Struct("=QQQ")
_TRIES = 100


@dataclass(frozen=True)
class EventKind:
    """`type` and `config` of struct perf_event_attr."""

    name: str
    type: int
    config: int


INSTRUCTIONS = EventKind("instructions", 0, 1)
CYCLES = EventKind("cycles", 0, 0)
TASK_CLOCK = EventKind("task_clock_ns", 1, 1)
PAGE_FAULTS = EventKind("page_faults", 1, 2)

OpenEvent = Callable[[EventKind, int], int]
"""Of a kind and a thread (0: the caller) to a descriptor; raises OSError."""


def open_event(kind: EventKind, thread: int) -> int:
    """Raises OSError: ENOENT, EOPNOTSUPP or ENODEV where there is no such counter, EACCES or EPERM where it
    may not be used, ENOSYS where the kernel has none or the machine is none that is known here."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    flags = _INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR
    read_format = _TIME_ENABLED | _TIME_RUNNING
    attributes = _ATTRIBUTES.pack(kind.type, _ATTRIBUTES.size, kind.config, 0, 0, read_format, flags, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    made = libc.syscall(
        ctypes.c_long(number), ctypes.c_char_p(attributes), ctypes.c_int(thread), ctypes.c_int(-1),
        ctypes.c_int(-1), ctypes.c_ulong(_FLAG_FD_CLOEXEC),
    )  # fmt: skip
    if made < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(made)


def missing(kind: EventKind = INSTRUCTIONS, opening: OpenEvent = open_event) -> str:
    """Why this machine does not count such events of its own processes; empty where it does."""
    try:
        os.close(opening(kind, 0))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"it may not be used here (kernel.perf_event_paranoid is {_paranoid()})"
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV):
            return "this machine has no performance counter, or its hypervisor gives it none"
        return f"perf_event_open: {error.strerror}"
    return ""


def _paranoid() -> str:
    try:
        return Path("/proc/sys/kernel/perf_event_paranoid").read_text().strip()
    except OSError:
        return "unknown"


@dataclass(frozen=True)
class Counted:
    """One kind of event, since the counters were opened."""

    value: int
    shared: bool
    """Whether the counter was someone else's for a part of the time, so that the value is too small."""


class ProcessEvents:
    """Events of all threads of one process from now on, ended ones included. A context manager."""

    def __init__(self, pid: int, kinds: Sequence[EventKind], opening: OpenEvent = open_event) -> None:
        """Raises OSError as `open_event` does, and ProcessLookupError when there is no such process."""
        self._kinds = tuple(kinds)
        self._stack = ExitStack()
        for _ in range(_TRIES):
            threads = _threads(pid)
            with ExitStack() as stack:
                try:
                    self._opened = [
                        [_owned(stack, opening(kind, thread)) for thread in threads] for kind in kinds
                    ]
                except ProcessLookupError:  # a thread that has ended meanwhile
                    continue
                if _threads(pid) == threads:
                    self._stack = stack.pop_all()
                    return
        raise OSError(errno.EAGAIN, f"process {pid} never stops starting threads")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def read(self) -> Sequence[Counted]:
        """In the order of `kinds`."""
        return [self._sum(opened) for opened in self._opened]

    @staticmethod
    def _sum(opened: Sequence[int]) -> Counted:
        read = [_READ.unpack(os.read(descriptor, _READ.size)) for descriptor in opened]
        return Counted(
            sum(value for value, _, _ in read), any(running < enabled for _, enabled, running in read)
        )


def _owned(stack: ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _threads(pid: int) -> set[int]:
    """Raises ProcessLookupError."""
    try:
        return {int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()}
    except FileNotFoundError as error:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
