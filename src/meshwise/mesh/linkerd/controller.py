"""The control plane of one set of proxies: `python -m meshwise.mesh.linkerd.controller DIRECTORY`.

One process answers all proxies of a placement on Unix sockets, which network namespaces do not separate; a
`relay` in each pod leads there from the loopback ports that the proxy calls in plaintext. (The other way, a
controller per pod, costs 60 MB and half a second of CPU each. TLS to a Python server is out: gRPC's core
insists on ALPN, which the proxy's control client does not offer.) Identity, destination and policy have a
socket each, so that each can fail by itself (`failing`).

    Identity/Certify                     linkerd2: pkg/identity/service.go (`issuing`)
    InboundServerPolicies/WatchPort      linkerd2: policy-controller/grpc/src/inbound.rs
    OutboundPolicies/Watch               linkerd2: policy-controller/grpc/src/outbound.rs
    Destination/Get, GetProfile          linkerd2: controller/api/destination/server.go

Rules of this file:
- What is answered is in one immutable snapshot, made elsewhere; here it is only looked up.
- A new snapshot (a file, then the command `reload`) replaces the former one whole, and every open stream
  gets its new answer at once, or nothing when its answer is the same. `reload` is acknowledged when the
  last stream has been sent it. A proxy acknowledges nothing: what is known is when gRPC had written it.
- Nothing is kept that is not in the directory, so the process can be killed and started again.
- Idle it does nothing: it polls nothing, and a call that is held waits for its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from meshwise.mesh.commands import answering, until_told
from meshwise.mesh.files import write_private
from meshwise.mesh.linkerd import authority, wire
from meshwise.mesh.linkerd.failing import FaultMode, ServiceFaults, Signal
from meshwise.mesh.linkerd.issuing import IdentityService
from meshwise.mesh.linkerd.names import COMMAND_SOCKET, FAULTS_FILE, SNAPSHOT_FILE, ControlService
from meshwise.mesh.linkerd.proto import (
    destination_pb2,
    identity_pb2,
    inbound_pb2,
    outbound_pb2,
    snapshot_pb2,
)
from meshwise.mesh.linkerd.servers import Servers

log = logging.getLogger(__name__)


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


@dataclass(eq=False)
class WatchStream:
    """One open stream and what it has been sent. `about`: the port, address or name that was asked for."""

    service: ControlService
    pod: str
    about: str
    sent_version: int = -1
    sent_ns: int = 0
    """When the last answer had been written (CLOCK_MONOTONIC)."""
    written_version: int = -1
    """Of the last answer that differed from the one before."""


class _Refused(Exception):
    """A call that is ended with a gRPC status."""

    def __init__(self, status: str, words: str) -> None:
        super().__init__(words)
        self.status = status


class Controller(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """The services, over one index that is replaced whole."""

    def __init__(self, index: Index, directory: Path) -> None:
        self._index = index
        self._changed = Signal()
        self.failing = ServiceFaults(self._changed)
        self.identity = IdentityService(directory, self.failing)
        self._streams: set[WatchStream] = set()
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

    async def replace(self, index: Index, pods: Collection[str] = (), within_s: float | None = None) -> None:
        """Returns when every open stream has been sent its answer from `index`, and each of these pods has a
        stream about its policy; or when the time is up, and at once while policies are not handed out (`sent`
        says who has what)."""
        self._index = index
        self._changed.give()

        def everyone() -> bool:
            if not self.failing.answers(ControlService.POLICY):
                return True
            there = {each.pod for each in self._streams if each.service is ControlService.POLICY}
            return there.issuperset(pods) and not self._behind()

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._sent:
                await self._sent.wait_for(everyone)

    def sent(self) -> list[dict[str, object]]:
        """Every open stream: what it is about, and when an answer of this version was written, if it differed
        from the one before."""
        version = self._index.version
        return [
            {
                "pod": each.pod,
                "service": each.service,
                "about": each.about,
                "current": each.sent_version >= version,
                "sent_ns": each.sent_ns if each.written_version == version else None,
            }
            for each in self._streams
        ]

    def _behind(self) -> int:
        return sum(stream.sent_version < self._index.version for stream in self._streams)

    def status(self) -> dict[str, object]:
        return {
            "version": self._index.version,
            "fingerprint": self._index.fingerprint,
            "streams": len(self._streams),
            "behind": self._behind(),
            "unknown_calls": sorted(self.unknown_calls),
        }

    # --- the calls -------------------------------------------------------------------------------

    async def _certify(self, request: Any, context: Any) -> Any:
        try:
            response = await self.identity.certify(request)
        except authority.CertificateRefused as refusal:
            log.warning("no certificate for %s: %s", request.identity, refusal)
            await context.abort(grpc.StatusCode[refusal.status], str(refusal))
            raise AssertionError("abort raises") from refusal
        log.info("certified %s", request.identity)
        return response

    async def _watch_port(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if not 0 < request.port < 65536:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a port: {request.port}")
        stream = WatchStream(ControlService.POLICY, _pod_of(request.workload), f"inbound {request.port}")
        async for answer in self._follow(
            context,
            stream,
            lambda index: index.server(request.workload, request.port),
            f"no workload {request.workload}",
        ):
            yield answer

    async def _watch_outbound(self, request: Any, context: Any) -> AsyncIterator[Any]:
        target = request.WhichOneof("target")
        if target is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no target")
        name = request.authority if target == "authority" else wire.address_text(request.addr)
        stream = WatchStream(ControlService.POLICY, _pod_of(request.source_workload), f"outbound {name}")

        def pick(index: Index) -> Any | None:
            found = index.service(name)
            return found and found.policy

        # NOT_FOUND makes the proxy forward to the address itself, without a policy, as on a cluster.
        async for answer in self._follow(context, stream, pick, f"no service at {name}"):
            yield answer

    async def _get(self, request: Any, context: Any) -> AsyncIterator[Any]:
        stream = _destination(request, "endpoints")
        async for answer in self._follow(context, stream, lambda index: index.endpoints(request.path), ""):
            yield answer

    async def _get_profile(self, request: Any, context: Any) -> AsyncIterator[Any]:
        def pick(index: Index) -> Any:
            found = index.service(request.path)
            return found.profile if found else destination_pb2.DestinationProfile()

        async for answer in self._follow(context, _destination(request, "profile"), pick, ""):
            yield answer

    async def _follow(
        self, context: Any, stream: WatchStream, pick: Callable[[Index], Any | None], missing: str
    ) -> AsyncIterator[Any]:
        """The answer of this index and of each that follows, when it differs. Ends with the stream."""
        self._streams.add(stream)
        last: Any = None
        try:
            while True:
                await self.failing.pass_by(stream.service, _Refused)
                index, changed = self._index, self._changed.next
                answer = pick(index)
                if answer is None:
                    raise _Refused("NOT_FOUND", missing)
                if answer != last:
                    yield answer  # gRPC comes back for the next one when this one has been written
                    last, stream.sent_ns, stream.written_version = answer, time.monotonic_ns(), index.version
                async with self._sent:
                    stream.sent_version = index.version
                    self._sent.notify_all()
                await changed.wait()
        except _Refused as refusal:
            await context.abort(grpc.StatusCode[refusal.status], str(refusal))
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


def _destination(request: Any, what: str) -> WatchStream:
    pod = _pod_of(request.context_token)
    return WatchStream(ControlService.DESTINATION, pod, f"{what} {request.path}")


def _pod_of(token: str) -> str:
    """The pod that a proxy says it is in (`names.workload_token`); the token itself when it names none."""
    try:
        return str(json.loads(token)["pod"])
    except (ValueError, KeyError, TypeError):
        return token


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _stream(call: Callable[[Any, Any], AsyncIterator[Any]], request: Any) -> Any:
    return grpc.unary_stream_rpc_method_handler(call, request.FromString, _serialize)


# --- the process -----------------------------------------------------------------------------------


def read_index(directory: Path) -> Index:
    return Index(snapshot_pb2.Snapshot.FromString((directory / SNAPSHOT_FILE).read_bytes()))


async def command(
    controller: Controller, servers: Servers, directory: Path, line: bytes
) -> Mapping[str, object]:
    """`line`: JSON, the word as `do` and what belongs to it (`mesh.linkerd.command` has them all). Answers
    with the status, and what the word gives."""
    order: dict[str, Any] = json.loads(line)
    more: dict[str, object] = {}
    match order["do"]:
        case "reload":
            more["accepted_ns"] = time.monotonic_ns()
            await controller.replace(read_index(directory), order.get("pods", ()), order.get("within_s"))
            more["sent"] = controller.sent() if "pods" in order else []
        case "status":
            pass
        case "issuer":
            controller.identity.issuer.take_up_issuer()
        case "skew":
            controller.identity.issuer.skew = dt.timedelta(seconds=order["by_s"])
            _write_faults(controller, directory)
        case "renew":
            done, why = await controller.identity.renew(order["pods"], order["within_s"])
            more |= {"renewed": [asdict(each) for each in done], "why": why}
        case "fail":
            for name in order["services"]:
                await servers.begin(ControlService(name), FaultMode(order["how"]))
            _write_faults(controller, directory)
        case "mend":
            for name in order["services"]:
                await servers.mend(ControlService(name))
            _write_faults(controller, directory)
        case unknown:
            return {"error": f"unknown command {unknown!r}"}
    return {**controller.status(), **more}


def _write_faults(controller: Controller, directory: Path) -> None:
    """For a successor, in whose time they go on."""
    skew_s = controller.identity.issuer.skew.total_seconds()
    write_private(directory / FAULTS_FILE, json.dumps({"modes": controller.failing.modes, "skew_s": skew_s}))


async def _go_on_failing(controller: Controller, servers: Servers, directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        faults = json.loads((directory / FAULTS_FILE).read_text())
        controller.identity.issuer.skew = dt.timedelta(seconds=faults["skew_s"])
        for name, how in faults["modes"].items():
            await servers.begin(ControlService(name), FaultMode(how))


async def serve(directory: Path, stopped: Awaitable[object]) -> None:
    """Serve until `stopped`."""
    controller = Controller(read_index(directory), directory)
    servers = Servers(controller, controller.failing, directory)

    async def answer(line: bytes) -> Mapping[str, object]:
        return await command(controller, servers, directory, line)

    await servers.start()
    try:
        await _go_on_failing(controller, servers, directory)
        async with answering(directory / COMMAND_SOCKET, answer):
            log.info("serving snapshot %d", controller.status()["version"])
            await stopped
    finally:
        await servers.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(until_told(partial(serve, Path(sys.argv[1]))))
