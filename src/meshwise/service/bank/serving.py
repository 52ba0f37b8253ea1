"""A service answers, over the protocol of the study: uvicorn for HTTP/1.1, hypercorn for HTTP/2, grpc.aio
for gRPC.

A handler takes a body and gives an `Answer`. What it raises is told to the caller in one way, whatever the
protocol: a body that makes no sense 400, a key used twice 409, a store or a peer that does not answer 503.
Anything else is a defect: the framework logs its trace and answers with a status of its own that means as
much as 503.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
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
from meshwise.service.bank.calls import Answer, Body
from meshwise.service.bank.domain import Conflict
from meshwise.service.bank.spec import BankSpec, Service
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


async def serve(spec: BankSpec, handlers: Mapping[str, Handler]) -> None:
    """Answer until SIGTERM or SIGINT; what is being answered then may end, for 2 s."""
    every = {**handlers, HEALTH: _health}
    if spec.protocol is Protocol.GRPC:
        await _serve_grpc(spec, every)
    elif spec.protocol is Protocol.HTTP2:
        await _serve_http2(spec, _application(spec.service, every))
    else:
        config = uvicorn.Config(
            _application(spec.service, every),
            host=spec.listen,
            port=spec.port,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
            lifespan="off",
        )
        await uvicorn.Server(config).serve()


async def _health(_: Body) -> Answer:
    return Answer()


def _application(service: Service, handlers: Mapping[str, Handler]) -> Starlette:
    def route(method: str, handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            given = await answer(handler, await request.body())
            return Response(calls.encode(given.body), given.status, media_type="application/json")

        return Route(f"/{service}/{method}", endpoint, methods=["POST"])

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(
        routes=[Route("/healthz", healthz), *(route(method, handler) for method, handler in handlers.items())]
    )


async def _serve_http2(spec: BankSpec, application: Any) -> None:
    # Of our own making: on the sockets that hypercorn makes (protocol number 0) asyncio does not switch
    # Nagle's algorithm off, and an answer of several small frames may wait for a delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind((spec.listen, spec.port))
    listener.setblocking(False)
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.keep_alive_timeout = _KEEP_ALIVE_S
    config.graceful_timeout = _GRACE_S
    config.accesslog = None
    config.loglevel = "WARNING"
    await hypercorn.asyncio.serve(application, config, shutdown_trigger=_stop_asked().wait)


async def _serve_grpc(spec: BankSpec, handlers: Mapping[str, Handler]) -> None:
    def method(handler: Handler) -> Any:
        async def behave(raw: bytes, context: Any) -> bytes:
            given = await answer(handler, raw)
            if not given.ok:
                await context.abort(calls.TO_GRPC[given.status], calls.encode(given.body).decode())
            return calls.encode(given.body)

        return grpc.unary_unary_rpc_method_handler(behave)

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    name = calls.grpc_method(spec.service, "").strip("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {key: method(each) for key, each in handlers.items()}),)
    )
    server.add_insecure_port(f"{spec.listen}:{spec.port}")
    stop = _stop_asked()
    await server.start()
    await stop.wait()
    await server.stop(_GRACE_S)


def _stop_asked() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number_, stop.set)
    return stop
