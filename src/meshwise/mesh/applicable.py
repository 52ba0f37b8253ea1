"""What no mesh can express, whichever it is: combinations of levels that contradict each other."""

from __future__ import annotations

from meshwise.study.model import Authorization, Cell, Level, MtlsMode

IDENTITY_RULES = (Authorization.NAMESPACE, Authorization.FINE)
"""Kinds of authorization that ask who calls."""


def contradiction(cell: Cell, mesh: str) -> str | None:
    """Why no mesh can express the cell, in words that name `mesh`, or None."""
    mtls, authorization = cell.posture.mtls, cell.posture.authorization
    if mtls is None:
        return "the posture `none` has no sidecar; it belongs to the mesh `none`"
    if mtls is MtlsMode.DISABLE and authorization in IDENTITY_RULES:
        return (
            f"without mutual TLS {mesh} sees no identity, so authorization by {authorization} "
            "refuses every call (use the kind `request`)"
        )
    if cell.policy_count and authorization is Authorization.NONE:
        return "without authorization there is no policy to make longer"
    if cell.plaintext_share and mtls is MtlsMode.STRICT:
        return "strict mutual TLS refuses every plaintext client"
    if cell.plaintext_share and authorization in IDENTITY_RULES:
        return f"authorization by {authorization} refuses every plaintext client"
    if cell.protocol.level is Level.L4 and authorization is Authorization.REQUEST:
        return "authorization `request` reads methods, paths and headers, and opaque TCP has none"
    return None
