"""Linkerd's control plane pushes 1000 policies to 1, 10 and 100 connected proxies: when does each have them?

    python benchmarks/linkerd_push.py [--rounds 5] [--json]

The proxies are clients that hold the streams of one and read what comes without looking at it (as many real
ones do not fit): replicas of one workload, so that each is sent all of the policies. Times are of one clock,
CLOCK_MONOTONIC: the controller's own, from taking the snapshot over to having written the last answer, and
the clients', to having read it. Figure: all of 100 proxies have them in under 1 s (median of the rounds).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))
from tests.support import linkerd_samples as samples  # noqa: E402
from tests.support.linkerd_client import ProxyClient, lay_out, tell  # noqa: E402

from meshwise.mesh.changes import PolicyPush  # noqa: E402
from meshwise.mesh.files import write_private  # noqa: E402
from meshwise.mesh.linkerd import authority  # noqa: E402
from meshwise.mesh.linkerd.model import LinkerdModel  # noqa: E402
from meshwise.mesh.linkerd.names import (  # noqa: E402
    API_SOCKETS,
    COMMAND_SOCKET,
    SNAPSHOT_FILE,
    workload_token,
)
from meshwise.mesh.linkerd.proto import inbound_pb2  # noqa: E402
from meshwise.study.model import LADDER  # noqa: E402
from meshwise.study.timeline import PushPolicies  # noqa: E402

POLICIES, PROXIES = 1000, (1, 10, 100)
LIMIT_S = 1.0
PORT, OTHER_PORTS = 8080, (8081, 8082, 8083, 4191)
CELL = replace(samples.CELL, posture=LADDER[3])
WORKLOAD = workload_token(samples.placement()["node-1"])


class Raw:
    """Stands for a message that nobody looks at."""

    @staticmethod
    def FromString(data: bytes) -> bytes:
        return data


async def follow(client: ProxyClient, port: int, came_ns: list[int]) -> None:
    """Notes when each answer was there."""
    asked = inbound_pb2.PortSpec(workload=WORKLOAD, port=port)
    stream = client.stream("inbound.InboundServerPolicies/WatchPort", asked, Raw)
    async for _ in stream:
        came_ns.append(time.monotonic_ns())


async def rounds_of(directory: Path, proxies: int, rounds: int) -> list[dict[str, Any]]:
    clients = [
        ProxyClient({service: f"unix:{directory / name}" for service, name in API_SOCKETS.items()})
        for _ in range(proxies)
    ]
    came: list[list[int]] = [[] for _ in clients]
    tasks = [
        asyncio.create_task(follow(client, port, came[number] if port == PORT else []))
        for number, client in enumerate(clients)
        for port in (PORT, *OTHER_PORTS)
    ]
    while not all(came):
        await asyncio.sleep(0.01)
    found = []
    for number in range(rounds):
        for each in came:
            each.clear()
        pushed = PolicyPush(PushPolicies(POLICIES, relevant=True), number)
        made = LinkerdModel().snapshot(samples.placement(1), CELL, number + 2, pushed)
        write_private(directory / SNAPSHOT_FILE, made.SerializeToString())
        told = await tell(directory, "reload", pods=["node-1"], within_s=30)
        while not all(came):
            await asyncio.sleep(0.001)
        written = max(each["sent_ns"] for each in told["sent"] if each["sent_ns"]) - told["accepted_ns"]
        read_ms = [(each[0] - told["accepted_ns"]) / 1e6 for each in came]
        found.append({"written_ms": written / 1e6, "read_ms": read_ms, "streams": told["streams"]})
    for task in tasks:
        task.cancel()
    for client in clients:
        await client.close()
    return found


def one(proxies: int, rounds: int) -> list[dict[str, Any]]:
    directory = Path(tempfile.mkdtemp(prefix="l5d-"))
    try:
        lay_out(
            directory, LinkerdModel().snapshot(samples.placement(1), CELL, 1), {}, authority.make_authority()
        )
        command = [sys.executable, "-m", "meshwise.mesh.linkerd.controller", str(directory)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            while not (directory / COMMAND_SOCKET).exists():
                time.sleep(0.01)
            return asyncio.run(rounds_of(directory, proxies, rounds))
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(directory)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = {proxies: one(proxies, arguments.rounds) for proxies in PROXIES}
    if arguments.json:
        print(json.dumps(found))
    last_s = 0.0
    for proxies, rounds in found.items():
        first, median, last, written = (
            float(np.median([how(each) for each in rounds]))
            for how in (
                lambda each: min(each["read_ms"]), lambda each: np.median(each["read_ms"]),
                lambda each: max(each["read_ms"]), lambda each: each["written_ms"],
            )
        )  # fmt: skip
        last_s = last / 1e3
        if not arguments.json:
            print(
                f"{proxies:4} proxies ({rounds[0]['streams']} streams): read by the first {first:.1f} ms, "
                f"half {median:.1f} ms, last {last:.1f} ms after acceptance; written {written:.1f} ms"
            )
    reached = last_s < LIMIT_S
    if not arguments.json:
        print(f"all of {PROXIES[-1]} proxies in under {LIMIT_S:g} s: {'reached' if reached else 'MISSED'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
