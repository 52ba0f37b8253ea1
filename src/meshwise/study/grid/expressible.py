"""Which cells no mesh can express, with why. Pure."""

from __future__ import annotations

from meshwise.study.model import Authorization, Cell, Layer, MtlsMode


def inexpressible(cell: Cell) -> str | None:
    """Why no mesh can express the cell, or None."""
    if cell.protocol.layer is Layer.L4 and cell.posture.authorization is Authorization.REQUEST:
        return "authorization `request` reads methods, paths and headers, and opaque TCP has none"
    if cell.posture.mtls is MtlsMode.DISABLE and cell.posture.authorization in (
        Authorization.NAMESPACE,
        Authorization.FINE,
    ):
        return (
            f"authorization `{cell.posture.authorization}` asks who calls, which without mutual TLS"
            " is not known; `request` is the kind that needs no identity"
        )
    return _demand_without_identity(cell)


def _demand_without_identity(cell: Cell) -> str | None:
    """Whether a service of the graph asks, in this posture, who calls, though that is not known."""
    if cell.posture.mtls is None:
        return None
    for service in cell.graph.services if cell.graph is not None else ():
        kind = service.authorization or cell.posture.authorization
        mtls = service.mtls or cell.posture.mtls
        if mtls is MtlsMode.DISABLE and kind in (Authorization.NAMESPACE, Authorization.FINE):
            asks = f"authorization `{kind}` of `{service.name}` asks who calls"
            return f"{asks}, which without mutual TLS is not known"
    return None
