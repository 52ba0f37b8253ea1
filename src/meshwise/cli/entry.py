"""The program's first lines: importing takes a second, and Ctrl-C meanwhile ends it in one word."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_INTERRUPTED = 130
"""As `report.edge` has it, which is imported later."""


@contextmanager
def while_importing() -> Iterator[None]:
    """Ctrl-C ends the process at once: there is nothing yet to clean up, and what is raised within an import
    may come out of it as another error. Where the caller ignores it, it stays ignored."""
    former = signal.getsignal(signal.SIGINT)
    if former in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(_INTERRUPTED)


def main() -> None:
    """Entry point. Exit status (docs/commands.md): 0 done, 1 the answer is no, 2 bad input, 3 environment;
    and 130 after Ctrl-C."""
    with while_importing():
        from meshwise.cli.main import main as run
    run()
