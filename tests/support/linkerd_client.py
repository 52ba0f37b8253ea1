"""Plays linkerd2-proxy against the control plane: every call that a proxy makes, on the level of gRPC.

Calls, order and metadata as the real proxy's were recorded (`tests/golden/linkerd/exchange.jsonl`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from meshwise.mesh.files import private_directory, write_private
from meshwise.mesh.linkerd import authority, controller, wire
from meshwise.mesh.linkerd.authority import LinkerdAuthority
from meshwise.mesh.linkerd.names import API_SOCKET, COMMAND_SOCKET, SNAPSHOT_FILE
from meshwise.mesh.linkerd.proto import destination_pb2, identity_pb2, inbound_pb2, outbound_pb2

PATIENCE_S = 10.0


class ProxyClient:
    """One proxy's connection to the control plane."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))

    async def certify(self, identity: str, token: bytes, csr: bytes) -> Any:
        call = self.channel.unary_unary(
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
        call = self.channel.unary_stream(
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


async def tell(directory: Path, word: str) -> Any:
    """A command, as the runner gives it."""
    reader, writer = await asyncio.open_unix_connection(directory / COMMAND_SOCKET)
    writer.write(word.encode() + b"\n")
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
    digests = {name: authority.token_digest(token) for name, token in tokens.items()}
    write_private(directory / "identities.json", json.dumps({"tokens": digests, "leaf_life_s": leaf_life_s}))
    write_private(directory / SNAPSHOT_FILE, snapshot.SerializeToString())


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[ProxyClient]:
    """The control plane of this directory, in this event loop, and a proxy's connection to it."""
    stop = asyncio.Event()
    task = asyncio.create_task(controller.serve(directory, stop.wait()))
    client = ProxyClient(f"unix:{directory / API_SOCKET}")
    try:
        await asyncio.wait_for(client.channel.channel_ready(), PATIENCE_S)
        while not (directory / COMMAND_SOCKET).exists():
            await asyncio.sleep(0.001)
        yield client
    finally:
        await client.channel.close()
        stop.set()
        await task


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
