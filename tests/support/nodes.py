"""Runs real service nodes on loopback addresses of their own, with the declared ports."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from meshwise.service.spec import NodeSpec, Upstream
from meshwise.study.model import Protocol

_counter = itertools.count(1)

WORK_ROUNDS_PER_US = 2.0


@dataclass(frozen=True)
class RunningNode:
    """A node that answers."""

    spec: NodeSpec
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return self.spec.listen

    def url(self, path: str = "/echo", protocol: Protocol = Protocol.HTTP1) -> str:
        return f"http://{self.address}:{self.spec.ports[protocol]}{path}"


def fresh_address() -> str:
    """A loopback address that no other test uses, by process id and count."""
    return f"127.{os.getpid() >> 8 & 0x7F | 0x40}.{os.getpid() & 0xFF}.{next(_counter) % 254 + 1}"


@contextmanager
def running_node(spec: NodeSpec) -> Iterator[RunningNode]:
    """Start it, wait until it answers, end it (SIGTERM, and SIGKILL if that does not help)."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "node.json"
        file.write_text(spec.to_json())
        process = subprocess.Popen(
            [sys.executable, "-m", "meshwise.service", "--spec", str(file)], stderr=subprocess.PIPE
        )
        try:
            node = RunningNode(spec, process)
            _wait_until_ready(node)
            yield node
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stderr is not None
            process.stderr.close()


def _wait_until_ready(node: RunningNode, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if node.process.poll() is not None:
            assert node.process.stderr is not None
            raise AssertionError(f"the node ended: {node.process.stderr.read().decode()}")
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(node.url("/healthz"), timeout=1) as answer:
                assert answer.status == 200
            return
        time.sleep(0.01)
    raise AssertionError("the node did not answer in time")


@contextmanager
def chain(length: int) -> Iterator[list[RunningNode]]:
    """Nodes of which each calls the next."""
    addresses = [fresh_address() for _ in range(length)]
    with ExitStack() as stack:
        nodes = []
        for index, address in enumerate(addresses):
            following = addresses[index + 1 : index + 2]
            upstream = Upstream(following[0], f"node-{index + 2}.test") if following else None
            spec = NodeSpec(
                f"node-{index + 1}", address, next=upstream, work_rounds_per_us=WORK_ROUNDS_PER_US
            )
            nodes.append(stack.enter_context(running_node(spec)))
        yield nodes
