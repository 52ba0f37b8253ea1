"""The control plane of one set of Envoys: `python -m meshwise.mesh.delivery.controller DIRECTORY`.

One process stands for istiod and for every pod's agent: configuration by ADS on one Unix socket, secrets by
SDS on one of each pod, both of which network namespaces do not separate.

Rules of this file:
- What is sent is in one immutable snapshot, made elsewhere.
- A new snapshot (a file, then the command `reload`) replaces the former one whole; streams are sent what
  differs for them. `reload` is acknowledged when it has been accepted, not when it has been sent.
- Nothing is kept that is not in the directory, so the process can be killed and started again.
- Idle it does nothing: no timers, no polling.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from meshwise.mesh.commands import answering, until_told
from meshwise.mesh.delivery.names import COMMAND_SOCKET, PROXY_UID_FILE, SNAPSHOT_FILE, XDS_SOCKET
from meshwise.mesh.delivery.resources import read_snapshot
from meshwise.mesh.delivery.server import Discovery, DiscoveryService, Proxy
from meshwise.mesh.files import hand_over

log = logging.getLogger(__name__)

STOP_GRACE_S = 0.1
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class XdsControlPlane:
    """The servers of one directory. Paths are relative to its parent, in which the process runs: a socket's
    name has room for 107 bytes."""

    def __init__(self, directory: Path) -> None:
        self._directory = Path(directory.name)
        self._discovery = Discovery()
        self._servers: dict[str, Any] = {}
        """By the socket's name."""
        text = (self._directory / PROXY_UID_FILE).read_text()
        self._uid = int(text) if text else None

    async def start(self) -> None:
        await self.reload()
        await self._serve(str(self._directory / XDS_SOCKET), None)

    async def reload(self) -> None:
        """Raises OSError, ValueError or KeyError for a snapshot or a secret that cannot be read."""
        accepted_ns = time.monotonic_ns()
        snapshot = read_snapshot(self._directory / SNAPSHOT_FILE)
        self._discovery.replace(snapshot, accepted_ns)
        for node, entry in snapshot.proxies.items():
            if entry.sds and entry.sds not in self._servers:
                await self._serve(entry.sds, node)

    async def stop(self) -> None:
        await asyncio.gather(*(server.stop(STOP_GRACE_S) for server in self._servers.values()))

    async def _serve(self, name: str, node: str | None) -> None:
        """`node`: whose secrets; None: configuration of all."""
        path = Path(name)
        path.unlink(missing_ok=True)  # what a killed control plane left
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((DiscoveryService(self._discovery, node),))
        server.add_insecure_port(f"unix:{name}")
        await server.start()
        path.chmod(0o600)
        hand_over(path, self._uid)
        self._servers[name] = server

    # --- commands ----------------------------------------------------------------------------------

    async def command(self, order: Mapping[str, Any]) -> Mapping[str, object]:
        """`reload`; `status`; `answers` of proxies `nodes` since snapshot `number`, after waiting `within_s`
        for them to have answered all of it."""
        match order.get("word"):
            case "reload":
                try:
                    await self.reload()
                except (OSError, ValueError, KeyError) as error:
                    return {"error": f"the snapshot cannot be read: {error}"}
                return self._status()
            case "status":
                return self._status()
            case "answers":
                nodes, number = order["nodes"], order["number"]
                await self._discovery.wait_done(nodes, number, order["within_s"])
                return {
                    "accepted_ns": self._discovery.accepted_ns.get(number),
                    "proxies": {node: self._answers(node, number) for node in nodes},
                }
            case unknown:
                return {"error": f"unknown command {unknown!r}"}

    def _status(self) -> dict[str, object]:
        found = self._discovery
        proxies = found.proxies.values()
        return {
            "number": found.number,
            "connected": sorted(node for node, proxy in found.proxies.items() if proxy.connected),
            "behind": sum(not proxy.is_done(found.number) for proxy in proxies),
            "refused": {node: proxy.refused for node, proxy in found.proxies.items() if proxy.refused},
            "out_of_date": found.out_of_date
            + sum(stream.exchange.out_of_date for proxy in proxies for stream in proxy.streams),
            "unknown": sorted(found.unknown),
        }

    def _answers(self, node: str, number: int) -> dict[str, object]:
        proxy = self._discovery.proxies.get(node, Proxy())
        return {
            "done": proxy.is_done(number),
            "connected": proxy.connected,
            "refused": proxy.refused,
            "answers": [asdict(each) for each in proxy.answers if each.number >= number],
        }


async def serve(directory: Path, stopped: Awaitable[object]) -> None:
    """Serve until `stopped`."""
    controller = XdsControlPlane(directory)
    await controller.start()

    async def answer(line: bytes) -> Mapping[str, object]:
        return await controller.command(json.loads(line))

    try:
        async with answering(Path(directory.name) / COMMAND_SOCKET, answer):
            log.info("serving")
            await stopped
    finally:
        await controller.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.chdir(Path(sys.argv[1]).parent)
    asyncio.run(until_told(partial(serve, Path(sys.argv[1]))))
