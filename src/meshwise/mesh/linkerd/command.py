"""Commands to the control plane, from the runner's side."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from meshwise.core import messages
from meshwise.mesh.linkerd.names import COMMAND_SOCKET


def tell(directory: Path, word: str, process_set: str, control_s: float, **more: object) -> dict[str, Any]:
    """Answers with its state: `version`, `fingerprint`, `streams`, `behind`, `unknown_calls`. Raises MW421
    when there is no answer after `control_s`, and `within_s` of a command that may take so long.

        status
        reload  pods, within_s     when every stream has been sent the snapshot file's answers, and each of
                                   the pods has one about its policy; with pods `accepted_ns` and `sent`
        renew   pods, within_s     answers held renewals: `renewed`, and `why` others were not
        issuer                     another issuer is in the directory
        skew    by_s               the clock of the authority is so far ahead
        fail    services, how      (`failing.FaultMode`) until `mend`
        mend    services
    """
    within_s = more.get("within_s")
    patience_s = control_s + (float(within_s) if isinstance(within_s, (int, float)) else 0.0)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience_s)
            connection.connect(str(directory / COMMAND_SOCKET))
            connection.sendall(json.dumps({"do": word, **more}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        if not line:
            raise ConnectionResetError("it closed the connection")
        answer: dict[str, Any] = json.loads(line)
    except (OSError, ValueError) as error:
        raise messages.CONTROLLER_SILENT.error(process_set=process_set, reason=error) from error
    return answer
