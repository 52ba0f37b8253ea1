"""Commands to the control plane, from the runner's side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshwise.mesh import commands
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
    return commands.tell(directory / COMMAND_SOCKET, {"do": word, **more}, process_set, patience_s)
