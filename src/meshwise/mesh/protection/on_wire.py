"""Attempts of somebody who reads the wire, and of one who speaks plaintext into the mesh."""

from __future__ import annotations

from meshwise.mesh.protection.attempt import (
    BY_CALLER,
    ENCRYPTED,
    STRICT,
    Attempt,
    Documented,
    both,
)
from meshwise.mesh.protection.calls import InPlaintext
from meshwise.mesh.protection.wire import Eavesdrop, WirePart

_ENCRYPTED = both(
    Documented(ENCRYPTED, "istio.io/latest/docs/concepts/security/#auto-mutual-tls"),
    Documented(ENCRYPTED, "linkerd.io/2-edge/features/automatic-mtls/"),
)

ATTEMPTS = (
    Attempt(
        "sniff-request",
        "somebody on the wire",
        "between the pods of client and service",
        "reads the body of a request that the client makes through its sidecar",
        "no byte of the body stands on the wire in plaintext",
        Eavesdrop(WirePart.REQUEST),
        _ENCRYPTED,
    ),
    Attempt(
        "sniff-answer",
        "somebody on the wire",
        "between the pods of client and service",
        "reads the body of the service's answer",
        "no byte of the body stands on the wire in plaintext",
        Eavesdrop(WirePart.ANSWER),
        _ENCRYPTED,
    ),
    Attempt(
        "plaintext-call",
        "a pod outside the mesh",
        "on the address and port of the service's pod",
        "asks in plaintext what the client may ask",
        "no answer of the service",
        InPlaintext(),
        both(
            Documented(
                STRICT | BY_CALLER,
                "istio.io/latest/docs/reference/config/security/peer_authentication/ (mode STRICT)",
            ),
            Documented(
                STRICT | BY_CALLER,
                "linkerd.io/2-edge/features/server-policy/ (all-authenticated)",
            ),
        ),
    ),
)
