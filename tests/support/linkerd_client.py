"""Plays linkerd2-proxy against the control plane: every call that a proxy makes, on the level of gRPC.

Calls, order and metadata as the real proxy's were recorded (`tests/golden/linkerd/exchange.jsonl`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from meshwise.mesh.files import private_directory, write_private
from meshwise.mesh.linkerd import authority, controller, wire
from meshwise.mesh.linkerd.authority import LinkerdAuthority
from meshwise.mesh.linkerd.names import (
    API_SOCKETS,
    COMMAND_SOCKET,
    IDENTITIES_FILE,
    SNAPSHOT_FILE,
    ControlService,
)
from meshwise.mesh.linkerd.proto import destination_pb2, identity_pb2, inbound_pb2, outbound_pb2

PATIENCE_S = 10.0


class ProxyClient:
    """One proxy's connections to the control plane, one per service as a proxy has them."""

    def __init__(self, addresses: Mapping[ControlService, str]) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        self.channels = {
            service: grpc.aio.insecure_channel(address, options=options)
            for service, address in addresses.items()
        }

    async def close(self) -> None:
        for channel in self.channels.values():
            await channel.close()

    async def certify(self, identity: str, token: bytes, csr: bytes) -> Any:
        call = self.channels[ControlService.IDENTITY].unary_unary(
            "/io.linkerd.proxy.identity.Identity/Certify",
            request_serializer=_serialize,
            response_deserializer=identity_pb2.CertifyResponse.FromString,
        )
        request = identity_pb2.CertifyRequest(identity=identity, token=token, certificate_signing_request=csr)
        return await call(request, timeout=PATIENCE_S)

    def watch_port(self, workload: str, port: int) -> Any:
        request = inbound_pb2.PortSpec(workload=workload, port=port)
        return self.stream("inbound.InboundServerPolicies/WatchPort", request, inbound_pb2.Server)

    def watch_outbound(self, ip: str, port: int) -> Any:
        request = outbound_pb2.TrafficSpec(source_workload="w", addr=wire.tcp_address(ip, port))
        return self.stream("outbound.OutboundPolicies/Watch", request, outbound_pb2.OutboundPolicy)

    def get(self, path: str) -> Any:
        request = destination_pb2.GetDestination(path=path)
        return self.stream("destination.Destination/Get", request, destination_pb2.Update)

    def get_profile(self, path: str) -> Any:
        request = destination_pb2.GetDestination(path=path)
        return self.stream("destination.Destination/GetProfile", request, destination_pb2.DestinationProfile)

    def stream(self, method: str, request: Any, answer: Any) -> Any:
        service = ControlService.DESTINATION if method.startswith("destination") else ControlService.POLICY
        call = self.channels[service].unary_stream(
            f"/io.linkerd.proxy.{method}",
            request_serializer=_serialize,
            response_deserializer=answer.FromString,
        )
        return call(request)


async def following(stream: Any) -> Any:
    """The next answer of an open stream."""
    answer = await asyncio.wait_for(stream.read(), PATIENCE_S)
    assert answer is not grpc.aio.EOF, "the stream has ended"
    return answer


async def refusal(stream: Any) -> tuple[str, str]:
    """Code and text of a stream or call that is refused."""
    try:
        await (stream if asyncio.iscoroutine(stream) else asyncio.wait_for(stream.read(), PATIENCE_S))
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    raise AssertionError("it was not refused")


async def tell(directory: Path, word: str, **more: object) -> Any:
    """A command, as the runner gives it."""
    reader, writer = await asyncio.open_unix_connection(directory / COMMAND_SOCKET)
    writer.write(json.dumps({"do": word, **more}).encode() + b"\n")
    line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
    writer.close()
    return json.loads(line)


def lay_out(
    directory: Path,
    snapshot: Any,
    tokens: dict[str, bytes],
    own: LinkerdAuthority,
    leaf_life_s: float = 86400,
) -> None:
    """What `LinkerdMesh.prepare` leaves for the controller."""
    private_directory(directory)
    authority.store_issuer(own.issuer, directory)
    owners = {authority.token_digest(token): (pod_of(name), name) for name, token in tokens.items()}
    settings = {"tokens": owners, "leaf_life_s": leaf_life_s, "allowance_s": 20}
    write_private(directory / IDENTITIES_FILE, json.dumps(settings))
    write_private(directory / SNAPSHOT_FILE, snapshot.SerializeToString())


def pod_of(identity: str) -> str:
    """In a placement of tests every workload has a service account of its name."""
    return identity.partition(".")[0]


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[ProxyClient]:
    """The control plane of this directory, in this event loop, and a proxy's connection to it."""
    stop = asyncio.Event()
    task = asyncio.create_task(controller.serve(directory, stop.wait()))
    client = ProxyClient({service: f"unix:{directory / name}" for service, name in API_SOCKETS.items()})
    try:
        for channel in client.channels.values():
            await asyncio.wait_for(channel.channel_ready(), PATIENCE_S)
        while not (directory / COMMAND_SOCKET).exists():
            await asyncio.sleep(0.001)
        yield client
    finally:
        await client.close()
        stop.set()
        await task


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
