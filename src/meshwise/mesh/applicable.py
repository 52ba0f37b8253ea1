"""What no mesh can express, whichever it is: combinations of levels that contradict each other."""

from __future__ import annotations

from meshwise.study.demands import effective_posture
from meshwise.study.model import (
    OF_A_REQUEST,
    Authorization,
    Cell,
    ForbiddenBy,
    Layer,
    MtlsMode,
    Posture,
    Protocol,
    Workload,
)

IDENTITY_RULES = (Authorization.NAMESPACE, Authorization.FINE)
"""Kinds of authorization that ask who calls."""


def contradiction(cell: Cell, mesh: str) -> str | None:
    """Why no mesh can express the cell, in words that name `mesh`, or None."""
    if cell.posture.mtls is None:
        return "the posture `none` has no sidecar; it belongs to the mesh `none`"
    called = cell.topology.workloads[1:]
    postures = [effective_posture(cell, workload) for workload in called]
    for workload, posture in zip(called, postures, strict=True):
        if reason := _of_workload(cell, workload, posture, mesh):
            return reason
    if cell.policy_count and all(each.authorization is Authorization.NONE for each in postures):
        return "without authorization there is no policy to make longer"
    if cell.policy_count and cell.rule_kind in OF_A_REQUEST and cell.protocol.layer is Layer.L4:
        return f"rules by {cell.rule_kind} read requests, and opaque TCP has none"
    entry = effective_posture(cell, cell.topology.entry)
    if cell.plaintext_share and entry.mtls is MtlsMode.STRICT:
        return "strict mutual TLS refuses every plaintext client"
    if cell.plaintext_share and entry.authorization in IDENTITY_RULES:
        return f"authorization by {entry.authorization} refuses every plaintext client"
    return _no_such_load(cell, entry, mesh)


def _no_such_load(cell: Cell, entry: Posture, mesh: str) -> str | None:
    """Of requests that a stricter posture forbids."""
    if not cell.forbidden_share:
        return None
    if cell.forbidden_by is ForbiddenBy.REQUEST and cell.topology.entry.speaks(cell.protocol) is Protocol.TCP:
        return "opaque TCP has no request that could be forbidden (use `forbidden_by: identity`)"
    if cell.forbidden_by is ForbiddenBy.IDENTITY and entry.mtls is MtlsMode.DISABLE:
        return f"without mutual TLS {mesh} sees no identity that could be forbidden"
    if cell.plaintext_share + cell.forbidden_share >= 1:
        return "no request would be left that is allowed"
    return None


def _of_workload(cell: Cell, workload: Workload, posture: Posture, mesh: str) -> str | None:
    """Named only where it is the workload's own demand or protocol that does not fit."""
    protocol = workload.speaks(cell.protocol)
    ordinary = posture == cell.posture and protocol is cell.protocol
    whose = "" if ordinary else f"service `{workload.name}`: "
    if posture.mtls is MtlsMode.DISABLE and posture.authorization in IDENTITY_RULES:
        return (
            f"{whose}without mutual TLS {mesh} sees no identity, so authorization by "
            f"{posture.authorization} refuses every call (use the kind `request`)"
        )
    if protocol.layer is Layer.L4 and posture.authorization is Authorization.REQUEST:
        return f"{whose}authorization `request` reads methods, paths and headers, and opaque TCP has none"
    return None
