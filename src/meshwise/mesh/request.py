"""The request that every cell sends: the same bytes in every posture and every mesh.

What `strict+fine` demands (method, path, header, token) is always there, so that the difference
between two postures is the posture and not the size of the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from meshwise.mesh.tokens import tokens
from meshwise.service.behaviour import ECHO_PATH, GRPC_PATH, STREAM_PATHS
from meshwise.service.plan import HEADER as PLAN_HEADER
from meshwise.service.plan import Plan
from meshwise.study.model import Cell, Protocol, Streaming, TopologyKind, Workload


@dataclass(frozen=True)
class Headers:
    """What every request of a cell carries so that each posture measures the same bytes."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]]


TENANT_HEADER = "x-tenant"
TENANT = "blue"
OTHER_TENANT = "green"
ABSENT_HEADER = "x-absent"
"""No request carries it."""


def method_of(cell: Cell) -> str:
    """gRPC is always POST (gRPC over HTTP/2, section "Requests")."""
    return "POST" if cell.protocol is Protocol.GRPC or cell.request_bytes else "GET"


def path_of(cell: Cell) -> str:
    if cell.protocol is not Protocol.GRPC:
        return ECHO_PATH
    return STREAM_PATHS.get(cell.streaming, GRPC_PATH)


def plan_of(cell: Cell) -> Plan:
    """What the first node is told to do: answer so many bytes, after the calls that the topology has."""
    if cell.topology.graph is not None:
        return Plan(bytes=cell.response_bytes, script=cell.topology.name)
    if cell.shape is TopologyKind.FANOUT:
        return Plan(bytes=cell.response_bytes, fan=cell.length)
    messages = cell.messages if cell.streaming is Streaming.SERVER else 1
    return Plan(bytes=cell.response_bytes, hops=cell.length - 1, messages=messages)


def request_of(cell: Cell) -> Headers:
    """What `Mesh.request` answers for every mesh."""
    headers = (
        ("authorization", f"Bearer {tokens().valid}"),
        (TENANT_HEADER, TENANT),
        (PLAN_HEADER, str(plan_of(cell))),
    )
    return Headers(method_of(cell), path_of(cell), headers)


def of_another_tenant(request: Headers) -> Headers:
    """The same for another tenant: what `fine` forbids."""
    return replace(
        request,
        headers=tuple(
            (name, OTHER_TENANT if name == TENANT_HEADER else value) for name, value in request.headers
        ),
    )


# --- what least privilege lets through at a workload ------------------------------------------------


@dataclass(frozen=True)
class Allowance:
    """These requests, for these callers."""

    callers: tuple[Workload, ...]
    requests: tuple[tuple[str, str], ...]
    """(method, path) of each."""
    never_matches: bool = False
    """Its caller does not exist."""


def no_caller(number: int) -> str:
    """Name of one that does not exist."""
    return f"other-{number:04d}"


def of_no_caller(number: int, requests: tuple[tuple[str, str], ...]) -> Allowance:
    """For a caller that does not exist: an entry that has to be scanned and never matches."""
    name = no_caller(number)
    return Allowance((Workload(name, name, name),), requests, never_matches=True)


@lru_cache(maxsize=4096)
def allowances(cell: Cell, workload: Workload) -> tuple[Allowance, ...]:
    """Requests that have the same callers stand together, so that each request stands once. A graph node has
    one request, its echo, for all of its callers. `workload`: as the cell's topology has it, and called."""
    topology = cell.topology
    if not workload.operations:
        return (Allowance(topology.callers(workload.name), ((method_of(cell), path_of(cell)),)),)
    callers: dict[tuple[str, str], list[str]] = {}
    for operation in workload.operations:
        callers.setdefault(operation.request(cell.protocol), []).extend(operation.callers)
    together: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for request, names in callers.items():
        together.setdefault(tuple(dict.fromkeys(names)), []).append(request)
    return tuple(
        Allowance(tuple(topology[name] for name in names), tuple(requests))
        for names, requests in together.items()
    )


def allowance_for(cell: Cell, caller: Workload, callee: Workload) -> Allowance:
    """The first that lets this caller through."""
    return next(each for each in allowances(cell, callee) if caller in each.callers)
