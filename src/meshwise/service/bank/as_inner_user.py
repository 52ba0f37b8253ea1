"""Becomes another program under another number: `python -I -S as_inner_user.py PARENT UID PROGRAM
ARGUMENTS...`.

PostgreSQL refuses to run as uid 0, which is the only uid an ordinary user's namespace has. One more user
namespace in which the outer 0 is called UID satisfies it. Making the namespace clears PR_SET_PDEATHSIG
(prctl(2)), so it is set anew. Ends with status 126 and one line when something is
refused.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x1000_0000
_PR_SET_PDEATHSIG = 1


def main() -> int:
    parent, uid, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.unshare(_CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} 0 1")
        Path("/proc/self/gid_map").write_text(f"{uid} 0 1")
        libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            raise OSError(f"parent {parent} has ended")
        os.execv(program[0], program)
    except OSError as error:
        sys.stderr.write(f"as_inner_user: {error}\n")
        return 126


if __name__ == "__main__":
    sys.exit(main())
