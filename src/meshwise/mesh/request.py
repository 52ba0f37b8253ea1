"""The request that every cell sends: the same bytes in every posture and every mesh.

What `strict+fine` demands (method, path, header, token) is always there, so that the difference
between two postures is the posture and not the size of the request.
"""

from __future__ import annotations

from meshwise.mesh.seam import Headers
from meshwise.mesh.tokens import tokens
from meshwise.service.behaviour import ECHO_PATH, GRPC_PATH
from meshwise.service.plan import HEADER as PLAN_HEADER
from meshwise.service.plan import Plan
from meshwise.study.model import Cell, Protocol, Shape

TENANT_HEADER = "x-tenant"
TENANT = "blue"
OTHER_TENANT = "green"


def method_of(cell: Cell) -> str:
    """gRPC is always POST (gRPC over HTTP/2, section "Requests")."""
    return "POST" if cell.protocol is Protocol.GRPC or cell.request_bytes else "GET"


def path_of(cell: Cell) -> str:
    return GRPC_PATH if cell.protocol is Protocol.GRPC else ECHO_PATH


def plan_of(cell: Cell) -> Plan:
    """What the first node is told to do: answer so many bytes, after the calls that the topology has."""
    if cell.shape is Shape.FANOUT:
        return Plan(bytes=cell.response_bytes, fan=cell.length)
    return Plan(bytes=cell.response_bytes, hops=cell.length - 1)


def request_of(cell: Cell) -> Headers:
    """What `Mesh.request` answers for every mesh."""
    headers = (
        ("authorization", f"Bearer {tokens().valid}"),
        (TENANT_HEADER, TENANT),
        (PLAN_HEADER, str(plan_of(cell))),
    )
    return Headers(method_of(cell), path_of(cell), headers)
