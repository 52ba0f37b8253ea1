"""Proxies that are none: clients of the discovery services over real sockets, which ask for what Envoy would,
accept what they are sent, and note what came and when.

They run in a thread of their own, so that a test reads like what happens.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from meshwise.mesh.delivery.messages import message_class
from meshwise.mesh.delivery.names import COMMAND_SOCKET
from meshwise.mesh.delivery.resources import XdsKind

_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
_SDS = "/envoy.service.secret.v3.SecretDiscoveryService"


def discovery(name: str) -> Any:
    """A message of the discovery service."""
    return message_class(f"envoy.service.discovery.v3.{name}")


_WAIT_S = 20.0


@dataclass(frozen=True)
class Came:
    kind: XdsKind
    names: tuple[str, ...]
    removed: tuple[str, ...]
    version: str
    at_ns: int


Refuse = Callable[[Came], str | None]
"""The words of a refusal, or None."""


@dataclass
class XdsClient:
    """One stream of one proxy. `refuse`: asked of everything that comes."""

    node: str
    socket: str
    delta: bool = True
    secrets: tuple[str, ...] = ()
    """Names, of a stream to an agent; else it is one to the control plane."""
    refuse: Refuse = lambda came: None
    has: dict[XdsKind, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in XdsKind})
    """Version by name; given: it was connected before."""
    came: list[Came] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    """Encoded resources by name."""
    failure: str = ""
    """How the stream ended, where it was not ended here."""
    _asked: dict[XdsKind, set[str]] = field(default_factory=dict)

    async def run(self) -> None:
        """Until it is cancelled or the stream ends."""
        service = _SDS if self.secrets else _ADS
        name = (
            ("DeltaSecrets" if self.delta else "StreamSecrets")
            if self.secrets
            else ("DeltaAggregatedResources" if self.delta else "StreamAggregatedResources")
        )
        parse = discovery("DeltaDiscoveryResponse") if self.delta else discovery("DiscoveryResponse")
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"unix:{self.socket}", options=options) as channel:
            method = channel.stream_stream(
                f"{service}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=parse.FromString,
            )
            stream = method()
            try:
                await self._converse(stream)
            except grpc.RpcError:
                self.failure = f"{await stream.code()}: {await stream.details()}"

    async def _converse(self, stream: Any) -> None:
        for kind in [XdsKind.SECRETS] if self.secrets else [XdsKind.CLUSTERS, XdsKind.LISTENERS]:
            await self._ask(stream, kind, set(self.secrets))
        while (response := await stream.read()) is not grpc.aio.EOF:
            await self._take(stream, response)

    async def _take(self, stream: Any, response: Any) -> None:
        kind = XdsKind(response.type_url)
        found = self._read(response)
        removed = tuple(response.removed_resources) if self.delta else ()
        version = response.system_version_info if self.delta else response.version_info
        came = Came(kind, tuple(found), removed, version, time.monotonic_ns())
        words = self.refuse(came)
        self.came.append(came)
        if words is None:
            if not self.delta:
                self.has[kind].clear()
            self.has[kind].update({name: each[0] for name, each in found.items()})
            self.bodies.update({name: each[1] for name, each in found.items()})
            for name in removed:
                self.has[kind].pop(name, None)
        answer: Any = {"type_url": kind, "response_nonce": response.nonce}
        if words is not None:
            answer["error_detail"] = {"code": 13, "message": words}
        if self.delta:
            await stream.write(discovery("DeltaDiscoveryRequest")(**answer))
        else:
            answer["resource_names"] = sorted(self._asked[kind])
            await stream.write(discovery("DiscoveryRequest")(version_info=version, **answer))
        clusters = {name for name in self.has[XdsKind.CLUSTERS] if name.startswith("outbound|")}
        tables = {
            name.removeprefix("0.0.0.0_")
            for name in self.has[XdsKind.LISTENERS]
            if name.startswith("0.0.0.0_")
        }
        for wanted, names in ((XdsKind.ENDPOINTS, clusters), (XdsKind.ROUTES, tables)):
            if names - self._asked.get(wanted, set()):
                await self._ask(stream, wanted, names)

    def _read(self, response: Any) -> dict[str, tuple[str, bytes]]:
        """Version and bytes by name."""
        if self.delta:
            return {each.name: (each.version, each.resource.value) for each in response.resources}
        kind = XdsKind(response.type_url)
        made = {}
        for each in response.resources:
            message = message_class(kind.removeprefix("type.googleapis.com/")).FromString(each.value)
            name = message.cluster_name if kind is XdsKind.ENDPOINTS else message.name
            made[name] = response.version_info, each.value
        return made

    async def _ask(self, stream: Any, kind: XdsKind, names: set[str]) -> None:
        """A first request of a type, or of further names."""
        new, first = names - self._asked.get(kind, set()), kind not in self._asked
        self._asked[kind] = names
        node = {"id": self.node}
        if self.delta:
            message = discovery("DeltaDiscoveryRequest")(
                type_url=kind, node=node, resource_names_subscribe=sorted(new),
                initial_resource_versions=self.has[kind] if first else {},
            )  # fmt: skip
        else:
            message = discovery("DiscoveryRequest")(type_url=kind, node=node, resource_names=sorted(names))
        await stream.write(message)


class Clients:
    """Runs clients in a thread. A context manager, which ends them."""

    def __enter__(self) -> Clients:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._tasks: dict[int, Any] = {}
        return self

    def start(self, client: XdsClient) -> XdsClient:
        self._tasks[id(client)] = asyncio.run_coroutine_threadsafe(_quietly(client.run()), self._loop)
        return client

    def end(self, client: XdsClient) -> None:
        """In the middle of whatever it is doing."""
        self._tasks.pop(id(client)).cancel()

    def __exit__(self, *exc: object) -> None:
        async def finish() -> None:
            mine = asyncio.current_task()
            tasks = [task for task in asyncio.all_tasks() if task is not mine]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result(_WAIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        return


def wait_for(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not done():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.005)


@contextmanager
def control_plane(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process of this directory, ready; killed at the end if it still runs."""
    argv = [sys.executable, "-m", "meshwise.mesh.delivery.controller", str(directory)]
    (directory / COMMAND_SOCKET).unlink(missing_ok=True)
    process = subprocess.Popen(argv)
    try:
        wait_for(lambda: (directory / COMMAND_SOCKET).exists() or process.poll() is not None, "its socket")
        assert process.poll() is None, "the control plane has ended"
        yield process
    finally:
        process.kill()
        process.wait()
