"""A service answers, over each protocol of the study at once: uvicorn for HTTP/1.1, hypercorn for HTTP/2,
grpc.aio for gRPC.

A handler takes a body and gives an `Answer`. What it raises is answered in one way, whatever the
protocol: a body that makes no sense 400, a key used twice 409, a store or a peer that does not answer 503.
Anything else is a defect: the framework logs its trace and answers with a status of its own that means as
much as 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import asyncpg
import grpc
import hypercorn.asyncio
import hypercorn.config
import redis.exceptions
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from meshwise.service.bank import calls
from meshwise.service.bank.calls import Answer, Body, Origin
from meshwise.service.bank.domain import Conflict
from meshwise.service.bank.resources import Resources
from meshwise.study.model import Protocol

log = logging.getLogger(__name__)

Handler = Callable[[Body], Awaitable[Answer]]
_KEEP_ALIVE_S = 75
_GRACE_S = 2

HEALTH = "health"

STORE_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    redis.exceptions.RedisError,
)
"""What a store raises when it does not answer, or not as it should."""


class BadRequest(ValueError):
    """A body that makes no sense."""


def number(body: Body, name: str) -> int:
    """A whole number of the body. Raises BadRequest."""
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest(f"`{name}` is not a whole number")
    return value


def text(body: Body, name: str) -> str:
    """Words of the body. Raises BadRequest."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"`{name}` is not a text")
    return value


async def answer(handler: Handler, raw: bytes) -> Answer:
    """Run a handler; what it raises becomes an answer."""
    try:
        try:
            body = calls.decode(raw)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        return await handler(body)
    except BadRequest as error:
        return Answer(calls.BAD, {"error": str(error)})
    except Conflict as error:
        return Answer(calls.CONFLICT, {"error": str(error)})
    except (calls.Unreachable, *STORE_ERRORS) as error:
        log.info("unavailable: %r", error)
        return Answer(calls.UNAVAILABLE, {"error": f"{type(error).__name__}: {error}"})


async def serve(held: Resources, handlers: Mapping[str, Handler], stop: asyncio.Event) -> None:
    """Answer over every protocol of the spec until `stop`; what is being answered then may end, for 2 s."""
    every = {**handlers, HEALTH: _health}
    async with asyncio.TaskGroup() as servers:
        for protocol, port in held.spec.ports.items():
            servers.create_task(_SERVERS[protocol](held, port, every, stop))


async def _health(_: Body) -> Answer:
    return Answer()


def stop_asked() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number_, stop.set)
    return stop


def _arrived(held: Resources, origin: Origin) -> None:
    calls.set_origin(origin)
    held.peers.latest = origin


# --- HTTP --------------------------------------------------------------------------------------


def _application(held: Resources, protocol: Protocol, handlers: Mapping[str, Handler]) -> Starlette:
    def route(method: str, handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            raw = request.headers.raw
            fields = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw)
            origin = Origin.of(protocol, fields)
            _arrived(held, origin)
            with held.tracing.server(method, origin.headers) as told:
                given = await answer(handler, await request.body())
                told(given.status)
            return Response(calls.encode(given.body), given.status, media_type="application/json")

        return Route(calls.http_path(held.spec.service, method), endpoint, methods=["POST"])

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(
        routes=[*(route(method, handler) for method, handler in handlers.items()), Route("/healthz", healthz)]
    )


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own: they end all its servers at once."""
        yield


async def _serve_http1(
    held: Resources, port: int, handlers: Mapping[str, Handler], stop: asyncio.Event
) -> None:
    config = uvicorn.Config(
        _application(held, Protocol.HTTP1, handlers),
        host=held.spec.listen,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        lifespan="off",
    )
    server = _Uvicorn(config)
    serving = asyncio.ensure_future(server.serve())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await serving


async def _serve_http2(
    held: Resources, port: int, handlers: Mapping[str, Handler], stop: asyncio.Event
) -> None:
    # Of our own making: on the sockets that hypercorn makes (protocol number 0) asyncio does not switch
    # Nagle's algorithm off, and an answer of several small frames may wait for a delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind((held.spec.listen, port))
    listener.setblocking(False)
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.keep_alive_timeout = _KEEP_ALIVE_S
    config.graceful_timeout = _GRACE_S
    config.accesslog = None
    config.loglevel = "WARNING"
    application: Any = _application(held, Protocol.HTTP2, handlers)
    await hypercorn.asyncio.serve(application, config, shutdown_trigger=stop.wait)


# --- gRPC --------------------------------------------------------------------------------------


async def _serve_grpc(
    held: Resources, port: int, handlers: Mapping[str, Handler], stop: asyncio.Event
) -> None:
    def method(key: str, handler: Handler) -> Any:
        async def behave(raw: bytes, context: Any) -> bytes:
            fields = ((key, value) for key, value in context.invocation_metadata() if isinstance(value, str))
            origin = Origin.of(Protocol.GRPC, fields)
            _arrived(held, origin)
            with held.tracing.server(key, origin.headers) as told:
                given = await answer(handler, raw)
                told(given.status)
            if not given.ok:
                await context.abort(calls.TO_GRPC[given.status], calls.encode(given.body).decode())
            return calls.encode(given.body)

        return grpc.unary_unary_rpc_method_handler(behave)

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    name = calls.grpc_method(held.spec.service, "").strip("/")
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                name, {key: method(key, each) for key, each in handlers.items()}
            ),
        )
    )
    server.add_insecure_port(f"{held.spec.listen}:{port}")
    await server.start()
    await stop.wait()
    await server.stop(_GRACE_S)


_SERVERS = {
    Protocol.HTTP1: _serve_http1,
    Protocol.HTTP2: _serve_http2,
    Protocol.GRPC: _serve_grpc,
}
