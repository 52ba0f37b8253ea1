"""The control plane of one set of proxies: `python -m meshwise.mesh.linkerd.controller DIRECTORY`.

One process answers all proxies of a placement on a Unix socket, which network namespaces do not separate; a
`relay` in each pod leads there from the loopback port that the proxy calls in plaintext. (The other way, a
controller per pod, costs 60 MB and half a second of CPU each. TLS to a Python server is out: gRPC's core
insists on ALPN, which the proxy's control client does not offer.)

    Identity/Certify                     linkerd2: pkg/identity/service.go
    InboundServerPolicies/WatchPort      linkerd2: policy-controller/grpc/src/inbound.rs
    OutboundPolicies/Watch               linkerd2: policy-controller/grpc/src/outbound.rs
    Destination/Get, GetProfile          linkerd2: controller/api/destination/server.go

Rules of this file:
- What is answered is in one immutable snapshot, made elsewhere; here it is only looked up.
- A new snapshot (a file, then the command `reload`) replaces the former one whole, and every open stream
  gets its new answer at once, or nothing when its answer is the same. `reload` is acknowledged when the
  last stream has been sent it.
- Nothing is kept that is not in the directory, so the process can be killed and started again.
- Idle it does nothing: no timers, no polling.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from meshwise.mesh.linkerd import authority, wire
from meshwise.mesh.linkerd.names import API_SOCKET, COMMAND_SOCKET, SNAPSHOT_FILE
from meshwise.mesh.linkerd.proto import (
    destination_pb2,
    identity_pb2,
    inbound_pb2,
    outbound_pb2,
    snapshot_pb2,
)

log = logging.getLogger(__name__)

STOP_GRACE_S = 0.1
_OPTIONS = (("grpc.so_reuseport", 0),)


class Index:
    """A snapshot, ready to be asked."""

    def __init__(self, snapshot: Any) -> None:
        self.version: int = snapshot.version
        self.fingerprint: str = snapshot.fingerprint
        self._workloads = {each.token: each for each in snapshot.workloads}
        self._by_address = {wire.address_text(each.address): each for each in snapshot.services}
        self._by_authority = {each.authority: each for each in snapshot.services}

    def server(self, token: str, port: int) -> Any | None:
        workload = self._workloads.get(token)
        if workload is None:
            return None
        return workload.ports.get(port, workload.other_ports)

    def service(self, name: str) -> Any | None:
        """By `IP:port` or `name:port`."""
        return self._by_address.get(name) or self._by_authority.get(name)

    def endpoints(self, name: str) -> Any:
        found = self._by_authority.get(name)
        if found is None:
            return destination_pb2.Update(no_endpoints=destination_pb2.NoEndpoints(exists=False))
        return destination_pb2.Update(add=found.endpoints)


class CertificateIssuer:
    """Who may have which certificate: `identities.json` maps a name to the digest of its token."""

    def __init__(self, directory: Path) -> None:
        self._issuer = authority.load_issuer(directory)
        settings = json.loads((directory / "identities.json").read_text())
        self._owners: dict[str, str] = {digest: name for name, digest in settings["tokens"].items()}
        self._leaf_life = dt.timedelta(seconds=settings["leaf_life_s"])

    def certify(self, request: Any, now: dt.datetime) -> Any:
        """`identity_pb2.CertifyResponse`. Raises authority.CertificateRefused."""
        if not request.token:
            raise authority.CertificateRefused("INVALID_ARGUMENT", "the token is missing")
        owner = self._owners.get(authority.token_digest(request.token))
        if owner is None:
            raise authority.CertificateRefused("FAILED_PRECONDITION", "the token is not known")
        if owner != request.identity:
            raise authority.CertificateRefused(
                "FAILED_PRECONDITION", f"the token is not that of {request.identity}"
            )
        leaf = self._issuer.certify(
            request.identity, request.certificate_signing_request, now, self._leaf_life
        )
        response = identity_pb2.CertifyResponse(
            leaf_certificate=leaf.certificate, intermediate_certificates=leaf.chain
        )
        response.valid_until.FromDatetime(leaf.valid_until)
        return response


class WatchStream:
    """What one open stream has been sent."""

    def __init__(self) -> None:
        self.sent_version = -1


class Controller(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """The services, over one index that is replaced whole."""

    def __init__(self, index: Index, identities: CertificateIssuer) -> None:
        self._index = index
        self._identities = identities
        self._streams: set[WatchStream] = set()
        self._changed = asyncio.Event()
        self._sent = asyncio.Condition()
        self.unknown_calls: set[str] = set()
        """Methods that a proxy called and that are not known here: its API is another one."""
        self._handlers = {
            "/io.linkerd.proxy.identity.Identity/Certify": grpc.unary_unary_rpc_method_handler(
                self._certify, identity_pb2.CertifyRequest.FromString, _serialize
            ),
            "/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort": _stream(
                self._watch_port, inbound_pb2.PortSpec
            ),
            "/io.linkerd.proxy.outbound.OutboundPolicies/Watch": _stream(
                self._watch_outbound, outbound_pb2.TrafficSpec
            ),
            "/io.linkerd.proxy.destination.Destination/Get": _stream(
                self._get, destination_pb2.GetDestination
            ),
            "/io.linkerd.proxy.destination.Destination/GetProfile": _stream(
                self._get_profile, destination_pb2.GetDestination
            ),
        }

    def service(self, handler_call_details: Any) -> Any:
        """gRPC asks here for the handler of a method; None becomes UNIMPLEMENTED."""
        method = handler_call_details.method
        if method not in self._handlers:
            log.warning("a proxy called %s, which this control plane does not know", method)
            self.unknown_calls.add(method)
        return self._handlers.get(method)

    async def replace(self, index: Index) -> None:
        """Returns when every open stream has been sent its answer from `index`."""
        self._index = index
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        async with self._sent:
            await self._sent.wait_for(
                lambda: all(stream.sent_version >= index.version for stream in self._streams)
            )

    def status(self) -> dict[str, object]:
        return {
            "version": self._index.version,
            "fingerprint": self._index.fingerprint,
            "streams": len(self._streams),
            "behind": sum(stream.sent_version < self._index.version for stream in self._streams),
            "unknown_calls": sorted(self.unknown_calls),
        }

    # --- the calls -------------------------------------------------------------------------------

    async def _certify(self, request: Any, context: Any) -> Any:
        try:
            response = self._identities.certify(request, dt.datetime.now(dt.UTC))
        except authority.CertificateRefused as refusal:
            log.warning("no certificate for %s: %s", request.identity, refusal)
            await context.abort(grpc.StatusCode[refusal.status], str(refusal))
            raise AssertionError("abort raises") from refusal
        log.info("certified %s", request.identity)
        return response

    async def _watch_port(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if not 0 < request.port < 65536:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a port: {request.port}")
        async for answer in self._follow(
            context,
            lambda index: index.server(request.workload, request.port),
            f"no workload {request.workload}",
        ):
            yield answer

    async def _watch_outbound(self, request: Any, context: Any) -> AsyncIterator[Any]:
        target = request.WhichOneof("target")
        if target is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no target")
        name = request.authority if target == "authority" else wire.address_text(request.addr)

        def pick(index: Index) -> Any | None:
            found = index.service(name)
            return found and found.policy

        # NOT_FOUND makes the proxy forward to the address itself, without a policy, as on a cluster.
        async for answer in self._follow(context, pick, f"no service at {name}"):
            yield answer

    async def _get(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in self._follow(context, lambda index: index.endpoints(request.path), ""):
            yield answer

    async def _get_profile(self, request: Any, context: Any) -> AsyncIterator[Any]:
        def pick(index: Index) -> Any:
            found = index.service(request.path)
            return found.profile if found else destination_pb2.DestinationProfile()

        async for answer in self._follow(context, pick, ""):
            yield answer

    async def _follow(
        self, context: Any, pick: Callable[[Index], Any | None], missing: str
    ) -> AsyncIterator[Any]:
        """The answer of this index and of each that follows, when it differs. Ends with the stream."""
        stream = WatchStream()
        self._streams.add(stream)
        last: Any = None
        try:
            while True:
                index, changed = self._index, self._changed
                answer = pick(index)
                if answer is None:
                    await context.abort(grpc.StatusCode.NOT_FOUND, missing)
                if answer != last:
                    yield answer  # gRPC comes back for the next one when this one has been written
                    last = answer
                async with self._sent:
                    stream.sent_version = index.version
                    self._sent.notify_all()
                await changed.wait()
        finally:
            self._streams.discard(stream)
            with contextlib.suppress(RuntimeError):  # a closing loop takes no more tasks
                _spawn(self._tell_waiters())

    async def _tell_waiters(self) -> None:
        async with self._sent:
            self._sent.notify_all()


_tasks: set[asyncio.Task[None]] = set()
"""Strong references: the event loop itself keeps only weak ones."""


def _spawn(work: Any) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _stream(call: Callable[[Any, Any], AsyncIterator[Any]], request: Any) -> Any:
    return grpc.unary_stream_rpc_method_handler(call, request.FromString, _serialize)


# --- the process -----------------------------------------------------------------------------------


def read_index(directory: Path) -> Index:
    return Index(snapshot_pb2.Snapshot.FromString((directory / SNAPSHOT_FILE).read_bytes()))


async def command(controller: Controller, directory: Path, line: bytes) -> dict[str, object]:
    """`reload` or `status`; the answer is always the status."""
    match line.strip():
        case b"reload":
            await controller.replace(read_index(directory))
        case b"status":
            pass
        case unknown:
            return {"error": f"unknown command {unknown!r}"}
    return controller.status()


async def serve(directory: Path, stopped: Awaitable[object]) -> None:
    """Serve until `stopped`."""
    controller = Controller(read_index(directory), CertificateIssuer(directory))
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((controller,))
    for name in (API_SOCKET, COMMAND_SOCKET):  # the socket file that a killed controller left
        (directory / name).unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{directory / API_SOCKET}")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            async for line in reader:
                writer.write(json.dumps(await command(controller, directory, line)).encode() + b"\n")
                await writer.drain()

    await server.start()
    commands = await asyncio.start_unix_server(answer, directory / COMMAND_SOCKET)
    log.info("serving snapshot %d", controller.status()["version"])
    try:
        await stopped
    finally:
        commands.close()
        await server.stop(STOP_GRACE_S)


async def _main(directory: Path) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await serve(directory, stopped.wait())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_main(Path(sys.argv[1])))
