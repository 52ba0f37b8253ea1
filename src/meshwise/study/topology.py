"""The pods of a cell and who calls whom. Pure values, the same for every mesh and testbed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from meshwise.study.graph.model import ALL_PORTS, Call, Concurrent, GraphService, Ports, ServiceGraph
from meshwise.study.protocol import Protocol
from meshwise.study.security import Authorization, MtlsMode

CLIENT = "client"
BACKEND, STORES = "backend", "stores"
POSTGRES_PORT, REDIS_PORT = 5432, 6379


class TopologyKind(StrEnum):
    """The kind of call graph. `length` counts what the comment says."""

    CHAIN = "chain"
    """Nodes behind the client, each calling the next (1 = point to point)."""
    FANOUT = "fanout"
    """Leaves that one node calls at once."""
    SEQUENTIAL = "fanout-sequential"
    """Leaves that one node calls one after another."""
    AGGREGATION = "aggregation"
    """Leaves that one node calls at once, and whose answers it passes on, all in one."""
    TREE = "tree"
    """Levels of a binary tree; each node calls its two children at once."""
    GRAPH = "graph"
    """A service graph from a file."""
    BANK = "bank"
    """The reference application, with its database and cache."""


class GraphPosition(StrEnum):
    """Where in the graph a workload stands."""

    CLIENT = "client"
    EDGE = "edge"
    """Called by the client."""
    INNER = "inner"
    LEAF = "leaf"
    """Calls no other workload."""


@dataclass(frozen=True)
class Operation:
    """What a workload is asked to do: how the request for it looks, and who sends it."""

    method: str
    path: str
    grpc_path: str
    """`/package.Service/Method`; gRPC is always POST."""
    callers: tuple[str, ...]
    """Names of workloads."""

    def request(self, protocol: Protocol) -> tuple[str, str]:
        """Method and path."""
        return ("POST", self.grpc_path) if protocol is Protocol.GRPC else (self.method, self.path)


@dataclass(frozen=True)
class Workload:
    """A pod with an identity."""

    name: str
    namespace: str
    service_account: str
    calls: tuple[str, ...] = ()
    """Names of the workloads that it calls, in order."""
    ports: Ports = ALL_PORTS
    """What its service declares."""
    mtls: MtlsMode | None = None
    """What it demands of its callers whatever the posture says; None: what the posture says."""
    authorization: Authorization | None = None
    """Likewise."""
    operations: tuple[Operation, ...] = ()
    """What least privilege allows its callers; empty: the echo of a graph node, to all of them."""

    @property
    def host(self) -> str:
        return f"{self.name}.{self.namespace}.svc.cluster.local"

    def port(self, protocol: Protocol) -> int:
        """Where it is called in a cell of this protocol; a store, which speaks only its own, in that."""
        ports = dict(self.ports)
        return ports.get(protocol, self.ports[0][1])

    def speaks(self, protocol: Protocol) -> Protocol:
        """What it is called in, in a cell of this protocol."""
        return protocol if protocol in dict(self.ports) else self.ports[0][0]


@dataclass(frozen=True)
class Topology:
    """The first workload is the client, where the instrument runs; it calls the second."""

    shape: TopologyKind
    length: int
    given: ServiceGraph | None = None

    @property
    def name(self) -> str:
        """`chain3`, `tree2`, `graph-shop`, `bank`."""
        match self.shape:
            case TopologyKind.GRAPH:
                assert self.given is not None
                return f"graph-{self.given.name}"
            case TopologyKind.BANK:
                return "bank"
            case _:
                return f"{self.shape}{self.length}"

    @cached_property
    def graph(self) -> ServiceGraph | None:
        """What each node does; None where the plan of a request says it (chain, fan-out) and for the bank."""
        match self.shape:
            case TopologyKind.GRAPH:
                return self.given
            case TopologyKind.SEQUENTIAL | TopologyKind.AGGREGATION:
                return _star(self.name, self.length, at_once=self.shape is TopologyKind.AGGREGATION)
            case TopologyKind.TREE:
                return _tree(self.name, self.length)
            case _:
                return None

    @cached_property
    def workloads(self) -> tuple[Workload, ...]:
        """The client in namespace `frontend`; all others with a service account each."""
        if self.shape is TopologyKind.BANK:
            nodes = _BANK
        elif self.graph is not None:
            nodes = tuple(_workload(service) for service in self.graph.services)
        else:
            nodes = _planned(self.shape, self.length)
        return (Workload(CLIENT, "frontend", CLIENT, (nodes[0].name,)), *nodes)

    @property
    def entry(self) -> Workload:
        """The workload that the client calls."""
        return self.workloads[1]

    def __getitem__(self, name: str) -> Workload:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, Workload]:
        return {workload.name: workload for workload in self.workloads}

    def callers(self, name: str) -> tuple[Workload, ...]:
        return tuple(workload for workload in self.workloads if name in workload.calls)

    def place(self, name: str) -> GraphPosition:
        if name == CLIENT:
            return GraphPosition.CLIENT
        if name == self.entry.name:
            return GraphPosition.EDGE
        return GraphPosition.INNER if self[name].calls else GraphPosition.LEAF

    @cached_property
    def depths(self) -> Mapping[str, int]:
        """Calls on the shortest way from the client to each workload (client 0, entry 1)."""
        found = {CLIENT: 0}
        front = [CLIENT]
        while front:
            reached = [callee for name in front for callee in self[name].calls if callee not in found]
            found |= {
                callee: found[name] + 1 for name in front for callee in self[name].calls if callee in reached
            }
            front = list(dict.fromkeys(reached))
        return found


def _planned(shape: TopologyKind, length: int) -> tuple[Workload, ...]:
    names = [f"node-{i}" for i in range(1, length + 1)]
    if shape is TopologyKind.FANOUT:
        names = ["node-1", *(f"leaf-{i}" for i in range(1, length + 1))]

    def calls(index: int) -> tuple[str, ...]:
        if shape is TopologyKind.CHAIN:
            return tuple(names[index + 1 : index + 2])
        return tuple(names[1:]) if index == 0 else ()

    return tuple(Workload(name, BACKEND, name, calls(index)) for index, name in enumerate(names))


def _workload(service: GraphService) -> Workload:
    return Workload(
        service.name, service.namespace, service.name, service.callees, service.ports, service.mtls,
        service.authorization,
    )  # fmt: skip


def _star(name: str, leaves: int, at_once: bool) -> ServiceGraph:
    calls = tuple(Call(f"leaf-{i}") for i in range(1, leaves + 1))
    middle = GraphService("node-1", script=(Concurrent(calls),) if at_once else calls, aggregates=at_once)
    return ServiceGraph(name, (middle, *(GraphService(call.service) for call in calls)))


def _tree(name: str, levels: int) -> ServiceGraph:
    """Nodes are numbered level by level: the children of `node-k` are `node-2k` and `node-2k+1`."""
    count = 2**levels - 1

    def script(k: int) -> tuple[Concurrent, ...]:
        children = tuple(Call(f"node-{child}") for child in (2 * k, 2 * k + 1) if child <= count)
        return (Concurrent(children),) if children else ()

    return ServiceGraph(name, tuple(GraphService(f"node-{k}", script=script(k)) for k in range(1, count + 1)))


def _bank() -> tuple[Workload, ...]:
    """See docs/bank.md. The stores live in a namespace of their own, as a database team's would."""
    spoken = tuple(pair for pair in ALL_PORTS if pair[0] is not Protocol.TCP)
    stores = ("postgres", "redis")
    called = {
        "edge": ("users", "accounts", "transactions", "notifications"),
        "users": stores,
        "accounts": stores,
        "transactions": ("users", "notifications", *stores),
        "notifications": ("postgres",),
    }
    services = [
        Workload(name, BACKEND, name, calls, spoken, operations=_asked(name))
        for name, calls in called.items()
    ]
    ports = {"postgres": POSTGRES_PORT, "redis": REDIS_PORT}
    return (
        *services,
        *(Workload(name, STORES, name, (), ((Protocol.TCP, port),)) for name, port in ports.items()),
    )


_BANK_CALLS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "edge": {CLIENT: ("profile", "transfer", "notify", "statement")},
    "users": {"edge": ("profile",), "transactions": ("reserve", "release")},
    "accounts": {"edge": ("balance",)},
    "transactions": {"edge": ("transfer", "notify", "recent")},
    "notifications": {"edge": ("recent",), "transactions": ("send", "cancel")},
}
"""Service to caller to operations, as `service/bank` calls them."""


def _asked(service: str) -> tuple[Operation, ...]:
    return tuple(
        Operation("POST", f"/{service}/{name}", f"/meshwise.bank.{service.capitalize()}/{name}", (caller,))
        for caller, names in _BANK_CALLS[service].items()
        for name in names
    )


_BANK = _bank()
