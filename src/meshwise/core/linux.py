"""The few Linux calls that Python 3.11 lacks: unshare, setns, prctl, mount, timerfd; and whom a namespace
knows.

Rules of this file: a call either does what it says or raises OSError whose text names the call; nothing
is retried, nothing is remembered. Constants are from linux/sched.h, linux/prctl.h, linux/mount.h and
linux/timerfd.h.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

CLONE_NEWNS = 0x0002_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_TIMERSLACK = 29

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (CLONE_NEWPID: its next children)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def unshare_users(flags: int, uid_map: str, gid_map: str) -> None:
    """`unshare` with CLONE_NEWUSER and these maps, which only a process that stays outside may write.

    So a child that stays writes them. Raises OSError when the namespaces or the maps are refused.
    """
    wake, woken = os.pipe()
    writer = os.fork()
    if writer == 0:
        os._exit(_write_maps(wake, woken, os.getppid(), uid_map, gid_map))
    os.close(wake)
    try:
        unshare(flags | CLONE_NEWUSER)
        os.write(woken, b"1")
    finally:
        os.close(woken)
        code = os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1])
    if code:
        raise OSError(code, f"the uid map of a user namespace: {os.strerror(code)}")


def _write_maps(wake: int, woken: int, target: int, uid_map: str, gid_map: str) -> int:
    """In the child: the errno with which it was refused, 0 if it was not."""
    try:
        os.close(woken)
        if os.read(wake, 1):  # else there is no namespace to write for
            Path(f"/proc/{target}/uid_map").write_text(uid_map)
            Path(f"/proc/{target}/gid_map").write_text(gid_map)
    except OSError as error:
        return error.errno or 1
    except BaseException:  # noqa: BLE001 - the last frame of this process
        return 1
    return 0


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind `fd`; `kind` is the CLONE_ flag that it must be."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source: str, target: Path, filesystem: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        filesystem.encode() if filesystem else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )
    _check(result, f"mount {filesystem or source} on {target}")


def die_with_parent() -> None:
    """SIGKILL this process when the *thread* that made it ends. Lost on a change of credentials.

    A parent that died before this call is not noticed: the caller must look (`parent_is_gone`).
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def forbid_core_dumps() -> None:
    """Neither this process nor what it starts leaves its memory, in which keys are, in a file.

    A limit of 1 byte: it is below the least size of a core file, so none is written, and it is the one value
    for which the kernel starts no program of core_pattern either; 0 does not keep that from being given the
    memory (fs/coredump.c).
    """
    allowed = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 1 if allowed == resource.RLIM_INFINITY else min(allowed, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def hide_memory() -> None:
    """No other process of this user may read this one's memory, and /proc/PID shows it to root only.

    Children inherit it until they become another program, which is readable again.
    """
    _check(_libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def parent_is_gone(lifeline: int) -> bool:
    """Whether the parent, who alone holds the other end of the pipe `lifeline`, has ended.

    getppid() cannot tell across a PID namespace: it is always 0 there.
    """
    poll = select.poll()
    poll.register(lifeline, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def set_timer_slack_ns(slack_ns: int) -> None:
    """How late the kernel may wake this thread to save power (50 us by default)."""
    _check(_libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(slack_ns), 0, 0, 0), "prctl(PR_SET_TIMERSLACK)")


def maps_uid(uid: int, uid_map: str | None = None) -> bool:
    """Whether this user namespace knows `uid`; an ordinary user's own namespace knows only 0."""
    text = Path("/proc/self/uid_map").read_text() if uid_map is None else uid_map
    for line in text.splitlines():
        first, _, count = (int(word) for word in line.split())
        if first <= uid < first + count:
            return True
    return False


def in_network(namespace_fd: int, action: Callable[[], T]) -> T:
    """Run `action` in the network namespace behind `namespace_fd` and return what it returns.

    It runs in a thread of its own, so this thread never leaves its namespace, whatever happens. A socket
    stays in the namespace where it was made; it may be used anywhere afterwards.
    """
    return _in_thread(lambda: setns(namespace_fd, CLONE_NEWNET), action)


def new_network() -> int:
    """A new, empty network namespace without a name; it lives as long as the returned descriptor."""

    def open_own() -> int:
        return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return _in_thread(lambda: unshare(CLONE_NEWNET), open_own)


def _in_thread(prepare: Callable[[], None], action: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            prepare()
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=body, name="in-namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def allow_open_files(wanted: int) -> int:
    """How many descriptors this process may have; its soft limit is raised to `wanted` as far as the hard one
    allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    allowed = wanted if hard == unlimited else min(wanted, hard)
    if soft == unlimited or soft >= allowed:
        return wanted if soft == unlimited else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


class _TimerSpec(ctypes.Structure):
    """struct itimerspec: interval, then value, each seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


def timerfd() -> int:
    """A timer of CLOCK_MONOTONIC as a non-blocking descriptor (os.timerfd_create is Python 3.13)."""
    fd = int(_libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC))
    _check(min(fd, 0), "timerfd_create")
    return fd


def set_timerfd(fd: int, at_ns: int) -> None:
    """Expire once, at this time of the clock; a time that has passed expires at once."""
    spec = _TimerSpec(0, 0, *divmod(max(at_ns, 1), 10**9))
    _check(_libc.timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None), "timerfd_settime")
