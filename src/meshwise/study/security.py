"""What a posture is made of: mTLS mode, kind of authorization; and the ladder. `study.model` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class MtlsMode(StrEnum):
    """What the server side demands: Istio's PeerAuthentication modes, Linkerd's default policies."""

    DISABLE = "disable"
    PERMISSIVE = "permissive"
    STRICT = "strict"


class Authorization(StrEnum):
    """Which calls are let through.

    `namespace`: callers of the calling namespace. `fine`: least privilege by identity, method, path,
    header and JWT claim; of opaque TCP by identity and port, for there is nothing else to read. `request`:
    `fine` without the identity, the only kind that means anything without mutual TLS (for factorial studies).
    """

    NONE = "none"
    NAMESPACE = "namespace"
    FINE = "fine"
    REQUEST = "request"


@dataclass(frozen=True, order=True)
class Posture:
    """The security configuration of a cell. `mtls is None` only in the posture `none` (no mesh)."""

    mtls: MtlsMode | None
    authorization: Authorization = Authorization.NONE

    @property
    def name(self) -> str:
        """The ladder's name where the ladder has it, else `<mtls>+<authorization>`."""
        if self.mtls is None:
            return "none"
        first = "plaintext" if self.mtls is MtlsMode.DISABLE else str(self.mtls)
        return first if self.authorization is Authorization.NONE else f"{first}+{self.authorization}"


NO_MESH = Posture(None)
LADDER: tuple[Posture, ...] = (
    Posture(MtlsMode.DISABLE),
    Posture(MtlsMode.PERMISSIVE),
    Posture(MtlsMode.STRICT),
    Posture(MtlsMode.STRICT, Authorization.NAMESPACE),
    Posture(MtlsMode.STRICT, Authorization.FINE),
)
"""The rungs of a mesh, bottom up: plaintext, permissive, strict, strict+namespace, strict+fine."""

POSTURES: Mapping[str, Posture] = {
    posture.name: posture
    for posture in (
        NO_MESH,
        *(Posture(mtls, authorization) for mtls in MtlsMode for authorization in Authorization),
    )
}
"""Every posture by its name: `none` and each combination of mTLS mode and authorization."""

LADDER_NAMES = (NO_MESH.name, *(posture.name for posture in LADDER))
