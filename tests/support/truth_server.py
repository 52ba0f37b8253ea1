"""An HTTP/1.1 server whose delays are known, to hold the instrument's percentiles against the truth.

    python -m tests.support.truth_server --delay exponential:2ms --seed 1 --record FILE.npy
    python -m tests.support.truth_server --stall 200ms --every 2s

It writes one line of JSON to stdout, `{"port": N, "start_ns": N}`, and at SIGTERM `--record` as an array of
rows (received_ns, due_ns, sent_ns) on CLOCK_MONOTONIC: the truth, with the server's own lateness in it.
`received_ns` is when the kernel had the request for the server (SO_TIMESTAMPING), not when the server got
round to reading it: a request that waits while another is read has already come. While an answer is due it
polls without sleeping, so that what it promises is kept within microseconds.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from meshwise.core.units import parse_duration_ns

_DRAWS = 1 << 16
_SO_TIMESTAMPING = getattr(socket, "SO_TIMESTAMPING", 37)
_RX_SOFTWARE = 1 << 3 | 1 << 4
"""SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE (linux/net_tstamp.h)."""
_STAMPS = struct.Struct("@6q")
"""struct scm_timestamping: three timespecs, of which the first is the kernel's."""
_GAP_NS = 2_000_000
"""With nothing due sooner than this, sleep instead of polling."""


# --- the truth, analytically --------------------------------------------------------------------


def delay_quantile_s(delay: str, quantile: float) -> float:
    """The quantile of a `--delay`: `constant:1ms`, `uniform:1ms:9ms`, `exponential:2ms` (mean) or
    `lognormal:2ms:0.5` (median, sigma)."""
    kind, *numbers = delay.split(":")
    if kind == "lognormal":
        return float(stats.lognorm.ppf(quantile, s=float(numbers[1]), scale=_seconds(numbers[0])))
    values = [_seconds(number) for number in numbers]
    if kind == "constant":
        return values[0]
    if kind == "uniform":
        return values[0] + quantile * (values[1] - values[0])
    if kind == "exponential":
        return -values[0] * math.log1p(-quantile)
    raise ValueError(f"no such delay: {delay}")


def stall_quantile_s(stall_s: float, every_s: float, quantile: float) -> float:
    """The quantile of the response time of arrivals spread evenly over time, when the server stands still
    for the first `stall_s` of every `every_s` and is otherwise instant."""
    return max(0.0, stall_s - (1 - quantile) * every_s)


def _seconds(text: str) -> float:
    return parse_duration_ns(text) / 1e9


# --- the process ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TruthServer:
    """A server that runs."""

    port: int
    pid: int
    start_ns: int
    """CLOCK_MONOTONIC; stalls begin at whole multiples of `every` after it."""


@contextmanager
def truth_server(*arguments: str) -> Iterator[TruthServer]:
    """Run it with these arguments; ended (and `--record` written) when the block is left."""
    command = [sys.executable, "-m", "tests.support.truth_server", *arguments]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield TruthServer(told["port"], process.pid, told["start_ns"])
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def read_record(path: Path) -> NDArray[np.int64]:
    """Rows of (received_ns, due_ns, sent_ns)."""
    rows: NDArray[np.int64] = np.load(path)
    return rows


# --- the server ----------------------------------------------------------------------------------


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def read(self) -> tuple[bytes, int]:
        """What has come, and when the kernel had it (CLOCK_MONOTONIC). Raises OSError as recv does."""
        data, ancillary, _, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(_STAMPS.size))
        now_ns = time.monotonic_ns()
        for _, kind, value in ancillary:
            if kind == _SO_TIMESTAMPING:
                seconds, nanoseconds, *_ = _STAMPS.unpack(value)
                return data, now_ns - (time.time_ns() - (seconds * 10**9 + nanoseconds))
        return data, now_ns

    def requests(self, data: bytes) -> int:
        """How many whole requests have come (content-length bodies are understood)."""
        self.buffer += data
        count = 0
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            length = 0
            for line in self.buffer[:end].lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
            if len(self.buffer) < end + 4 + length:
                break
            self.buffer = self.buffer[end + 4 + length :]
            count += 1
        return count


def _due_function(arguments: argparse.Namespace, start_ns: int) -> Callable[[int], int]:
    """When an answer to a request received at `now_ns` is due."""
    if arguments.stall:
        stall_ns, every_ns = parse_duration_ns(arguments.stall), parse_duration_ns(arguments.every)

        def due(now_ns: int) -> int:
            into = (now_ns - start_ns) % every_ns
            return now_ns + max(0, stall_ns - into)

        return due
    uniform = np.random.default_rng(arguments.seed).random(_DRAWS)
    delays = [round(delay_quantile_s(arguments.delay, share) * 1e9) for share in uniform]
    turn = iter(range(sys.maxsize))
    return lambda now_ns: now_ns + delays[next(turn) % _DRAWS]


def serve(arguments: argparse.Namespace) -> None:
    listener = socket.create_server((arguments.address, arguments.port), backlog=4096)
    listener.setblocking(False)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % arguments.bytes + bytes(arguments.bytes)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, _Connection] = {}
    waiting: list[tuple[int, int, int, _Connection]] = []
    record: list[tuple[int, int, int]] = []
    running = True

    def stop(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    clock = time.monotonic_ns
    start_ns = clock()
    due_of = _due_function(arguments, start_ns)
    sys.stdout.write(json.dumps({"port": listener.getsockname()[1], "start_ns": start_ns}) + "\n")
    sys.stdout.flush()
    order = 0
    idle_s = 0.0 if arguments.poll else 0.2
    while running:
        timeout = max(0.0, (waiting[0][0] - clock() - _GAP_NS) / 1e9) if waiting else idle_s
        for fd, _ in epoll.poll(timeout):
            if fd == listener.fileno():
                sock, _peer = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_SOFTWARE)
                connections[sock.fileno()] = _Connection(sock)
                epoll.register(sock.fileno(), select.EPOLLIN)
                continue
            connection = connections[fd]
            try:
                data, received_ns = connection.read()
            except OSError:
                data = b""
            if not data:
                epoll.unregister(fd)
                connections.pop(fd).sock.close()
                continue
            for _ in range(connection.requests(data)):
                order += 1
                heapq.heappush(waiting, (due_of(received_ns), order, received_ns, connection))
        while waiting and waiting[0][0] <= clock():
            due_ns, _, came_ns, connection = heapq.heappop(waiting)
            if connection.sock.fileno() >= 0:
                sent_ns = clock()
                connection.sock.send(answer)
                record.append((came_ns, due_ns, sent_ns))
    if arguments.record:
        np.save(arguments.record, np.array(record, dtype=np.int64).reshape(-1, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", default="constant:0ms")
    parser.add_argument("--stall", default="", help="stand still this long ...")
    parser.add_argument("--every", default="2s", help="... in every such period")
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", type=Path)
    parser.add_argument(
        "--poll", action="store_true", help="never sleep, so that nothing waits for a waking core"
    )
    serve(parser.parse_args())


if __name__ == "__main__":
    main()
