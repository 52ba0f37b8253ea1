"""The factors of a study: their names in the file, which postures they concern, and the names of postures.

A factor that means nothing to a posture does not multiply its cells: authorization entries without
authorization, plaintext clients where none is accepted, a key where no certificate is used. Such a cell
stands once, with the neutral level, and every level of that factor is compared with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from meshwise.study.model import LADDER, NO_MESH, Authorization, Cell, Layer, MtlsMode, Posture

FIELD_OF = {
    "protocol": "protocol",
    "rate": "rate_rps",
    "request": "request_bytes",
    "response": "response_bytes",
    "connections": "connections",
    "streams": "streams",
    "length": "length",
    "key": "key_type",
    "policies": "policy_count",
    "plaintext_share": "plaintext_share",
    "http1_transport": "http1_transport",
    "tls_group": "tls_group",
    "stores": "stores",
    "requests_per_connection": "requests_per_connection",
    "churn": "churn_per_s",
    "streaming": "streaming",
    "messages": "messages",
}
"""Factor in the study file -> field of `Cell`. Environment and posture are the other two."""

POSTURES: dict[str, Posture] = {
    posture.name: posture
    for posture in (
        NO_MESH,
        *(Posture(mtls, authorization) for mtls in MtlsMode for authorization in Authorization),
    )
}
"""Every posture by its name: `none` and each combination of mTLS mode and authorization."""

LADDER_NAMES = (NO_MESH.name, *(posture.name for posture in LADDER))


def concerns(factor: str, posture: Posture) -> bool:
    """Whether the factor (a field of `Cell`) means anything in this posture."""
    match factor:
        case "policy_count":
            return posture.authorization is not Authorization.NONE
        case "plaintext_share":
            return posture.mtls is MtlsMode.PERMISSIVE
        case "key_type" | "tls_group":
            return posture.mtls in (MtlsMode.PERMISSIVE, MtlsMode.STRICT)
        case "http1_transport" | "stores":
            return posture.mtls is not None
        case _:
            return True


def inexpressible(cell: Cell) -> str | None:
    """Why no mesh can express the cell, or None."""
    if cell.protocol.layer is Layer.L4 and cell.posture.authorization is Authorization.REQUEST:
        return "authorization `request` reads methods, paths and headers, and opaque TCP has none"
    if cell.posture.mtls is MtlsMode.DISABLE and cell.posture.authorization in (
        Authorization.NAMESPACE,
        Authorization.FINE,
    ):
        return (
            f"authorization `{cell.posture.authorization}` asks who calls, and without mutual TLS nobody can"
            " say; `request` is the kind that needs no identity"
        )
    return _demanded_in_vain(cell)


def _demanded_in_vain(cell: Cell) -> str | None:
    """Whether a service of the graph asks, in this posture, who calls, though nobody can say."""
    if cell.posture.mtls is None:
        return None
    for service in cell.graph.services if cell.graph is not None else ():
        kind = service.authorization or cell.posture.authorization
        mtls = service.mtls or cell.posture.mtls
        if mtls is MtlsMode.DISABLE and kind in (Authorization.NAMESPACE, Authorization.FINE):
            asks = f"authorization `{kind}` of `{service.name}` asks who calls"
            return f"{asks}, and without mutual TLS nobody can say"
    return None


def weight(cell: Cell) -> tuple[float, ...]:
    """Orders cells from the lightest to the heaviest for the proxies, as far as one can say beforehand."""
    modes: Sequence[MtlsMode | None] = (None, MtlsMode.DISABLE, MtlsMode.PERMISSIVE, MtlsMode.STRICT)
    kinds = (Authorization.NONE, Authorization.NAMESPACE, Authorization.REQUEST, Authorization.FINE)
    return (
        float(modes.index(cell.posture.mtls)),
        float(kinds.index(cell.posture.authorization)),
        float(cell.length),
        float(cell.policy_count),
        cell.rate_rps,
        float(cell.request_bytes + cell.response_bytes),
    )


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """`; did you mean `x`?`, or nothing when nothing is near."""
    near = difflib.get_close_matches(text.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""
