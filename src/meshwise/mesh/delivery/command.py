"""Commands to the control plane, from the runner's side: one line of JSON each way."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from meshwise.core import messages
from meshwise.mesh.delivery.names import COMMAND_SOCKET


def tell(directory: Path, order: dict[str, object], who: str, within_s: float) -> dict[str, Any]:
    """What it answers (`controller.XdsControlPlane.command`). Raises MW421."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within_s)
            _connect(connection, directory)
            connection.sendall(json.dumps(order).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        if not line:
            raise ConnectionResetError("it closed the connection")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
    except (OSError, ValueError) as error:
        raise messages.CONTROLLER_SILENT.error(process_set=who, reason=error) from error
    return answer


def _connect(connection: socket.socket, directory: Path) -> None:
    """By the directory's descriptor: a socket's path has room for 107 bytes, and this one may be longer."""
    descriptor = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{descriptor}/{COMMAND_SOCKET}")
    finally:
        os.close(descriptor)
