"""What one xDS stream has asked for and was sent, as values: no socket, no clock, no protobuf.

Both variants of the protocol (envoyproxy.io, "xDS REST and gRPC protocol"):

- delta: resources go singly, each with its version; the proxy subscribes by name or to all, says on a new
  stream which versions it has, and every answer to a response is an ACK or, with words, a NACK.
- state of the world: a response holds all resources of a type that are subscribed to; a request that names
  another response than the last of its type is out of date and is not looked at.

Rules of this file:
- `next_response` gives one response at a time, made from what is wanted now. So a change that comes while
  another is being sent replaces what was not sent yet, and the order begins anew.
- Order: clusters, endpoints, listeners, routes (`XdsKind`). A cluster and its endpoints go away only when
  listeners and routes were answered and none of them was refused: until then something may still refer
  to them. (On a new stream of the state of the world nobody knows what the proxy has, so not there.)
- A cluster that was sent is owed its endpoints, changed or not: a proxy that replaces a cluster waits for
  them (envoy issue 13009; istiod pushes them likewise).
- What was refused is not sent again before something of its type changes, and then all of it is: a proxy may
  have taken a part of what it refused, and only an answer tells what is in force.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshwise.mesh.delivery.resources import NOTHING, ProxyResources, Resource, XdsKind

ALL = "*"
"""Subscribes to every resource of a type."""

_WHOLE = frozenset({XdsKind.CLUSTERS, XdsKind.LISTENERS})
"""Types that a first request without names subscribes to as a whole."""
_REFERRING = (XdsKind.LISTENERS, XdsKind.ROUTES)
_REFERRED = (XdsKind.CLUSTERS, XdsKind.ENDPOINTS)
_ABSENT = ""
"""The version of a resource that the proxy knows not to exist."""
_DOUBTFUL = "?"
"""Of one whose end was refused."""


@dataclass(frozen=True)
class DeltaRequest:
    kind: XdsKind
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial: Mapping[str, str] = field(default_factory=dict)
    """On a new stream: versions of what the proxy has."""
    nonce: str = ""
    """Of the response that is answered; empty: none is."""
    error: str | None = None
    """The proxy's words; given: it refused the response."""


@dataclass(frozen=True)
class WorldRequest:
    kind: XdsKind
    names: tuple[str, ...] = ()
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Response:
    kind: XdsKind
    nonce: str
    version: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProxyAnswer:
    """A proxy's answer to a response."""

    response: Response
    error: str | None


@dataclass
class Watch:
    """One type on one stream."""

    whole: bool = False
    names: set[str] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    """Version by name, of what was sent or is said to be there."""
    answered: bool = True
    """Whether the last response was answered."""
    refused: str | None = None
    """The proxy's words, where it refused the last response that it answered."""
    doubtful: set[str] = field(default_factory=set)
    """Names in responses that were refused and were not sent since."""
    refused_version: str = ""
    """Of the last response that was refused."""
    due: bool = True
    """A response is owed, even an empty one."""
    last: str = ""
    """The nonce of the last response."""

    @property
    def at_rest(self) -> bool:
        return self.answered and self.refused is None

    def wanted(self, target: ProxyResources, kind: XdsKind) -> dict[str, Resource]:
        """What is subscribed to and there."""
        found = target.get(kind, NOTHING).by_name
        if self.whole:
            return dict(found)
        return {name: found[name] for name in sorted(self.names) if name in found}


class Exchange(ABC):
    """The state of one stream; the two variants differ in what a request means and what goes together."""

    def __init__(self) -> None:
        self._watches: dict[XdsKind, Watch] = {}
        self._unanswered: dict[str, Response] = {}
        self._owed: set[str] = set()
        self._nonces = itertools.count(1)
        self.out_of_date = 0
        """Requests that named a response which was never sent or is not the last any more."""

    def next_response(self, target: ProxyResources) -> Response | None:
        """What has to be sent now, or None; it counts as sent."""
        for kind in XdsKind:
            if (watch := self._watches.get(kind)) and (response := self._make(kind, watch, target)):
                self._unanswered[response.nonce] = response
                watch.last, watch.answered, watch.due = response.nonce, False, False
                names = [each.name for each in response.resources]
                if kind is XdsKind.CLUSTERS:
                    self._owed.update(names)
                elif kind is XdsKind.ENDPOINTS:
                    self._owed.difference_update(names)
                return response
        return None

    @property
    def at_rest(self) -> bool:
        """Whether every response was answered."""
        return not self._unanswered

    @property
    def refused(self) -> dict[XdsKind, str]:
        """The proxy's words, for types whose last answered response it refused."""
        return {kind: watch.refused for kind, watch in self._watches.items() if watch.refused is not None}

    @abstractmethod
    def receive(self, request: Any) -> ProxyAnswer | None:
        """The answer to a response that the request is, if it is one. Of the variant's own requests."""

    @abstractmethod
    def _make(self, kind: XdsKind, watch: Watch, target: ProxyResources) -> Response | None: ...

    def _nonce(self) -> str:
        return str(next(self._nonces))

    def _may_remove(self, kind: XdsKind, target: ProxyResources) -> bool:
        """Whether nothing refers any more to what is to go."""
        if kind not in _REFERRED:
            return True
        if XdsKind.LISTENERS not in self._watches:  # a new stream asks for one type after the other
            return False
        referring = [each for each in _REFERRING if each in self._watches]
        if any(not self._watches[each].at_rest for each in referring):
            return False
        if any(self._differs(each, target) or self._gone(each, target) for each in referring):
            return False
        return kind is XdsKind.CLUSTERS or not self._gone(XdsKind.CLUSTERS, target)

    def _gone(self, kind: XdsKind, target: ProxyResources) -> list[str]:
        """What the proxy still has and should not have any more."""
        watch = self._watches.get(kind)
        if watch is None:
            return []
        there = target.get(kind, NOTHING).by_name
        return sorted(
            name for name, version in watch.sent.items() if version != _ABSENT and name not in there
        )

    def _differs(self, kind: XdsKind, target: ProxyResources) -> bool:
        watch = self._watches[kind]
        wanted = watch.wanted(target, kind)
        return any(watch.sent.get(each.name) != each.version for each in wanted.values())

    def _answer(self, nonce: str, error: str | None) -> ProxyAnswer | None:
        """Notes the answer to a response; None when there was none with this nonce."""
        response = self._unanswered.pop(nonce, None)
        if response is None:
            return None
        watch = self._watches[response.kind]
        if nonce == watch.last:
            watch.answered = True
        watch.refused = error
        if error is not None:
            watch.doubtful.update(each.name for each in response.resources)
            watch.doubtful.update(response.removed)
            watch.sent.update(dict.fromkeys(response.removed, _DOUBTFUL))
            watch.refused_version = response.version
        return ProxyAnswer(response, error)


class DeltaExchange(Exchange):
    """Of a stream of DeltaDiscoveryRequests."""

    def receive(self, request: DeltaRequest) -> ProxyAnswer | None:
        """The answer to a response that the request is, if it is one. Subscriptions count whatever the nonce
        says."""
        answer = None
        watch = self._watches.get(request.kind)
        if watch is None:
            watch = self._begin(request)
        else:
            if request.nonce:
                answer = self._answer(request.nonce, request.error)
                self.out_of_date += answer is None
            self._subscribe(watch, request.subscribe)
        for name in request.unsubscribe:
            if name == ALL:
                watch.whole = False
            watch.names.discard(name)
            if not watch.whole:
                watch.sent.pop(name, None)
        if ALL in request.unsubscribe:
            watch.sent = {name: version for name, version in watch.sent.items() if name in watch.names}
        return answer

    def _begin(self, request: DeltaRequest) -> Watch:
        """The first request of a type on this stream; a nonce in it is of another stream."""
        names = set(request.subscribe) - {ALL}
        whole = ALL in request.subscribe or (not request.subscribe and request.kind in _WHOLE)
        initial = {name: version for name, version in request.initial.items() if whole or name in names}
        watch = self._watches[request.kind] = Watch(whole, names, initial, due=whole)
        return watch

    def _subscribe(self, watch: Watch, names: tuple[str, ...]) -> None:
        """What is asked for is sent, even if it was before."""
        for name in names:
            if name == ALL:
                watch.whole = watch.due = True
            else:
                watch.names.add(name)
                watch.sent.pop(name, None)

    def _make(self, kind: XdsKind, watch: Watch, target: ProxyResources) -> Response | None:
        wanted, version = watch.wanted(target, kind), target.get(kind, NOTHING).version
        again = set(self._owed) if kind is XdsKind.ENDPOINTS else set[str]()
        if version != watch.refused_version:
            again |= watch.doubtful
        resources = tuple(
            each
            for each in wanted.values()
            if watch.sent.get(each.name) != each.version or each.name in again
        )
        removed = self._gone(kind, target) if self._may_remove(kind, target) else []
        if version == watch.refused_version:
            removed = [name for name in removed if name not in watch.doubtful]
        unknown = [name for name in sorted(watch.names) if name not in wanted and name not in watch.sent]
        if not (resources or removed or unknown or watch.due):
            return None
        watch.sent.update({each.name: each.version for each in resources})
        watch.doubtful.difference_update(removed, (each.name for each in resources))
        for name in removed:
            del watch.sent[name]
        watch.sent.update(
            dict.fromkeys([name for name in (*removed, *unknown) if name in watch.names], _ABSENT)
        )
        return Response(kind, self._nonce(), version, resources, (*removed, *unknown))


class WorldExchange(Exchange):
    """Of a stream of DiscoveryRequests."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[XdsKind, dict[str, Resource]] = {}
        """What was sent last of the types that are referred to."""

    def receive(self, request: WorldRequest) -> ProxyAnswer | None:
        watch = self._watches.get(request.kind)
        answer = None
        if watch is None:
            watch = Watch(whole=not request.names and request.kind in _WHOLE)
            self._watches[request.kind] = watch
        elif request.nonce != watch.last:
            self.out_of_date += 1
            return None
        else:
            answer = self._answer(request.nonce, request.error)
        names = set(request.names) - {ALL}
        watch.whole = watch.whole or ALL in request.names
        if names - watch.names:
            watch.due = True
        watch.names = names
        if not watch.whole:
            watch.sent = {name: version for name, version in watch.sent.items() if name in names}
        return answer

    def _make(self, kind: XdsKind, watch: Watch, target: ProxyResources) -> Response | None:
        wanted = watch.wanted(target, kind)
        gone = self._gone(kind, target)
        held: dict[str, Resource] = {}
        if gone and not self._may_remove(kind, target):
            held = {name: self._kept[kind][name] for name in gone}
        owed = kind is XdsKind.ENDPOINTS and not self._owed.isdisjoint(wanted)
        version = target.get(kind, NOTHING).version
        again = watch.refused is not None and version != watch.refused_version
        due = watch.due and bool(watch.whole or wanted)  # a proxy takes an empty answer to names for a fault
        if not (due or owed or again or self._differs(kind, target) or len(gone) > len(held)):
            return None
        if again:
            watch.refused_version = version  # once, until it is answered
        resources = {**wanted, **held}
        watch.sent = {each.name: each.version for each in resources.values()}
        if kind in _REFERRED:
            self._kept[kind] = resources
        # Older responses of the type will not be answered: the proxy answers the last one.
        for nonce in [nonce for nonce, each in self._unanswered.items() if each.kind is kind]:
            del self._unanswered[nonce]
        if kind is XdsKind.SECRETS:  # each by itself, so that one that is renewed does not rename the other
            version = "+".join(each.version for each in resources.values())
        return Response(kind, self._nonce(), version, tuple(resources.values()))


def all_due(exchange: Exchange, target: ProxyResources) -> Iterator[Response]:
    """Every response that is due, one after the other."""
    while response := exchange.next_response(target):
        yield response
