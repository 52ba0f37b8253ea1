"""What the control plane says of a push, as what each proxy has taken up.

A proxy acknowledges nothing (the API's streams go one way), so *taken up* is the moment in which the last
answer that differs had been written to its connection, by the controller's own clock (CLOCK_MONOTONIC, which
processes share). When requests meet the new rule is seen by requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshwise.mesh.changes import NOT_DONE, Taken
from meshwise.mesh.linkerd.names import ControlService


def taken(told: Mapping[str, Any], pod: str) -> Taken:
    """`told`: the answer to `reload` with pods."""
    streams = [each for each in told["sent"] if each["pod"] == pod]
    behind = [each["about"] for each in streams if not each["current"]]
    detail: dict[str, object] = {"version": told["version"], "streams": len(streams)}
    if not any(each["service"] == ControlService.POLICY for each in streams):
        return Taken(pod, None, {**detail, NOT_DONE: "it has no stream open on which policies are sent"})
    if behind:
        return Taken(
            pod, None, {**detail, NOT_DONE: f"it was not sent the answers about {', '.join(behind)}"}
        )
    accepted_ns = told["accepted_ns"]
    sent_ns = [each["sent_ns"] for each in streams if each["sent_ns"] is not None]
    last_ns = max(sent_ns, default=accepted_ns)
    detail |= {"sent": len(sent_ns), "sent_after_ns": last_ns - accepted_ns}
    return Taken(pod, last_ns, detail)
