"""Commands to the process of a control plane: one line of JSON each way, on a Unix socket of the user's own.

The runner's side is `tell`; the process has `answering` and `until_told`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from meshwise.core import messages

Answer = Callable[[bytes], Awaitable[Mapping[str, object]]]
"""From the line that was sent; `error` in it is what went wrong."""


def tell(listening: Path, order: Mapping[str, object], process_set: str, within_s: float) -> dict[str, Any]:
    """What the process that listens there answers. Raises MW421 when it does not, or has an error."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within_s)
            _connect(connection, listening)
            connection.sendall(json.dumps(order).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        if not line:
            raise ConnectionResetError("it closed the connection")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
    except (OSError, ValueError) as error:
        raise messages.CONTROLLER_SILENT.error(process_set=process_set, reason=error) from error
    return answer


def _connect(connection: socket.socket, listening: Path) -> None:
    """By the directory's descriptor: a socket's path has room for 107 bytes, and this one may be longer."""
    descriptor = os.open(listening.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{descriptor}/{listening.name}")
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def answering(listening: Path, answer: Answer) -> AsyncIterator[None]:
    """Commands are answered within. What a killed process left of the socket is removed."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            async for line in reader:
                writer.write(json.dumps(await answer(line)).encode() + b"\n")
                await writer.drain()

    listening.unlink(missing_ok=True)
    commands = await asyncio.start_unix_server(converse, listening)
    listening.chmod(0o600)
    try:
        yield
    finally:
        commands.close()


async def until_told(serve: Callable[[Awaitable[object]], Awaitable[None]]) -> None:
    """`serve` gets what it has to wait for: SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await serve(stopped.wait())
