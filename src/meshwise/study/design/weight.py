"""Which of two cells asks more of the proxies. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.study.model import Authorization, Cell, MtlsMode


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
