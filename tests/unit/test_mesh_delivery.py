"""Delivery by streams over real sockets, with clients in the place of Envoys; and what counts as taken up."""

from __future__ import annotations

import signal
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from tests.support.delivery_conformance import (
    PLAIN,
    REFUSES,
    STRICT,
    WITHIN_S,
    WORDS,
    DeliveryConformance,
    KeptDelivery,
    identity,
    nothing_runs,
    seen_through,
)
from tests.support.xds_client import Clients, XdsClient, control_plane, wait_for

from meshwise.core.errors import MeshwiseError
from meshwise.mesh import commands
from meshwise.mesh.delivery.names import (
    COMMAND_SOCKET,
    CONTROLLER_DIRECTORY,
    SDS_SOCKET,
    SNAPSHOT_FILE,
    XDS_SOCKET,
)
from meshwise.mesh.delivery.resources import XdsKind, read_snapshot
from meshwise.mesh.delivery.seam import DeliveredVersions, Delivery
from meshwise.mesh.delivery.stream import StreamDelivery
from meshwise.mesh.istio import tls
from meshwise.mesh.istio.admin import grown, total
from meshwise.mesh.istio.taken_up import Pushed, left, missing
from meshwise.mesh.istio.translate import translate
from meshwise.study.model import LADDER, Cell

FINE = replace(STRICT, posture=LADDER[4])


def streams(home: Path) -> StreamDelivery:
    directory = home / CONTROLLER_DIRECTORY
    return StreamDelivery(directory, tls.CERTIFICATE_SECRET, tls.ROOT_SECRET, None, WITHIN_S)


def refuse_listeners(came: object) -> str | None:
    """All but the first that it is sent, so that it has something in force."""
    kind, version = came.kind, came.version  # type: ignore[attr-defined]
    return WORDS if kind is XdsKind.LISTENERS and version != "v1" else None


class TestStreamDelivery(DeliveryConformance):
    def make(self, home: Path) -> Delivery:
        return streams(home)

    def bring(self, delivery: Delivery, *given: object, **more: object) -> DeliveredVersions:  # type: ignore[override]
        return super().bring(delivery, *given, **more)  # type: ignore[arg-type]

    def bring_first(self, delivery: Delivery, other: Path) -> None:
        """The control plane does not run yet, and what is brought first is brought to both."""
        assert isinstance(delivery, StreamDelivery)
        one = other.with_name("one")
        delivery.lay_out(other)
        config = translate(seen_through(delivery, PLAIN), "node-1")
        fresh = streams(other.parent)
        fresh.bring(
            {one: replace(config, node="willing"), other: replace(config, node=REFUSES)},
            "v1",
            {directory: identity(directory) for directory in (one, other)},
        )
        delivery.__dict__.update(fresh.__dict__)

    @contextmanager
    def running(self, home: Path, proxies: Mapping[Path, str]) -> Iterator[None]:
        socket = str(home / CONTROLLER_DIRECTORY / XDS_SOCKET)
        with control_plane(home / CONTROLLER_DIRECTORY), Clients() as clients:
            for node in proxies.values():
                refuse = refuse_listeners if node == REFUSES else lambda came: None
                started = clients.start(XdsClient(node, socket, refuse=refuse))
                wait_for(lambda: started.has[XdsKind.ROUTES], "its first configuration")  # noqa: B023
            yield


class TestKeptDelivery(DeliveryConformance):
    """A delivery that keeps what it is given: the seam asks for nothing that only streams have."""

    def make(self, home: Path) -> Delivery:
        return KeptDelivery()

    def running(self, home: Path, proxies: Mapping[Path, str]) -> object:
        return nothing_runs()


# --- over real sockets -----------------------------------------------------------------------------------


class Scene:
    """One control plane that runs, one proxy's directory, clients."""

    def __init__(self, home: Path) -> None:
        self.home, self.own = home, home / "one"
        self.directory = home / CONTROLLER_DIRECTORY
        self.delivery = streams(home)
        self.delivery.lay_out(self.own)
        self.identity = identity(self.own)
        self.push(STRICT, "v1")

    def push(self, cell: Cell, version: str) -> DeliveredVersions:
        config = replace(translate(seen_through(self.delivery, cell), "node-1"), node="proxy")
        return self.delivery.bring({self.own: config}, version, {self.own: self.identity})[self.own]

    def client(self, **more: object) -> XdsClient:
        return XdsClient("proxy", str(self.directory / XDS_SOCKET), **more)  # type: ignore[arg-type]

    def agent(self, **more: object) -> XdsClient:
        secrets = (tls.CERTIFICATE_SECRET,)
        return XdsClient("proxy", str(self.own / SDS_SOCKET), secrets=secrets, **more)  # type: ignore[arg-type]

    def settled(self, client: XdsClient, since: int = 0) -> list[tuple[str, tuple[str, ...]]]:
        """What came, once it has answered all of what was brought."""
        told = self.delivery.acknowledged([self.own], WITHIN_S)[self.own]
        assert told.done_ns is not None
        return [(each.kind.short, each.names) for each in client.came[since:]]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    with control_plane(made.directory):
        yield made


@pytest.fixture
def clients() -> Iterator[Clients]:
    with Clients() as found:
        yield found


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "world"])
def test_a_proxy_is_sent_everything_in_order_and_then_what_differs(
    scene: Scene, clients: Clients, delta: bool
) -> None:
    client = clients.start(scene.client(delta=delta))
    wait_for(lambda: client.has[XdsKind.ROUTES] and client.has[XdsKind.ENDPOINTS], "everything")
    kinds = [kind for kind, _ in scene.settled(client)]
    assert kinds[:2] == ["Cluster", "Listener"], "asked for first"
    assert set(kinds) == {"Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"}
    entry = read_snapshot(scene.directory / SNAPSHOT_FILE).proxies["proxy"]
    for kind, (_, names) in entry.types.items():
        assert client.has[kind].keys() == names.keys()
    before = len(client.came)
    scene.push(FINE, "v2")
    listeners = entry.types[XdsKind.LISTENERS][1]
    changed = ("virtualInbound",) if delta else tuple(listeners)
    assert scene.settled(client, before) == [("Listener", changed)]
    assert client.came[-1].version == "v2"
    scene.push(FINE, "v3")
    assert scene.settled(client, before) == [("Listener", changed)], "nothing differs"
    told = scene.delivery.acknowledged([scene.own], WITHIN_S)[scene.own]
    assert told.done_ns == told.accepted_ns


def test_a_refusal_has_the_proxys_words_until_something_else_is_accepted(
    scene: Scene, clients: Clients
) -> None:
    client = clients.start(scene.client(refuse=refuse_listeners))
    wait_for(lambda: client.has[XdsKind.ROUTES], "everything")
    has = dict(client.has[XdsKind.LISTENERS])
    scene.push(FINE, "v2")
    told = scene.delivery.acknowledged([scene.own], WITHIN_S)[scene.own]
    assert told.done_ns is not None
    assert told.refused == {"Listener": WORDS}
    assert client.has[XdsKind.LISTENERS] == has
    assert scene.delivery.status()["refused"] == {"proxy": {"Listener": WORDS}}
    client.refuse = lambda came: None
    scene.push(STRICT, "v3")
    assert scene.delivery.acknowledged([scene.own], WITHIN_S)[scene.own].refused == {}


def test_a_stream_that_ends_in_the_middle_of_a_push_leaves_the_others_alone(tmp_path: Path) -> None:
    """The one that ended comes back with what it had, and is sent the rest."""
    scene = Scene(tmp_path)
    with control_plane(scene.directory), Clients() as clients:
        client = clients.start(scene.client())
        wait_for(lambda: client.has[XdsKind.ROUTES] and client.has[XdsKind.ENDPOINTS], "everything")
        scene.settled(client)

        def end(came: object) -> None:
            clients.end(client)  # before it answers

        client.refuse = end
        scene.push(FINE, "v2")
        wait_for(lambda: scene.delivery.status()["connected"] == [], "its end")
        told = scene.delivery.acknowledged([scene.own], 0.1)[scene.own]
        assert (told.done_ns, told.connected) == (None, False)
        again = clients.start(scene.client(has=client.has))
        wait_for(lambda: scene.delivery.status()["connected"] == ["proxy"], "it to come back")
        names = {name for kind, given in scene.settled(again) for name in given}
        assert names <= {"virtualInbound"}, "the rest it had"
        assert again.has[XdsKind.LISTENERS]["virtualInbound"]


def test_a_control_plane_that_was_killed_goes_on_with_what_its_directory_has(
    scene: Scene, clients: Clients
) -> None:
    client = clients.start(scene.client())
    wait_for(lambda: client.has[XdsKind.ROUTES] and client.has[XdsKind.ENDPOINTS], "everything")
    scene.settled(client)
    with ExitStack() as stack:
        process = stack.enter_context(control_plane(scene.directory))  # the sockets are its own now
        again = clients.start(scene.client(has=client.has))
        wait_for(lambda: again.came, "an answer")
        came = scene.settled(again)
        assert came == [("Cluster", ()), ("Listener", ())], "it had everything"
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(MeshwiseError) as caught:
            scene.push(FINE, "v2")
        assert caught.value.code == "MW421"
    with control_plane(scene.directory):
        last = clients.start(scene.client(has=again.has))
        wait_for(lambda: any(each.version == "v2" for each in last.came), "what was pushed meanwhile")
        scene.push(FINE, "v3")
        assert scene.settled(last)[-1] == ("Listener", ("virtualInbound",))


def test_an_agent_serves_its_own_proxys_secrets_and_nothing_else(scene: Scene, clients: Clients) -> None:
    for delta in (True, False):
        agent = clients.start(scene.agent(delta=delta))
        wait_for(lambda: agent.came, "the certificate")  # noqa: B023
        assert scene.identity.key.read_bytes() in agent.bodies[tls.CERTIFICATE_SECRET]
    brought = scene.push(STRICT, "v2")
    assert agent.came[-1].version == brought.secrets[tls.CERTIFICATE_SECRET], "which Envoy reports"
    before = len(agent.came)
    scene.identity = identity(scene.own)
    brought = scene.push(STRICT, "v3")
    wait_for(lambda: len(agent.came) > before, "the new certificate")
    assert agent.came[-1].version == brought.secrets[tls.CERTIFICATE_SECRET]
    wrong = clients.start(XdsClient("proxy", str(scene.directory / XDS_SOCKET), secrets=("default",)))
    wait_for(lambda: wrong.failure, "a refusal")
    # The client loses the server's word (UNIMPLEMENTED) where it writes after the stream was refused.
    assert any(each in wrong.failure for each in ("UNIMPLEMENTED", "INTERNAL")), wrong.failure
    assert wrong.came == []
    sockets = [scene.directory / XDS_SOCKET, scene.own / SDS_SOCKET]
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}
    assert scene.identity.key.read_bytes() not in (scene.directory / SNAPSHOT_FILE).read_bytes()


def test_a_stranger_is_turned_away_and_named(scene: Scene, clients: Clients) -> None:
    stranger = clients.start(XdsClient("stranger", str(scene.directory / XDS_SOCKET)))
    wait_for(lambda: stranger.failure, "a refusal")
    assert str(grpc.StatusCode.INVALID_ARGUMENT) in stranger.failure
    assert scene.delivery.status()["unknown"] == ["stranger"]


def test_what_cannot_be_read_is_said_and_changes_nothing(scene: Scene, clients: Clients) -> None:
    client = clients.start(scene.client())
    wait_for(lambda: client.has[XdsKind.ROUTES], "everything")
    path = scene.directory / SNAPSHOT_FILE
    whole = path.read_bytes()
    for broken in (b"", whole[:50], whole[:8] + b"x" * 100):
        path.write_bytes(broken)
        with pytest.raises(MeshwiseError, match="snapshot cannot be read"):
            commands.tell(scene.directory / COMMAND_SOCKET, {"word": "reload"}, "istio/a", WITHIN_S)
    with pytest.raises(MeshwiseError, match="unknown command"):
        commands.tell(scene.directory / COMMAND_SOCKET, {"word": "dance"}, "istio/a", WITHIN_S)
    path.write_bytes(whole)
    scene.push(FINE, "v2")
    assert scene.settled(client)[-1] == ("Listener", ("virtualInbound",))


def test_a_snapshot_is_read_as_it_was_written(scene: Scene) -> None:
    path = scene.directory / SNAPSHOT_FILE
    snapshot = read_snapshot(path)
    assert snapshot.number == 1
    assert set(snapshot.blobs) == {
        digest for _, names in snapshot.proxies["proxy"].types.values() for digest in names.values()
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# --- what counts as taken up -----------------------------------------------------------------------------

PUSHED = Pushed(DeliveredVersions("v1", "v1", {"default": "d", "ROOTCA": "r"}))
TAKEN_UP = {
    "listener_manager.lds.version_text": "v1",
    "cluster_manager.cds.version_text": "v1",
    "sds.default.version_text": "d",
    "sds.ROOTCA.version_text": "r",
    "listener_manager.total_filter_chains_draining": 0,
    "cluster.outbound|8080||node-1;.upstream_cx_active": 0,
}


def test_taken_up_is_all_of_it() -> None:
    assert missing(TAKEN_UP, PUSHED) == left(TAKEN_UP, PUSHED) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listener_manager.lds.version_text", "v0"),
        ("cluster_manager.cds.version_text", "v0"),
        ("sds.default.version_text", "d0"),
        ("cluster_manager.warming_clusters", 1),
    ],
)
def test_what_is_not_taken_up_yet_is_named(name: str, value: int | str) -> None:
    found = missing({**TAKEN_UP, name: value}, PUSHED)
    assert len(found) == 1
    assert found[0].startswith(name)
    assert left({**TAKEN_UP, name: value}, PUSHED) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listener_manager.total_filter_chains_draining", 1),
        ("listener_manager.total_listeners_draining", 1),
        ("listener.0.0.0.0_15006.downstream_cx_active", 2),
        ("cluster.outbound|8080||node-1;.upstream_cx_active", 1),
    ],
)
def test_anything_left_of_the_former_configuration_is_named(name: str, value: int) -> None:
    found = left({**TAKEN_UP, name: value}, PUSHED)
    assert len(found) == 1
    assert found[0].startswith(name)
    assert missing({**TAKEN_UP, name: value}, PUSHED) == []


def test_counters_are_added_and_compared() -> None:
    before = {"a.x": 1, "b.x": 5, "text": "v1"}
    after = {"a.x": 4, "b.x": 5, "c.x": 2, "text": "v2"}
    assert grown(before, after) == {"a.x": 3, "c.x": 2}
    assert total(after, r".\.x") == 11


def test_clients_of_a_store_may_have_connected_again() -> None:
    """Whatever was left of the former configuration drains; what stands now is of the present one."""
    pushed = replace(PUSHED, stores=frozenset({5432}))
    again = {**TAKEN_UP, "cluster.outbound|5432||postgres.stores;.upstream_cx_active": 3}
    assert left(again, pushed) == []
    at_the_store = {**TAKEN_UP, "listener.0.0.0.0_15006.downstream_cx_active": 3}
    assert left(at_the_store, pushed)
    assert left(at_the_store, replace(pushed, is_store=True)) == []
    draining = {**at_the_store, "listener_manager.total_filter_chains_draining": 1}
    assert left(draining, replace(pushed, is_store=True))
