"""One service calls another, over HTTP/1.1, HTTP/2 (prior knowledge) or gRPC; the same answer comes of all
three.

Laws of this file:
- A call is answered (`Answer`) or its outcome is unknown (`Unreachable`): connection refused or lost,
  deadline over, or the other side says that it could not (HTTP 503, gRPC UNAVAILABLE). Nothing is retried
  here: who may repeat a call knows its idempotency key.
- Bodies are JSON objects. In gRPC they are the message, with a JSON codec, which gRPC leaves to the
  application; refusals travel as gRPC status codes, with the body in the status message.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import httpx

from meshwise.service.bank.spec import Service
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


def encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def decode(text: bytes) -> Body:
    """Raises ValueError for what is not a JSON object."""
    body = json.loads(text or b"{}")
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")
    return body


def grpc_method(service: Service, method: str) -> str:
    return f"/meshwise.bank.{service.capitalize()}/{method}"


class Caller:
    """Connections to the peers, kept alive. Use as an async context manager."""

    def __init__(self, protocol: Protocol, peers: Mapping[Service, str], deadline_s: float) -> None:
        self._peers = peers
        self._deadline_s = deadline_s
        self._http: httpx.AsyncClient | None = None
        self._channels: dict[Service, Any] = {}
        if protocol is Protocol.GRPC:
            options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
            self._channels = {
                service: grpc.aio.insecure_channel(where, options=options) for service, where in peers.items()
            }
        else:
            http2 = protocol is Protocol.HTTP2
            self._http = httpx.AsyncClient(
                http1=not http2,
                http2=http2,
                timeout=deadline_s,
                trust_env=False,
                limits=httpx.Limits(
                    max_connections=256, max_keepalive_connections=256, keepalive_expiry=_IDLE_S
                ),
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close()
        if self._http:
            await self._http.aclose()

    async def call(self, service: Service, method: str, body: Mapping[str, Any]) -> Answer:
        """Raises Unreachable when the outcome is unknown."""
        try:
            async with asyncio.timeout(self._deadline_s):
                if self._http is None:
                    answer = await self._grpc(service, method, body)
                else:
                    answer = await self._post(self._http, service, method, body)
        except (httpx.TransportError, TimeoutError) as error:
            raise Unreachable(f"{service}: {type(error).__name__} {error}") from error
        if answer.status >= 500:
            raise Unreachable(f"{service}: {answer.status} {answer.body.get('error', '')}")
        return answer

    async def _post(
        self, client: httpx.AsyncClient, service: Service, method: str, body: Mapping[str, Any]
    ) -> Answer:
        response = await client.post(
            f"http://{self._peers[service]}/{service}/{method}",
            content=encode(body),
            headers={"content-type": "application/json"},
        )
        return _answer(response.status_code, response.content)

    async def _grpc(self, service: Service, method: str, body: Mapping[str, Any]) -> Answer:
        call = self._channels[service].unary_unary(grpc_method(service, method))
        try:
            return Answer(OK, decode(await call(encode(body), timeout=self._deadline_s)))
        except grpc.aio.AioRpcError as error:
            return _answer(_FROM_GRPC.get(error.code(), UNAVAILABLE), (error.details() or "").encode())


def _answer(status: int, text: bytes) -> Answer:
    """A proxy answers in plain words where a service would answer in JSON."""
    try:
        return Answer(status, decode(text))
    except ValueError:
        return Answer(status if status != OK else UNAVAILABLE, {"error": text[:200].decode(errors="replace")})
