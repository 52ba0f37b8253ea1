"""The discovery services over gRPC: streams of proxies, what each was sent, and what it answered and when.

    AggregatedDiscoveryService   DeltaAggregatedResources, StreamAggregatedResources   (istiod)
    SecretDiscoveryService       DeltaSecrets, StreamSecrets                           (pilot-agent)

Times are CLOCK_MONOTONIC, in nanoseconds. An answer's time is when this process read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from meshwise.mesh.delivery import wire
from meshwise.mesh.delivery.resources import (
    EMPTY,
    KindResources,
    ProxyResources,
    Snapshot,
    XdsKind,
)
from meshwise.mesh.delivery.subscriptions import (
    DeltaExchange,
    Exchange,
    ProxyAnswer,
    Response,
    WorldExchange,
)

log = logging.getLogger(__name__)

_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
_SDS = "/envoy.service.secret.v3.SecretDiscoveryService"
_REMEMBERED = 4096
"""Answers of each proxy that are kept: some hundred pushes."""


@dataclass(frozen=True)
class AnsweredResponse:
    """One response and what the proxy made of it."""

    kind: XdsKind
    version: str
    number: int
    """Of the snapshot that it was made from."""
    sent_ns: int
    answered_ns: int
    error: str | None
    """The proxy's own words; None: it was accepted."""


class Stream:
    """One open stream of one proxy."""

    def __init__(self, exchange: Exchange, *, secrets: bool) -> None:
        self.exchange, self.secrets = exchange, secrets
        self.reached = 0
        """The number of the last snapshot of which all that is due was sent."""
        self.ended = False
        self._wake = asyncio.Event()
        self._sent: dict[str, tuple[int, int]] = {}
        """By nonce: snapshot's number, time."""

    def wake(self) -> None:
        self._wake.set()

    async def woken(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    def note(self, response: Response, number: int) -> None:
        self._sent[response.nonce] = number, time.monotonic_ns()

    def answered(self, answer: ProxyAnswer, now_ns: int) -> AnsweredResponse:
        response = answer.response
        number, sent_ns = self._sent.pop(response.nonce)
        return AnsweredResponse(response.kind, response.version, number, sent_ns, now_ns, answer.error)

    def is_done(self, number: int) -> bool:
        """Whether everything of that snapshot was sent and answered."""
        return self.reached >= number and self.exchange.at_rest


@dataclass
class Proxy:
    """What is known of one proxy."""

    streams: set[Stream] = field(default_factory=set)
    answers: deque[AnsweredResponse] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    @property
    def connected(self) -> bool:
        return any(not stream.secrets for stream in self.streams)

    def is_done(self, number: int) -> bool:
        return self.connected and all(stream.is_done(number) for stream in self.streams)

    @property
    def refused(self) -> dict[str, str]:
        """The proxy's words by type, where what it has in force is not what it was sent last."""
        return {
            kind.short: words for stream in self.streams for kind, words in stream.exchange.refused.items()
        }


class Discovery:
    """All proxies of one control plane, over one snapshot that is replaced whole."""

    def __init__(self) -> None:
        self._snapshot = EMPTY
        self._resources: dict[str, ProxyResources] = {}
        self.proxies: dict[str, Proxy] = {}
        self.accepted_ns: dict[int, int] = {}
        """When each snapshot was accepted, by its number."""
        self.unknown: set[str] = set()
        """Nodes and types that were asked for and are not known."""
        self.out_of_date = 0
        """Answers to responses that were not the last any more, of streams that have ended."""
        self._changed = asyncio.Condition()

    @property
    def number(self) -> int:
        return self._snapshot.number

    def known(self, node: str) -> bool:
        return node in self._resources

    def replace(self, snapshot: Snapshot, accepted_ns: int) -> None:
        """Wakes every stream. Raises OSError for a secret that cannot be read; the former one stays then."""
        resources: dict[str, ProxyResources] = {}
        for node, found in snapshot.resources().items():
            files = snapshot.proxies[node].secrets
            secrets = {name: wire.secret(name, each) for name, each in files.items()}
            resources[node] = {**found, XdsKind.SECRETS: KindResources("", secrets)}
        self._snapshot, self._resources = snapshot, resources
        self.accepted_ns = {
            **dict(list(self.accepted_ns.items())[-_REMEMBERED:]),
            snapshot.number: accepted_ns,
        }
        for proxy in self.proxies.values():
            for stream in proxy.streams:
                stream.wake()

    async def wait_done(self, nodes: Iterable[str], number: int, within_s: float) -> bool:
        """Whether these proxies have answered everything of that snapshot before the time is over."""
        wanted = list(nodes)

        def done() -> bool:
            return all(node in self.proxies and self.proxies[node].is_done(number) for node in wanted)

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(done), within_s)
            except TimeoutError:
                return False
        return True

    # --- one stream --------------------------------------------------------------------------------

    async def follow(
        self,
        stream: Stream,
        requests: AsyncIterator[Any],
        read: Callable[[Any], Any],
        write: Callable[[Response], bytes],
        context: Any,
        node: str | None = None,
    ) -> AsyncIterator[bytes]:
        """Everything that the proxy is due, until its stream ends. `node`: who it is, where that is known;
        else its first request says so. `read`: a message to a request, None for one of an unknown type."""
        try:
            first = await anext(requests)
        except StopAsyncIteration:
            return
        node = node or first.node.id
        if not self.known(node):
            self.unknown.add(node)
            log.warning("a proxy calls itself %r, which is not known here", node)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no proxy {node!r} is known here")
        proxy = self.proxies.setdefault(node, Proxy())
        proxy.streams.add(stream)
        self._receive(node, proxy, stream, read(first), first.type_url)
        reader = asyncio.create_task(self._read(node, proxy, stream, requests, read))
        try:
            while not stream.ended:
                number = self.number
                while response := stream.exchange.next_response(self._resources[node]):
                    stream.note(response, self.number)
                    yield write(response)
                if number == self.number:
                    stream.reached = number
                    await self._tell()
                    await stream.woken()
        finally:
            reader.cancel()
            proxy.streams.discard(stream)
            self.out_of_date += stream.exchange.out_of_date
            with contextlib.suppress(RuntimeError):  # a closing loop takes no more tasks
                _spawn(self._tell())

    async def _read(
        self,
        node: str,
        proxy: Proxy,
        stream: Stream,
        requests: AsyncIterator[Any],
        read: Callable[[Any], Any],
    ) -> None:
        try:
            async for message in requests:
                self._receive(node, proxy, stream, read(message), message.type_url)
                await self._tell()
        except grpc.RpcError as error:
            log.info("the stream of %s ended: %s", node, error)
        finally:
            stream.ended = True
            stream.wake()

    def _receive(self, node: str, proxy: Proxy, stream: Stream, request: Any, type_url: str) -> None:
        if request is None:
            if type_url not in self.unknown:
                log.warning("%s asks for %s, which is not served here", node, type_url)
            self.unknown.add(type_url)
            return
        if answer := stream.exchange.receive(request):
            answered = stream.answered(answer, time.monotonic_ns())
            proxy.answers.append(answered)
            if answered.error is not None:
                log.warning("%s refuses %s: %s", node, answered.kind.short, answered.error)
        stream.wake()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


_tasks: set[asyncio.Task[None]] = set()
"""Strong references: the event loop itself keeps only weak ones."""


def _spawn(work: Any) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class DiscoveryService(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """The methods on one socket."""

    def __init__(self, discovery: Discovery, node: str | None = None) -> None:
        """`node`: whose agent this is, which serves secrets to nobody else; None: configuration, to all."""
        self._discovery, self._node = discovery, node
        service, delta, world = (
            (_ADS, "DeltaAggregatedResources", "StreamAggregatedResources")
            if node is None
            else (_SDS, "DeltaSecrets", "StreamSecrets")
        )
        self._handlers: Mapping[str, Any] = {
            f"{service}/{delta}": grpc.stream_stream_rpc_method_handler(self._delta, wire.parse_delta, bytes),
            f"{service}/{world}": grpc.stream_stream_rpc_method_handler(self._world, wire.parse_world, bytes),
        }

    def service(self, handler_call_details: Any) -> Any:
        """gRPC asks here for the handler of a method; None becomes UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)

    async def _delta(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        stream = Stream(DeltaExchange(), secrets=self._node is not None)
        read, write = self._read(wire.delta_request), wire.delta_response
        async for message in self._discovery.follow(
            stream, aiter(requests), read, write, context, self._node
        ):
            yield message

    async def _world(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        stream = Stream(WorldExchange(), secrets=self._node is not None)
        read, write = self._read(wire.world_request), wire.world_response
        async for message in self._discovery.follow(
            stream, aiter(requests), read, write, context, self._node
        ):
            yield message

    def _read(self, read: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Secrets are served by an agent only, and nothing else is."""

        def served(message: Any) -> Any:
            request = read(message)
            agents = self._node is not None
            return request if request and (request.kind is XdsKind.SECRETS) == agents else None

        return served
