"""Becomes another program, inside a pod: `python -I -S launch.py OPTIONS -- PROGRAM ARGUMENTS...`.

A program of its own and not a `preexec_fn`, because code between fork and exec of a process that has
threads may hang. It imports nothing heavy (about 10 ms) and nothing of meshwise, for `-I -S` gives it no
site-packages; hence the two system calls that `core.linux` has as well.

Options: --parent PID (required; whose child this must still be), --netns FD, --uid N, --gid N,
--cpus 0,1, --nofile N, --fsize BYTES, --fixed 1 (addresses are not randomised).
The environment is passed on as it is. No program writes a core file.

Order matters: descriptors and limits while privileged, then the network, then the identity, and only
then PR_SET_PDEATHSIG, because a change of identity clears it (prctl(2)).
Ends with status 126 and one line on stderr when something is refused, 127 when there is no such program.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_CLONE_NEWNET = 0x4000_0000
_PR_SET_PDEATHSIG = 1
_ADDR_NO_RANDOMIZE = 0x004_0000


def _options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    split = words.index("--")
    return dict(zip(words[0:split:2], words[1:split:2], strict=True)), words[split + 1 :]


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _limit(kind: int, wanted: int) -> None:
    """Both limits; never above what is allowed."""
    hard = resource.getrlimit(kind)[1]
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (allowed, allowed))


def _become(options: dict[str, str], program: list[str]) -> None:
    if "--nofile" in options:
        wanted = int(options["--nofile"])
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if "--fsize" in options:
        _limit(resource.RLIMIT_FSIZE, int(options["--fsize"]))
    _limit(resource.RLIMIT_CORE, 1)  # not 0: see `core.linux.forbid_core_dumps`
    if "--fixed" in options and ctypes.CDLL(None).personality(ctypes.c_ulong(_ADDR_NO_RANDOMIZE)) < 0:
        raise OSError("personality(ADDR_NO_RANDOMIZE) was refused")
    if "--cpus" in options:
        os.sched_setaffinity(0, {int(cpu) for cpu in options["--cpus"].split(",")})
    if "--netns" in options:
        _call("setns", int(options["--netns"]), _CLONE_NEWNET)
        os.close(int(options["--netns"]))
    # Opened while still privileged: another uid may not be allowed to walk the path (say, /root/...).
    executable = os.open(program[0], os.O_PATH | os.O_CLOEXEC)
    if "--gid" in options:
        os.setgroups([])
        os.setresgid(*[int(options["--gid"])] * 3)
    if "--uid" in options:
        os.setresuid(*[int(options["--uid"])] * 3)
    _call("prctl", _PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(options["--parent"]):
        raise OSError(f"parent {options['--parent']} has ended")
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execve(program[0], program, os.environ)
    except PermissionError:
        os.execve(executable, program, os.environ)


def main() -> int:
    options, program = _options(sys.argv[1:])
    try:
        _become(options, program)
    except FileNotFoundError as error:
        print(f"launch: {program[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - its only output
        return 127
    except OSError as error:
        print(f"launch: {program[0]}: {error}", file=sys.stderr)  # noqa: T201
        return 126
    return 0


if __name__ == "__main__":
    sys.exit(main())
