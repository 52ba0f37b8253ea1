"""One service calls another, over HTTP/1.1, HTTP/2 (prior knowledge) or gRPC; the same answer comes of all
three.

Rules of this file:
- A call is answered (`Answer`) or its outcome is unknown (`Unreachable`): connection refused or lost,
  deadline over, or the other side says that it could not (HTTP 503, gRPC UNAVAILABLE). Nothing is retried
  here: who may repeat a call knows its idempotency key.
- Bodies are JSON objects. In gRPC they are the message, with a JSON codec, which gRPC leaves to the
  application; refusals travel as gRPC status codes, with the body in the status message.
- A call goes on in the protocol, and with the caller's token and tenant, of the request that caused it
  (`Origin`), as applications behind a mesh pass them on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
import grpc
import httpx
import yarl

from meshwise.service.bank.spec import BankService
from meshwise.service.behaviour import REQUEST_ID, passed_on
from meshwise.study.model import Protocol

Body = dict[str, Any]

OK, BAD, FORBIDDEN, MISSING, CONFLICT, REFUSED, UNAVAILABLE = 200, 400, 403, 404, 409, 422, 503
TO_GRPC: Mapping[int, grpc.StatusCode] = {
    BAD: grpc.StatusCode.INVALID_ARGUMENT,
    FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,  # a mesh's policy says so, never the bank
    MISSING: grpc.StatusCode.NOT_FOUND,
    CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
_FROM_GRPC = {code: status for status, code in TO_GRPC.items()}
_IDLE_S = 30.0
"""Idle connections are dropped by the client, earlier than by the server (`serving`)."""
_MOST_CONNECTIONS = 256
_JSON = {"content-type": "application/json"}


class Unreachable(Exception):
    """The outcome of a call is unknown."""


@dataclass(frozen=True)
class Answer:
    """What a service answered. Statuses are HTTP's; 422 is a refusal of the bank, 409 a key used twice."""

    status: int = OK
    body: Body = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status == OK


@dataclass(frozen=True)
class Origin:
    """The request that is being served: its protocol, and what is passed on of its headers."""

    protocol: Protocol
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, protocol: Protocol, fields: Iterable[tuple[str, str]]) -> Origin:
        told = list(fields)
        ids = [field for field in told if field[0] == REQUEST_ID]  # by it Envoy knows whether to trace
        return cls(protocol, (*passed_on(told), *ids))


_ORIGIN: ContextVar[Origin] = ContextVar("origin")


def set_origin(origin: Origin) -> None:
    """For the task that serves one request."""
    _ORIGIN.set(origin)


def origin_of_task() -> Origin | None:
    return _ORIGIN.get(None)


def encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def decode(text: bytes) -> Body:
    """Raises ValueError for what is not a JSON object."""
    body = json.loads(text or b"{}")
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")
    return body


def http_path(service: BankService, method: str) -> str:
    return f"/{service}/{method}"


def grpc_method(service: BankService, method: str) -> str:
    return f"/meshwise.bank.{service.capitalize()}/{method}"


def path_in(protocol: Protocol, service: BankService, method: str) -> str:
    return grpc_method(service, method) if protocol is Protocol.GRPC else http_path(service, method)


class PeerClient:
    """Connections to the peers, kept alive. Use as an async context manager."""

    def __init__(
        self,
        protocol: Protocol,
        peers: Mapping[BankService, str],
        deadline_s: float,
        hosts: Mapping[BankService, str] | None = None,
    ) -> None:
        """`peers`: `host:port` to dial; `hosts`: the authority that is asked for, where it is another."""
        self._protocol = protocol
        self._peers = peers
        self._hosts = hosts or {}
        self._deadline_s = deadline_s
        self._stack = AsyncExitStack()
        self._http1: aiohttp.ClientSession | None = None
        self._http2: httpx.AsyncClient | None = None
        self._channels: dict[BankService, Any] = {}
        self._methods: dict[tuple[BankService, str], Any] = {}
        """URLs of HTTP/1.1 and calls of gRPC, made once."""

    async def __aenter__(self) -> Self:
        match self._protocol:
            case Protocol.GRPC:
                self._channels = {service: self._channel(service) for service in self._peers}
                for channel in self._channels.values():
                    self._stack.push_async_callback(channel.close)
            case Protocol.HTTP2:
                limits = httpx.Limits(
                    max_connections=_MOST_CONNECTIONS,
                    max_keepalive_connections=_MOST_CONNECTIONS,
                    keepalive_expiry=_IDLE_S,
                )
                client = httpx.AsyncClient(
                    http1=False, http2=True, timeout=self._deadline_s, trust_env=False, limits=limits
                )
                self._http2 = await self._stack.enter_async_context(client)
            case _:
                self._http1 = await self._stack.enter_async_context(_session())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def call(
        self,
        service: BankService,
        method: str,
        body: Mapping[str, Any],
        headers: Iterable[tuple[str, str]] = (),
    ) -> Answer:
        """Raises Unreachable when the outcome is unknown."""
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._ask(service, method, encode(body), headers)
        except (aiohttp.ClientError, httpx.TransportError, OSError, TimeoutError) as error:
            raise Unreachable(f"{service}: {type(error).__name__} {error}") from error
        if answer.status >= 500:
            raise Unreachable(f"{service}: {answer.status} {answer.body.get('error', '')}")
        return answer

    async def _ask(
        self, service: BankService, method: str, body: bytes, headers: Iterable[tuple[str, str]]
    ) -> Answer:
        if self._channels:
            return await self._call(service, method, body, headers)
        fields = {**_JSON, **dict(headers)}
        if host := self._hosts.get(service):
            fields["host"] = host
        if self._http2 is not None:
            url = f"http://{self._peers[service]}{http_path(service, method)}"
            response = await self._http2.post(url, content=body, headers=fields)
            return _answer(response.status_code, response.content)
        if self._http1 is None:
            raise Unreachable(f"{service}: the connections are closed")
        if (target := self._methods.get((service, method))) is None:
            target = yarl.URL(f"http://{self._peers[service]}{http_path(service, method)}")
            self._methods[service, method] = target
        async with self._http1.post(target, data=body, headers=fields) as answered:
            return _answer(answered.status, await answered.read())

    async def _call(
        self, service: BankService, method: str, body: bytes, headers: Iterable[tuple[str, str]]
    ) -> Answer:
        if (call := self._methods.get((service, method))) is None:
            call = self._channels[service].unary_unary(grpc_method(service, method))
            self._methods[service, method] = call
        try:
            return Answer(OK, decode(await call(body, timeout=self._deadline_s, metadata=tuple(headers))))
        except grpc.aio.AioRpcError as error:
            return _answer(_FROM_GRPC.get(error.code(), UNAVAILABLE), (error.details() or "").encode())
        except grpc.aio.UsageError as error:  # the channel was closed beneath the call
            raise Unreachable(f"{service}: {error}") from error

    def _channel(self, service: BankService) -> Any:
        options: list[tuple[str, Any]] = [
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.initial_reconnect_backoff_ms", 100),
        ]
        if host := self._hosts.get(service):
            options.append(("grpc.default_authority", host))
        return grpc.aio.insecure_channel(self._peers[service], options=options)


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=_MOST_CONNECTIONS, keepalive_timeout=_IDLE_S, use_dns_cache=False, enable_cleanup_closed=False
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        trust_env=False,
    )


def _answer(status: int, text: bytes) -> Answer:
    """A proxy answers in plain words where a service would answer in JSON."""
    try:
        return Answer(status, decode(text))
    except ValueError:
        return Answer(status if status != OK else UNAVAILABLE, {"error": text[:200].decode(errors="replace")})
