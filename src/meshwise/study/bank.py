"""What a study may say of the reference application (docs/bank.md): operations with weights, and whether its
stores are in the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class BankOperation(StrEnum):
    """What a client of the bank asks for."""

    PROFILE = "profile"
    TRANSFER = "transfer"
    NOTIFY = "notify"
    STATEMENT = "statement"

    @property
    def moves_money(self) -> bool:
        return self in (BankOperation.TRANSFER, BankOperation.NOTIFY)


DEFAULT_WEIGHTS: Mapping[BankOperation, float] = {
    BankOperation.PROFILE: 50,
    BankOperation.TRANSFER: 30,
    BankOperation.NOTIFY: 10,
    BankOperation.STATEMENT: 10,
}


class Stores(StrEnum):
    """How the services reach database and cache."""

    MESHED = "meshed"
    """Through the sidecars on both sides, as any other call."""
    DIRECT = "direct"
    """Past them: Istio's `traffic.sidecar.istio.io/excludeOutboundPorts` with `excludeInboundPorts`,
    Linkerd's `config.linkerd.io/skip-outbound-ports` with `skip-inbound-ports`."""
