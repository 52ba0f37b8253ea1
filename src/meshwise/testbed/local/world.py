"""The isolated world in which a study runs, and which ends with it.

    meshwise (the user's process) -> keeper -> init (PID 1 inside) -> runner (PID 2) -> everything else

The keeper leaves the user's namespaces: user, network, mount, IPC, and, for its children, PID. Init is PID 1
of the new PID namespace: when it ends, however it ends, the kernel kills every process inside, and with the
last process go the namespaces and all that lives in them: links, rules, mounts, and the memory-backed files
that hold keys. So it is enough that each process is tied to its parent: the keeper and init get SIGKILL
when their parent dies (PR_SET_PDEATHSIG), init ends when the runner ends.

Rules of this file:
- Nothing is made that has a name outside: no /run/netns entry, no directory, no file.
- The user's files stay where they are, writable as before: the mount tree is a private copy, and only
  one unimportant directory is covered (`SECRETS`), with a tmpfs.
- Outside, only root can read keys: an ordinary user's world has that user's one uid, root's world has
  uids that no user outside has (`users`); what holds the keys of the authority is not dumpable, and nothing
  inside leaves a core file.
- A signal reaches the runner once. The world is a process group of its own, so that a terminal's Ctrl-C
  goes to the user's process only, which passes it on.
- The runner is a fork, so `enter_world` must be called before the process has threads that hold locks.

Sources: namespaces(7), user_namespaces(7), pid_namespaces(7), prctl(2).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from meshwise.core import linux, messages
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.core.process import describe_status
from meshwise.core.refusals import refusal
from meshwise.testbed.local import users

Main = Callable[[], int]

COVERED_DIRECTORIES = tuple(map(Path, ("/run/lock", "/mnt", "/srv", "/media", "/var/opt")))
"""What the tmpfs may cover, first choice first. Not under /dev, /proc or /sys: Envoy refuses files there."""

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_ISOLATED = linux.CLONE_NEWNET | linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC
_SECURE = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_SECRETS_VARIABLE = "MESHWISE_WORLD"
_HIGHEST_UID = 65534
"""Who has this one has all that a mesh or a database may want."""


@dataclass(frozen=True)
class World:
    """What the code inside needs to know about where it is."""

    secrets: Path
    """A private memory-backed directory."""
    privileged: bool
    """Whether more than one uid is mapped here, so that a proxy can have its own."""
    own_users: bool
    """Whether those uids belong to no user outside."""


def current_world() -> World:
    """The world that this process is in. Raises MW201 outside of one."""
    secrets = os.environ.get(_SECRETS_VARIABLE)
    if secrets is None or os.getpid() == 1:
        raise messages.NO_WORLD.error(reason="this process is not inside one (`enter_world` makes it)")
    uid_map = Path("/proc/self/uid_map").read_text()
    privileged = linux.maps_uid(_HIGHEST_UID, uid_map)
    return World(Path(secrets), privileged, own_users=privileged and not users.are_the_machines(uid_map))


def enter_world(main: Main, *, keep: Iterable[Path] = ()) -> int:
    """Run `main` as the runner of a new world and return its exit status.

    `keep`: directories that must stay visible inside (those of Python and the working directory always do).
    A MeshwiseError or KeyboardInterrupt that `main` raises is raised here; another exception arrives as
    RuntimeError with the inner traceback as text. Raises MW201 when this machine refuses a world, MW202
    when it was killed.
    """
    secrets = _directory_to_cover(keep)
    sys.stdout.flush()
    sys.stderr.flush()
    report_in, report_out = os.pipe()
    here = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    keeper = os.fork()
    if keeper == 0:
        _guarded(lambda: _keeper(here, main, secrets, report_out), report_out)
    os.close(report_out)
    # What the user's process ignores (SIGHUP under nohup, SIGINT in a script's background) stays ignored.
    heeded = [number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.signal(number, _forward_to(keeper)) for number in heeded}
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        with os.fdopen(report_in, encoding="utf-8") as pipe:
            report = pipe.read()  # ends when the last process inside has ended or closed it
        status = os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if report:
        _raise_reported(report)
    if status < 0 or (status > _SIGNALLED and status != _INTERRUPTED):
        raise messages.WORLD_ENDED.error(
            ending=describe_status(status if status < 0 else _SIGNALLED - status)
        )
    return status


_SIGNALLED = 128
_KILLED = _SIGNALLED + signal.SIGKILL
_INTERRUPTED = _SIGNALLED + signal.SIGINT
"""What `main` itself returns when it was stopped in order."""


# --- the keeper: leaves the user's namespaces ------------------------------------------------------


def _keeper(parent: int, main: Main, secrets: Path, report: int) -> int:
    os.setpgid(0, 0)
    # As a background group of the terminal it may still write there, whatever `stty tostop` says.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    linux.forbid_core_dumps()
    _leave()
    linux.hide_memory()  # not before: it would take /proc/self/uid_map away from an ordinary user
    linux.die_with_parent()  # here and not earlier: unshare() clears PR_SET_PDEATHSIG
    if os.getppid() != parent:
        return _KILLED
    lifeline, hold = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(hold)
        _guarded(lambda: _init(lifeline, main, secrets, report), report)
    os.close(lifeline)
    os.close(report)
    _take_signals(_forward_to(init))
    return _shell_status(os.waitpid(init, 0)[1])


def _leave() -> None:
    """Root's way with users of its own; where that is refused, as root; else as an ordinary user."""
    if os.geteuid() == 0 and linux.maps_uid(_HIGHEST_UID):
        known = users.known_below(Path("/proc/self/uid_map").read_text())
        own = "\n".join(map(str, users.world_map(known, users.taken_here())))
        if _allows_users(own):
            return linux.unshare_users(_ISOLATED, own, own)
        with contextlib.suppress(PermissionError):  # root without capabilities, as in a container
            return linux.unshare(_ISOLATED)
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(_ISOLATED | linux.CLONE_NEWUSER)
    return _map_to_root(uid, gid)


def _allows_users(own: str) -> bool:
    """Tried in a child, because there is no way back: user.max_user_namespaces may be 0, and in a container
    that covers parts of /proc a user namespace may not mount a /proc of its own."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        linux.unshare_users(linux.CLONE_NEWNS | linux.CLONE_NEWPID, own, own)
        if os.fork() == 0:
            _mount_proc()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.wait()[1])
    finally:
        os._exit(status & 0xFF)


def _map_to_root(uid: int, gid: int) -> None:
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


# --- init: PID 1 inside ----------------------------------------------------------------------------


def _init(lifeline: int, main: Main, secrets: Path, report: int) -> int:
    linux.die_with_parent()
    if linux.parent_is_gone(lifeline):
        return _KILLED
    _mount_proc_and_secrets(secrets)
    runner = os.fork()
    if runner == 0:
        os.close(lifeline)
        _guarded(lambda: _runner(main, secrets), report, making_world=False)
    os.close(report)
    _take_signals(_forward_to(runner))
    while True:  # an orphan's new parent is PID 1, which must reap it
        pid, status = os.waitpid(-1, 0)
        if pid == runner:
            return _shell_status(status)


def _mount_proc_and_secrets(secrets: Path) -> None:
    """A /proc of our own and a place for keys, in a mount tree that passes nothing to the outside."""
    _mount_proc()
    linux.mount("meshwise", secrets, "tmpfs", _SECURE, "mode=0755")


def _mount_proc() -> None:
    linux.mount("none", Path("/"), None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", Path("/proc"), "proc", _SECURE)


def _directory_to_cover(keep: Iterable[Path]) -> Path:
    needed = [
        Path.cwd(),
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(__file__),
        *map(Path, sys.argv[:1]),
        *keep,
    ]
    resolved = [path.resolve() for path in needed]
    for candidate in COVERED_DIRECTORIES:
        real = candidate.resolve()
        if real.is_dir() and not any(path.is_relative_to(real) for path in resolved):
            return real
    raise messages.NO_SECRETS_PLACE.error(tried=", ".join(map(str, COVERED_DIRECTORIES)))


# --- the runner: the caller's own code -------------------------------------------------------------


def _runner(main: Main, secrets: Path) -> int:
    os.environ[_SECRETS_VARIABLE] = str(secrets)
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    # One way to be stopped, for a person and for a supervisor: clean up and keep what is complete.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)  # one that waited comes here
        return main()
    except SystemExit as request:
        return request.code if isinstance(request.code, int) else int(request.code is not None)


# --- what all of them share ------------------------------------------------------------------------


def _guarded(body: Callable[[], int], report: int, *, making_world: bool = True) -> NoReturn:
    """Run a forked process's body and end the process, whatever happens; errors go to the report pipe."""
    status = 70
    try:
        status = body()
    except MeshwiseError as error:
        _send(report, "error", **asdict(error))
    except KeyboardInterrupt:
        _send(report, "interrupt")
    except BaseException as error:  # noqa: BLE001 - the last frame of this process; the parent raises it
        if making_world and isinstance(error, OSError):
            _send(report, "error", **asdict(messages.NO_WORLD.error(reason=_words(error))))
        elif refused := refusal(error):
            _send(report, "error", **asdict(refused))
        else:
            _send(report, "defect", text=traceback.format_exc())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)


def _words(error: OSError) -> str:
    """Without the number; a full user.max_user_namespaces is "no space left", which says the wrong thing."""
    if error.errno == errno.ENOSPC:
        return "no more namespaces are allowed here (user.max_user_namespaces and its like)"
    return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"


def _send(report: int, kind: str, **facts: str) -> None:
    os.write(report, json.dumps({"kind": kind, **facts}).encode())


def _raise_reported(report: str) -> NoReturn:
    facts = json.loads(report)
    match facts.pop("kind"):
        case "error":
            raise MeshwiseError(**{**facts, "fault": Fault(facts["fault"])})
        case "interrupt":
            raise KeyboardInterrupt
        case _:
            raise RuntimeError(f"inside the world:\n{facts['text']}")


def _forward_to(pid: int) -> Callable[[int, FrameType | None], None]:
    def forward(number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return  # it has just ended; its status says how

    return forward


def _take_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in _FORWARDED:
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _shell_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
