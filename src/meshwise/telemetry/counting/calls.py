"""Reads valgrind's trace of system calls (`--trace-syscalls=yes`): how often a process made which.

A line is written when a call begins, `SYSCALL[pid,thread](number) sys_name ( arguments ) --> ...`, and a
second one, without the name, when one that had to wait has ended. Threads have valgrind's own numbers.

valgrind hides the kernel's vDSO, so that reading a clock is a system call there, while it is none on a usual
run (vdso(7)); such calls are left out. So are those by which processes take turns (inside.c).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

_BEGUN = re.compile(r"SYSCALL\[(\d+),(\d+)\]\( *(\d+)\) (?:sys_([a-z]\w*)|unimplemented)")
_FORMER = re.compile(r"new(stat|fstat|lstat|uname)|(\w+)_time32")
"""How valgrind's names differ from those of the kernel's table."""
_NONE_WITH_VDSO = frozenset({"clock_getres", "clock_gettime", "getcpu", "gettimeofday", "time"})
_OF_TURNS = frozenset({"flock", "nanosleep", "ppoll"})
"""None that a proxy makes: glibc sleeps by clock_nanosleep."""


def system_calls(lines: Iterable[str], mark: str) -> Mapping[str, int] | None:
    """Calls by the kernel's name without those of the thread that made the call `mark` (`getpriority ( 9, 0`)
    and of other processes. None when nobody made it: then nothing was traced."""
    ours: tuple[str, str] | None = None
    begun: Counter[tuple[str, str, str]] = Counter()
    for line in lines:
        match = _BEGUN.match(line)
        if match is None:
            continue
        process, thread, number, name = match.groups()
        name = name or f"syscall_{number}"  # one that valgrind does not know: it fails there (ENOSYS)
        if ours is None and f"sys_{mark}" in line:
            ours = process, thread
        begun[process, thread, _FORMER.sub(lambda found: found[1] or found[2], name)] += 1
    if ours is None:
        return None
    by_name: Counter[str] = Counter()
    for (process, thread, name), times in begun.items():
        if process == ours[0] and thread != ours[1] and name not in _NONE_WITH_VDSO | _OF_TURNS:
            by_name[name] += times
    return dict(sorted(by_name.items()))
