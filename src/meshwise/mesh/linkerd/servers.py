"""The sockets of the control plane's services: one server each, which can be gone while the others are there.

Beside each is a socket on which nothing is said: a connection to it lasts as long as the service listens, and
that is how the relays know (`relay`).
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import grpc

from meshwise.mesh.linkerd.failing import FaultMode, ServiceFaults
from meshwise.mesh.linkerd.names import API_SOCKETS, PRESENCE, ControlService

STOP_GRACE_S = 0.1
_OPTIONS = (("grpc.so_reuseport", 0),)


class Servers:
    """Of one control plane, which every server asks for every method."""

    def __init__(self, handler: Any, failing: ServiceFaults, directory: Path) -> None:
        """`handler`: a `grpc.GenericRpcHandler`."""
        self._handler, self._failing = handler, failing
        self._listening = {
            service: _Listening(handler, directory / name) for service, name in API_SOCKETS.items()
        }

    async def start(self) -> None:
        for each in self._listening.values():
            await each.start()

    async def stop(self, grace_s: float | None = STOP_GRACE_S) -> None:
        for each in self._listening.values():
            await each.stop(grace_s)

    async def begin(self, service: ControlService, mode: FaultMode) -> None:
        """A failure, which lasts until `mend`."""
        self._failing.begin(service, mode)
        if mode is FaultMode.GONE:
            await self._listening[service].stop(None)

    async def mend(self, service: ControlService) -> None:
        self._failing.end(service)
        await self._listening[service].start()


class _Listening:
    def __init__(self, handler: Any, path: Path) -> None:
        self._handler, self._path = handler, path
        self._beside = path.with_name(path.name + PRESENCE)
        self._server: Any = None
        self._presence: asyncio.Server | None = None
        self._present: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Nothing, when it listens already."""
        if self._server is not None:
            return
        for path in (self._path, self._beside):  # which a killed controller left
            path.unlink(missing_ok=True)
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((self._handler,))
        self._server.add_insecure_port(f"unix:{self._path}")
        await self._server.start()
        self._presence = await asyncio.start_unix_server(self._stay, self._beside)

    async def stop(self, grace_s: float | None) -> None:
        """Closes every connection. `grace_s`: for calls that are under way."""
        if self._server is None:
            return
        server, presence, self._server, self._presence = self._server, self._presence, None, None
        assert presence is not None
        presence.close()
        for writer in tuple(self._present):
            writer.close()
        await server.stop(grace_s)
        for path in (self._path, self._beside):
            path.unlink(missing_ok=True)

    async def _stay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._present.add(writer)
        try:
            with contextlib.suppress(ConnectionError):
                await reader.read(1)
        finally:
            self._present.discard(writer)
            writer.close()
