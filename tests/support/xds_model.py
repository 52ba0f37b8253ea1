"""A proxy on paper: takes xDS responses as Envoy does, and asks for what its configuration refers to.

A resource's body is JSON: clusters say whether they have endpoints by EDS, listeners and tables of routes
which tables and clusters they refer to. Messages lie in queues both ways, so that they pass each other.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshwise.mesh.delivery.resources import KindResources, ProxyResources, Resource, XdsKind, digest_of
from meshwise.mesh.delivery.subscriptions import (
    DeltaExchange,
    DeltaRequest,
    ProxyAnswer,
    Response,
    WorldExchange,
    WorldRequest,
)

WHOLE = (XdsKind.CLUSTERS, XdsKind.LISTENERS)
NAMED = (XdsKind.ENDPOINTS, XdsKind.ROUTES)


def resource(name: str, **body: object) -> Resource:
    data = json.dumps(body, sort_keys=True).encode()
    return Resource(name, digest_of(data), data)


def target(version: str, parts: Mapping[XdsKind, Iterable[Resource]]) -> ProxyResources:
    return {
        kind: KindResources(version, {each.name: each for each in found}) for kind, found in parts.items()
    }


@dataclass
class PaperProxy:
    """`delta`: which variant it speaks. What it has outlives its streams."""

    delta: bool
    has: dict[XdsKind, dict[str, Resource]] = field(default_factory=lambda: {kind: {} for kind in XdsKind})
    warming: set[str] = field(default_factory=set)
    """Clusters that wait for their endpoints."""

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        """A new stream; what lay in the queues of the former one is lost."""
        self.exchange: DeltaExchange | WorldExchange = DeltaExchange() if self.delta else WorldExchange()
        self.to_server: deque[DeltaRequest | WorldRequest] = deque()
        self.to_proxy: deque[Response] = deque()
        self.answers: list[ProxyAnswer] = []
        self._nonce: dict[XdsKind, str] = {}
        self._asked: dict[XdsKind, set[str]] = {}
        for kind in WHOLE:
            self._first(kind, set())
        for kind in NAMED:
            if names := self.names(kind):
                self._first(kind, names)

    def names(self, kind: XdsKind) -> set[str]:
        """What of this type its configuration refers to."""
        if kind is XdsKind.ENDPOINTS:
            return {name for name, each in self.has[XdsKind.CLUSTERS].items() if json.loads(each.body)["eds"]}
        return {
            table
            for each in self.has[XdsKind.LISTENERS].values()
            for table in json.loads(each.body)["routes"]
        }

    @property
    def dangling(self) -> set[str]:
        """Clusters that listeners or routes refer to and that are not there."""
        wanted = {
            cluster
            for kind in (XdsKind.LISTENERS, XdsKind.ROUTES)
            for each in self.has[kind].values()
            for cluster in json.loads(each.body)["clusters"]
        }
        return wanted - self.has[XdsKind.CLUSTERS].keys()

    def _first(self, kind: XdsKind, names: set[str]) -> None:
        self._asked[kind] = set(names)
        if self.delta:
            initial = {name: each.version for name, each in self.has[kind].items()}
            self.to_server.append(DeltaRequest(kind, tuple(sorted(names)), initial=initial))
        else:
            self.to_server.append(WorldRequest(kind, tuple(sorted(names))))

    def serve(self, wanted: ProxyResources) -> bool:
        """The server sends its next response; False: nothing is due."""
        response = self.exchange.next_response(wanted)
        if response:
            self.to_proxy.append(response)
        return response is not None

    def deliver(self) -> bool:
        """The next request reaches the server; False: there is none."""
        if not self.to_server:
            return False
        if answer := self.exchange.receive(self.to_server.popleft()):  # type: ignore[arg-type]
            self.answers.append(answer)
        return True

    def take(self, *, refuse: bool = False) -> bool:
        """The next response reaches the proxy; False: there is none."""
        if not self.to_proxy:
            return False
        response = self.to_proxy.popleft()
        kind = response.kind
        if not refuse:
            self._apply(response)
        self._nonce[kind] = response.nonce
        error = "no" if refuse else None
        if self.delta:
            self.to_server.append(DeltaRequest(kind, nonce=response.nonce, error=error))
        else:
            names = tuple(sorted(self._asked[kind]))
            self.to_server.append(WorldRequest(kind, names, response.nonce, error))
        for each in NAMED:
            self._ask(each)
        return True

    def _apply(self, response: Response) -> None:
        kind, has = response.kind, self.has[response.kind]
        given = {each.name: each for each in response.resources}
        if kind is XdsKind.CLUSTERS:
            self.warming |= {
                name for name, each in given.items() if has.get(name) != each and json.loads(each.body)["eds"]
            }
        if kind is XdsKind.ENDPOINTS:
            self.warming -= given.keys()
        if not self.delta and kind in WHOLE:
            has.clear()
        has.update(given)
        for name in response.removed:
            has.pop(name, None)
        self.warming &= self.has[XdsKind.CLUSTERS].keys()
        for each in NAMED:  # what nothing refers to is forgotten
            names = self.names(each)
            self.has[each] = {name: one for name, one in self.has[each].items() if name in names}

    def _ask(self, kind: XdsKind) -> None:
        names, asked = self.names(kind), self._asked.get(kind)
        if asked is None:
            if names:
                self._first(kind, names)
            return
        if names == asked:
            return
        self._asked[kind] = set(names)
        if self.delta:
            self.to_server.append(
                DeltaRequest(kind, tuple(sorted(names - asked)), tuple(sorted(asked - names)))
            )
        else:
            self.to_server.append(WorldRequest(kind, tuple(sorted(names)), self._nonce.get(kind, "")))

    def settle(self, wanted: ProxyResources, *, most: int = 1000) -> None:
        """Everything goes its way until nothing moves."""
        for _ in range(most):
            if not (self.deliver() | self.serve(wanted) | self.take()):
                return
        raise AssertionError("they go on sending for ever")
