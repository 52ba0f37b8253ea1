"""Counted processes that call one another take turns: what one finds does not depend on who is faster."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import USUAL
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.telemetry.counting import valgrind
from meshwise.telemetry.counting.callgrind import CallgrindCounter
from meshwise.telemetry.counting.seam import CountedProcess

CALLER = """
import select, socket, sys, time
near, far = (socket.socket(fileno=int(word)) for word in sys.argv[1:])
waiting = select.epoll()
waiting.register(near, select.EPOLLIN)
while True:
    waiting.poll()
    asked = near.recv(1)
    if not asked:
        break
    far.send(b"head")
    time.sleep(3600 if asked == b"!" else 0.05)  # in which the other could run long since
    far.send(b"body")
"""
CALLED = """
import select, socket, sys
near, far = (socket.socket(fileno=int(word)) for word in sys.argv[1:])
waiting = select.epoll()
waiting.register(near, select.EPOLLIN | select.EPOLLET)
while True:
    waiting.poll()
    try:
        read = near.recv(100, socket.MSG_DONTWAIT)
    except BlockingIOError:
        continue
    if not read:
        break
    far.send(b"%d\\n" % len(read))
"""


@dataclass(frozen=True)
class Chain:
    """We ask the caller, which calls the called one in two parts, which tells us how much it read at once."""

    ask: socket.socket
    told: socket.socket
    caller: OwnedProcess
    called: CountedProcess

    def reads(self, times: int) -> list[int]:
        with self.told.makefile("rb") as lines:
            found = []
            for _ in range(times):
                self.ask.send(b".")
                sizes = [int(lines.readline())]
                while sum(sizes) < 8:
                    sizes.append(int(lines.readline()))
                found.append(len(sizes))
        return found


@contextmanager
def chain(home: Path, together: str) -> Iterator[Chain]:
    with ExitStack() as stack:
        counter = stack.enter_context(CallgrindCounter(home, USUAL, os.environ))
        ask, asked = socket.socketpair()
        call, answered = socket.socketpair()
        tell, told = socket.socketpair()
        for each in (ask, asked, call, answered, tell, told):
            stack.enter_context(each)
        processes, counted = [], []
        for name, code, ends in (("caller", CALLER, (asked, call)), ("called", CALLED, (answered, tell))):
            directory = home / name
            directory.mkdir()
            numbers = tuple(each.fileno() for each in ends)
            argv = (sys.executable, "-I", "-S", "-c", code, *map(str, numbers))
            plan = LaunchPlan(
                name, argv, dict(os.environ), home / f"{name}.log", descriptors=numbers, stop_s=60
            )
            processes.append(stack.enter_context(OwnedProcess(counter.start(plan, directory, together))))
            counted.append(stack.enter_context(closing(counter.attach(processes[-1], directory))))
            for each in ends:
                each.close()
        told.settimeout(120)
        yield Chain(ask, told, processes[0], counted[1])


@pytest.fixture(autouse=True)
def _valgrind() -> None:
    try:
        valgrind.find(os.environ)
    except MeshwiseError as error:
        pytest.skip(str(error))


def test_a_called_process_finds_all_that_its_caller_has_written(tmp_path: Path) -> None:
    with chain(tmp_path, "life") as made:
        made.reads(2)
        made.called.begin()
        assert made.reads(10) == [1] * 10
        count = made.called.end()
    assert count.system_calls == {"epoll_wait": 10, "recvfrom": 10, "sendto": 10}


def test_processes_of_no_name_take_no_turns(tmp_path: Path) -> None:
    with chain(tmp_path, "") as made:
        assert 2 in made.reads(10)


def test_the_end_of_who_has_the_turn_is_the_end_of_its_turn(tmp_path: Path) -> None:
    with chain(tmp_path, "life") as made:
        made.reads(1)
        made.ask.send(b"!")  # it keeps its turn for an hour
        made.told.settimeout(1.0)
        with pytest.raises(TimeoutError):
            made.told.recv(1)
        made.caller.send(signal.SIGKILL)
        made.told.settimeout(60)
        assert made.told.recv(10) == b"4\n"
