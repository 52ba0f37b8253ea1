"""The bank's ports past the sidecars."""

from __future__ import annotations

from dataclasses import replace

from meshwise.mesh.seam import Capture
from meshwise.study.topology import POSTGRES_PORT, REDIS_PORT

POSTGRES, REDIS = "postgres", "redis"
DIRECT = {POSTGRES_PORT: 15432, REDIS_PORT: 16379}
"""Port of a store -> where it is reached past the sidecars. On a cluster the pods would be annotated to leave
the port itself alone; here both ways stand side by side, and a trial takes either without new rules."""
_OWN = {POSTGRES: POSTGRES_PORT, REDIS: REDIS_PORT}


def with_direct_way(rules: Capture, workload: str) -> Capture:
    """The capture of a pod of the bank: its mesh's, with the ports past the sidecars left alone."""
    own = ((DIRECT[_OWN[workload]], _OWN[workload]),) if workload in _OWN else ()
    return replace(
        rules,
        outbound_exempt_ports=(*rules.outbound_exempt_ports, *DIRECT.values()),
        inbound_redirects=own,
    )
