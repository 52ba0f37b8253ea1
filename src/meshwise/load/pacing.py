"""Waking on time: timerfd through ctypes (the standard library has it from Python 3.13), timer slack 1 ns.

`epoll`'s own time-out has steps of a millisecond and a thread's default timer slack is 50 us; both are
useless for pacing. With slack 1 ns a sleeping loop still wakes some tens of microseconds late (the core
has to leave its idle state); the engine learns that delay and arms the timer so much earlier.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_TFD_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
_ITIMERSPEC = struct.Struct("@qqqq")  # interval s, ns; value s, ns

_libc = ctypes.CDLL(None, use_errno=True)
_libc.timerfd_create.argtypes = [ctypes.c_int, ctypes.c_int]


class Timer:
    """A CLOCK_MONOTONIC timer whose file descriptor becomes readable at the armed time."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self.arm = self._make_arm()
        """arm(at_ns): fire at that absolute time, at once when it has passed; replaces what was armed."""

    def _make_arm(self) -> Callable[[int], None]:
        # A fresh function object from its own prototype, with every argument but the value fixed:
        # one call costs half of what a call with converted arguments does.
        buffer = ctypes.create_string_buffer(_ITIMERSPEC.size)
        view = memoryview(buffer).cast("B").cast("q")
        prototype = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p
        )
        settime = prototype(("timerfd_settime", _libc))
        fd, flags, address = (
            ctypes.c_int(self.fd),
            ctypes.c_int(_TFD_TIMER_ABSTIME),
            ctypes.c_void_p(ctypes.addressof(buffer)),
        )

        def arm(at_ns: int) -> None:
            view[2], view[3] = divmod(at_ns, 1_000_000_000)
            settime(fd, flags, address, None)

        return arm

    def close(self) -> None:
        os.close(self.fd)
