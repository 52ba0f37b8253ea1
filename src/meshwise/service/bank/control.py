"""How a testbed starts and pauses the work of a service: three requests of HTTP/1.1, on 127.0.0.1 of the pod.

    GET /healthz             200
    POST /begin/STORES       take up connections, to the stores by that way (`study.bank.Stores`)
    POST /rest               let go of every connection; 200 when none is left

No sidecar sees them. One request per connection; who may connect is in the pod.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from meshwise.service.bank.resources import Resources
from meshwise.study.bank import Stores

_MOST_BYTES = 4096


@contextlib.asynccontextmanager
async def controlled(held: Resources) -> AsyncIterator[None]:
    """Listen while the block runs, if the spec names a port."""
    if not held.spec.control_port:
        yield
        return

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(held.spec.deadline_s):
                head = await reader.readuntil(b"\r\n\r\n")
            status = await _obey(held, head[:_MOST_BYTES].decode("latin-1").split(" ", 2)[:2])
            writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # it went away, or asked nothing: there is no peer to answer
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", held.spec.control_port)
    async with server:
        yield


async def _obey(held: Resources, words: list[str]) -> str:
    match words:
        case ["GET", "/healthz"]:
            return "200 OK"
        case ["POST", "/rest"]:
            await held.close()
            return "200 OK"
        case ["POST", path] if path.removeprefix("/begin/") in tuple(Stores):
            await held.open(Stores(path.removeprefix("/begin/")))
            return "200 OK"
        case _:
            return "404 Not Found"
