"""Commands to the control plane, from the runner's side."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from meshwise.core import messages
from meshwise.mesh.linkerd.names import COMMAND_SOCKET


def tell(directory: Path, word: str, process_set: str, control_s: float) -> dict[str, Any]:
    """`reload` (returns when every stream has been sent the snapshot file's answers) or `status`:
    `version`, `fingerprint`, `streams`, `behind`, `unknown_calls`. Raises MW421."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(control_s)
            connection.connect(str(directory / COMMAND_SOCKET))
            connection.sendall(word.encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        if not line:
            raise ConnectionResetError("it closed the connection")
        answer: dict[str, Any] = json.loads(line)
    except (OSError, ValueError) as error:
        raise messages.CONTROLLER_SILENT.error(process_set=process_set, reason=error) from error
    return answer
