"""Streams of xDS as values: whatever happens in whatever order, a proxy ends with what it should have, and is
never sent what refers to something that it does not have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.xds_model import WHOLE, PaperProxy, resource, target

from meshwise.mesh.delivery.resources import ProxyResources, Resource, XdsKind
from meshwise.mesh.delivery.subscriptions import (
    DeltaExchange,
    DeltaRequest,
    Response,
    WorldExchange,
    WorldRequest,
    all_due,
)

CLUSTERS = [f"c{number}" for number in range(4)]
TABLES = ["r0", "r1"]


@st.composite
def targets(draw: Callable[..., object]) -> ProxyResources:
    """A configuration in which everything that is referred to is there."""
    clusters = draw(st.lists(st.sampled_from(CLUSTERS), min_size=1, unique=True))
    assert isinstance(clusters, list)
    some = st.lists(st.sampled_from(sorted(clusters)), max_size=2, unique=True)
    version = st.integers(0, 2)
    made = [resource(name, eds=name != "c0", version=draw(version)) for name in sorted(clusters)]
    return target(
        f"v{draw(st.integers(0, 10**9))}",
        {
            XdsKind.CLUSTERS: made,
            XdsKind.ENDPOINTS: [resource(each.name, at=draw(version)) for each in made if each.name != "c0"],
            XdsKind.ROUTES: [resource(name, clusters=draw(some), version=draw(version)) for name in TABLES],
            XdsKind.LISTENERS: [
                resource(
                    name,
                    clusters=draw(some),
                    routes=draw(st.lists(st.sampled_from(TABLES), max_size=2, unique=True)),
                )
                for name in draw(st.lists(st.sampled_from(["l0", "l1"]), unique=True))  # type: ignore[attr-defined]
            ],
        },
    )


STEPS = st.lists(
    st.one_of(
        targets(),
        st.sampled_from(["serve", "serve", "deliver", "deliver", "take", "take", "break", "stray"]),
        st.sampled_from(["refuse"]),
    ),
    max_size=60,
)


@dataclass
class Course:
    """One proxy led through steps."""

    proxy: PaperProxy
    wanted: ProxyResources
    may_refuse: frozenset[XdsKind]
    out_of_date: int = 0
    broken: list[str] = field(default_factory=list)

    def step(self, what: object) -> None:
        proxy = self.proxy
        if isinstance(what, dict):
            self.wanted = what
        elif what == "serve":
            proxy.serve(self.wanted)
        elif what == "deliver":
            proxy.deliver()
        elif what == "take":
            proxy.take()
        elif what == "refuse":
            proxy.take(refuse=bool(proxy.to_proxy) and proxy.to_proxy[0].kind in self.may_refuse)
        elif what == "break":
            proxy.connect()
        else:  # an answer to a response that was never sent
            stray: DeltaRequest | WorldRequest = (
                DeltaRequest(XdsKind.CLUSTERS, nonce="stray")
                if proxy.delta
                else WorldRequest(XdsKind.CLUSTERS, nonce="stray")
            )
            before = proxy.exchange.out_of_date
            if proxy.deliver():  # the first request of a type opens it, whatever its nonce
                assert proxy.exchange.receive(stray) is None  # type: ignore[arg-type]
                self.out_of_date += proxy.exchange.out_of_date - before
        if proxy.dangling:
            self.broken.append(f"{what}: {proxy.dangling}")


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "world"])
@settings(max_examples=120, deadline=None)
@given(first=targets(), steps=STEPS, last=targets())
def test_a_proxy_ends_with_what_it_should_have(
    delta: bool, first: ProxyResources, steps: list[object], last: ProxyResources
) -> None:
    """Refusals of any type, broken streams and strays included; after those nothing is refused."""
    course = Course(PaperProxy(delta), first, frozenset(XdsKind))
    course.proxy.settle(first)
    for step in steps:
        course.step(step)
    proxy = course.proxy
    last = {kind: replace(each, version="last") for kind, each in last.items()}
    proxy.settle(last)
    for kind in WHOLE:
        assert proxy.has[kind] == last[kind].by_name
    for kind in (XdsKind.ENDPOINTS, XdsKind.ROUTES):
        wanted = {name: each for name, each in last[kind].by_name.items() if name in proxy.names(kind)}
        assert proxy.has[kind] == wanted
    assert not proxy.warming, "every cluster has its endpoints"
    assert proxy.exchange.at_rest
    assert proxy.exchange.refused == {}
    assert proxy.exchange.next_response(last) is None


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "world"])
@settings(max_examples=120, deadline=None)
@given(first=targets(), steps=STEPS, last=targets())
def test_nothing_refers_to_what_is_not_there(
    delta: bool, first: ProxyResources, steps: list[object], last: ProxyResources
) -> None:
    """Make before break, in any interleaving; what refers to clusters may be refused. A new stream of the
    state of the world does not say what the proxy has, so there it cannot be held to."""
    course = Course(PaperProxy(delta), first, frozenset({XdsKind.LISTENERS, XdsKind.ROUTES}))
    course.proxy.settle(first)
    for step in [*steps, last]:
        if delta or step != "break":
            course.step(step)
    for _ in range(200):
        for step in ("deliver", "serve", "take"):
            course.step(step)
    assert course.broken == []


# --- what goes over a stream, message by message -------------------------------------------------------


def simple(version: str, **listeners: int) -> ProxyResources:
    return target(
        version,
        {
            XdsKind.CLUSTERS: [resource("c", eds=True)],
            XdsKind.ENDPOINTS: [resource("c", at=1)],
            XdsKind.LISTENERS: [resource(name, at=at) for name, at in listeners.items()],
            XdsKind.ROUTES: [resource("r", at=1)],
        },
    )


def told(responses: list[Response]) -> list[tuple[str, list[str], tuple[str, ...]]]:
    return [(each.kind.short, [one.name for one in each.resources], each.removed) for each in responses]


def asked(exchange: DeltaExchange) -> None:
    for kind in (XdsKind.ROUTES, XdsKind.LISTENERS, XdsKind.ENDPOINTS, XdsKind.CLUSTERS):
        names = {XdsKind.ROUTES: ("r",), XdsKind.ENDPOINTS: ("c",)}.get(kind, ())
        exchange.receive(DeltaRequest(kind, names))


def answered(exchange: DeltaExchange, responses: list[Response]) -> None:
    for each in responses:
        assert exchange.receive(DeltaRequest(each.kind, nonce=each.nonce)) is not None


def test_what_is_referred_to_comes_first_whatever_was_asked_first() -> None:
    exchange = DeltaExchange()
    asked(exchange)
    assert told(list(all_due(exchange, simple("v1", l=1)))) == [
        ("Cluster", ["c"], ()), ("ClusterLoadAssignment", ["c"], ()), ("Listener", ["l"], ()),
        ("RouteConfiguration", ["r"], ()),
    ]  # fmt: skip


def test_only_what_differs_is_sent() -> None:
    exchange = DeltaExchange()
    asked(exchange)
    answered(exchange, list(all_due(exchange, simple("v1", l=1, m=1))))
    assert list(all_due(exchange, simple("v2", l=1, m=1))) == []
    (response,) = all_due(exchange, simple("v3", l=1, m=2))
    assert (told([response]), response.version) == ([("Listener", ["m"], ())], "v3")
    (response,) = all_due(exchange, simple("v4", l=1))
    assert told([response]) == [("Listener", [], ("m",))]


def test_a_refusal_is_kept_until_the_type_is_accepted_and_is_not_repeated() -> None:
    exchange = DeltaExchange()
    asked(exchange)
    answered(exchange, list(all_due(exchange, simple("v1", l=1))))
    (response,) = all_due(exchange, simple("v2", l=2))
    answer = exchange.receive(DeltaRequest(XdsKind.LISTENERS, nonce=response.nonce, error="no such filter"))
    assert answer is not None
    assert answer.error == "no such filter"
    assert exchange.refused == {XdsKind.LISTENERS: "no such filter"}
    assert list(all_due(exchange, simple("v2", l=2))) == []
    (response,) = all_due(exchange, simple("v3", l=1))
    answered(exchange, [response])
    assert exchange.refused == {}


def test_what_was_refused_comes_again_with_the_next_change_of_its_type() -> None:
    """Else an answer to that change would pass for one to all of it."""
    exchange = DeltaExchange()
    asked(exchange)
    answered(exchange, list(all_due(exchange, simple("v1", l=1, m=1, n=1))))
    (response,) = all_due(exchange, simple("v2", l=2, m=2, n=1))
    exchange.receive(DeltaRequest(XdsKind.LISTENERS, nonce=response.nonce, error="l is wrong"))
    (response,) = all_due(exchange, simple("v3", l=2, m=2, n=3))
    assert told([response]) == [("Listener", ["l", "m", "n"], ())]
    exchange.receive(DeltaRequest(XdsKind.LISTENERS, nonce=response.nonce, error="l is wrong still"))
    (response,) = all_due(exchange, simple("v4", l=1, m=2, n=3))
    assert told([response]) == [("Listener", ["l", "m", "n"], ())]
    answered(exchange, [response])
    assert exchange.refused == {}
    assert list(all_due(exchange, simple("v5", l=1, m=2, n=3))) == []


def test_a_new_stream_is_sent_what_the_proxy_does_not_have_yet() -> None:
    wanted = simple("v2", l=2)
    has = {each.name: each.version for each in simple("v1", l=1)[XdsKind.LISTENERS].by_name.values()}
    clusters = {each.name: each.version for each in wanted[XdsKind.CLUSTERS].by_name.values()}
    exchange = DeltaExchange()
    exchange.receive(DeltaRequest(XdsKind.CLUSTERS, initial={**clusters, "gone": "1"}))
    exchange.receive(DeltaRequest(XdsKind.LISTENERS, initial=has, nonce="of another stream"))
    assert told(list(all_due(exchange, wanted))) == [("Cluster", [], ()), ("Listener", ["l"], ())]
    for nonce in ("1", "2"):
        kind = XdsKind.CLUSTERS if nonce == "1" else XdsKind.LISTENERS
        exchange.receive(DeltaRequest(kind, nonce=nonce))
    assert told(list(all_due(exchange, wanted))) == [("Cluster", [], ("gone",))], "when nothing refers to it"


def test_a_cluster_is_owed_its_endpoints_whichever_is_asked_first() -> None:
    wanted = simple("v1", l=1)
    endpoints = {each.name: each.version for each in wanted[XdsKind.ENDPOINTS].by_name.values()}
    for late in (True, False):
        exchange = DeltaExchange()
        first, second = XdsKind.CLUSTERS, XdsKind.ENDPOINTS
        for kind in (first, second) if late else (second, first):
            names, initial = (("c",), endpoints) if kind is XdsKind.ENDPOINTS else ((), {})
            exchange.receive(DeltaRequest(kind, names, initial=initial))
        assert [each.kind for each in all_due(exchange, wanted)] == [first, second]


def test_a_name_that_is_nowhere_is_said_to_be_nowhere_once() -> None:
    exchange = DeltaExchange()
    exchange.receive(DeltaRequest(XdsKind.ROUTES, ("r", "none")))
    assert told(list(all_due(exchange, simple("v1")))) == [("RouteConfiguration", ["r"], ("none",))]
    appeared = target("v2", {XdsKind.ROUTES: [resource("r", at=1), resource("none", at=1)]})
    assert told(list(all_due(exchange, appeared))) == [("RouteConfiguration", ["none"], ())]


def test_an_answer_to_no_response_changes_nothing_and_is_counted() -> None:
    exchange = DeltaExchange()
    asked(exchange)
    responses = list(all_due(exchange, simple("v1", l=1)))
    assert exchange.receive(DeltaRequest(XdsKind.LISTENERS, nonce="99", error="no")) is None
    assert exchange.refused == {}
    assert not exchange.at_rest
    assert exchange.out_of_date == 1
    answered(exchange, responses)
    assert exchange.at_rest


def test_the_world_is_sent_whole_and_only_the_last_of_it_is_answered() -> None:
    exchange = WorldExchange()
    exchange.receive(WorldRequest(XdsKind.LISTENERS))
    (first,) = all_due(exchange, simple("v1", l=1, m=1))
    (second,) = all_due(exchange, simple("v2", l=2, m=1))
    assert (told([second]), second.version) == ([("Listener", ["l", "m"], ())], "v2")
    assert exchange.receive(WorldRequest(XdsKind.LISTENERS, nonce=first.nonce)) is None
    assert exchange.out_of_date == 1
    assert not exchange.at_rest
    answer = exchange.receive(WorldRequest(XdsKind.LISTENERS, nonce=second.nonce, error="no"))
    assert answer is not None
    assert answer.response is second
    assert exchange.at_rest
    assert exchange.refused == {XdsKind.LISTENERS: "no"}


def test_secrets_have_versions_of_their_own() -> None:
    def secret(at: int) -> dict[str, Resource]:
        return {"default": resource("default", at=at)}

    exchange = WorldExchange()
    exchange.receive(WorldRequest(XdsKind.SECRETS, ("default",)))
    wanted = target("", {XdsKind.SECRETS: [*secret(1).values(), resource("ROOTCA", at=1)]})
    (response,) = all_due(exchange, wanted)
    assert response.version == secret(1)["default"].version
    changed = target("", {XdsKind.SECRETS: [*secret(1).values(), resource("ROOTCA", at=2)]})
    assert list(all_due(exchange, changed)) == [], "of another name"
