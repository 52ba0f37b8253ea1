"""Requests that a stricter posture forbids: who forbids what, and rows of the table of factors
(`study.factors`) that put them into the load.
"""

from __future__ import annotations

from meshwise.study.factor import ColumnKind, Factor, FactorRole, column
from meshwise.study.file.scalars import Share, one_of
from meshwise.study.levels import ForbiddenBy
from meshwise.study.security import Authorization, MtlsMode, Posture
from meshwise.study.topology import TopologyKind

_BY_IDENTITY = (Authorization.NAMESPACE, Authorization.FINE)
_BY_REQUEST = (Authorization.FINE, Authorization.REQUEST)


def forbids(posture: Posture, by: ForbiddenBy) -> bool:
    """Whether the posture refuses such requests (`mesh.expectations` has it for every caller and request)."""
    return posture.authorization in (_BY_IDENTITY if by is ForbiddenBy.IDENTITY else _BY_REQUEST)


def forbids_plaintext(posture: Posture) -> bool:
    """Whether it refuses a client without TLS."""
    return posture.mtls is MtlsMode.STRICT or posture.authorization in _BY_IDENTITY


def in_a_mesh(posture: Posture) -> bool:
    return posture.mtls is not None


_WITHOUT = {TopologyKind.BANK: "the bank's books hold for what its own clients may ask"}

FORBIDDEN: tuple[Factor, ...] = (
    Factor(
        field="forbidden_share", key="forbidden_share", role=FactorRole.FREE, type=Share, default=0.0,
        ordinary=(0,), numeric=True, concerns=in_a_mesh, without=_WITHOUT,
        about="Share of the requests that a posture with authorization forbids, on kept connections: who "
        "passes when the posture changes. Default: 0.",
        columns=column(
            "forbidden_share", ColumnKind.NUMBER,
            "share of the requests that a posture with authorization forbids", True,
        ),
        says_none=True, heading="forbidden", text=lambda share: f"{100 * share:.3g}%",
        short=lambda share: f"{100 * share:.3g}% forbidden requests" if share else "no forbidden requests",
        spoken=lambda share, _: f"{100 * share:.3g}% forbidden requests" if share else "",
        named=lambda cell: (
            f"{cell.forbidden_share:g}forbidden-by-{cell.forbidden_by}" if cell.forbidden_share else ""
        ),
    ),
    Factor(
        field="forbidden_by", key="forbidden_by", role=FactorRole.FREE, read=ForbiddenBy,
        type=one_of("kind of forbidden request", ForbiddenBy), default=ForbiddenBy.REQUEST,
        concerns=in_a_mesh, needs=("forbidden_share", 0), without=_WITHOUT,
        about="By what they are forbidden: request (another tenant, of the client inside the mesh) or "
        "identity (a client of another namespace, with its certificate). Default: request.",
        columns=column(
            "forbidden_by", ColumnKind.TEXT,
            "by what they are forbidden: `request` (another tenant), `identity` (another namespace)", True,
        ),
        heading="forbidden by", short=lambda kind: f"forbidden by {kind}",
        spoken=lambda kind, _: f"forbidden by {kind}",
    ),  # its name stands with that of `forbidden_share`
)  # fmt: skip
