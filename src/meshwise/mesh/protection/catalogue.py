"""Every attempt. A further file of attempts is one more line here."""

from __future__ import annotations

from collections.abc import Mapping

from meshwise.mesh.protection import on_certificates, on_ports, on_requests, on_time, on_tokens, on_wire
from meshwise.mesh.protection.attempt import Attempt

ATTEMPTS: tuple[Attempt, ...] = (
    *on_wire.ATTEMPTS,
    *on_certificates.ATTEMPTS,
    *on_ports.ATTEMPTS,
    *on_tokens.ATTEMPTS,
    *on_requests.ATTEMPTS,
    *on_time.ATTEMPTS,
)
"""In the order in which they are tried and shown."""

BY_KEY: Mapping[str, Attempt] = {attempt.key: attempt for attempt in ATTEMPTS}
