"""Steps that go to other ports than the service's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from meshwise.mesh.expectations import CallOutcome
from meshwise.mesh.probe import Ask, ProbeAnswer, TlsAs
from meshwise.mesh.protection.attempt import AttackStep, AttemptOutcome, Seen
from meshwise.mesh.protection.calls import judged, some_size
from meshwise.mesh.protection.credentials import Credential
from meshwise.mesh.protection.scene import Scene
from meshwise.study.model import MeshName, Protocol


class Door(StrEnum):
    """A port of the proxy."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    TUNNEL = "tunnel"


@dataclass(frozen=True)
class Page:
    """What a proxy's administration answers, and words that no one else would."""

    port: int
    path: str
    words: bytes
    method: str = "GET"


def port_of(scene: Scene, door: Door) -> int:
    side = scene.side
    return {
        Door.INBOUND: side.inbound_port, Door.OUTBOUND: side.outbound_port, Door.TUNNEL: side.tunnel_port,
    }[door]  # fmt: skip


@dataclass(frozen=True)
class ByPodAddress(AttackStep):
    """The client's application dials the pod instead of its service, through its own sidecar."""

    def carry_out(self, scene: Scene) -> Seen:
        size = some_size()
        request = replace(scene.request(size), authority=f"{scene.target.pod_ip}:{scene.port}")
        answer = scene.reach.call(scene.client.name, scene.target.pod_ip, scene.port, request)
        return judged(scene, answer, size)


@dataclass(frozen=True)
class AtDoor(AttackStep):
    """A pod outside the mesh asks at a port of the proxy what the client may ask at the service's."""

    door: Door
    credential: Credential | None = None
    """None: in plaintext."""

    def carry_out(self, scene: Scene) -> Seen:
        size = some_size()
        tls = scene.tls(self.credential) if self.credential else None
        return judged(scene, scene.from_outside(scene.request(size), tls, port_of(scene, self.door)), size)


@dataclass(frozen=True)
class Relayed(AttackStep):
    """A pod outside the mesh asks for another service at the proxy's outbound port, so that the proxy would
    call it in its own name."""

    def carry_out(self, scene: Scene) -> Seen:
        size = some_size()
        other = scene.placement.of(scene.cell.topology)[-1].workload
        request = replace(scene.request(size), authority=f"{other.host}:{scene.port}")
        return judged(scene, scene.from_outside(request, None, port_of(scene, Door.OUTBOUND)), size)


@dataclass(frozen=True)
class NamedPort(AttackStep):
    """A pod outside the mesh speaks mesh TLS to the proxy's own port and names a port behind it."""

    credential: Credential

    def carry_out(self, scene: Scene) -> Seen:
        size = some_size()
        tls, door = _named(scene, self.credential, scene.port)
        return judged(scene, scene.from_outside(scene.request(size), tls, door), size)


@dataclass(frozen=True)
class AskPage(AttackStep):
    """A pod outside the mesh asks the proxy's administration."""

    pages: Mapping[MeshName, Page]
    credential: Credential | None = None
    """In mesh TLS, so that the proxy itself would pass the question on; None: in plaintext."""

    def carry_out(self, scene: Scene) -> Seen:
        page = self.pages[scene.side.mesh]
        tls, port = None, page.port
        if self.credential is not None:
            tls, port = _named(scene, self.credential, page.port)
        request = Ask(Protocol.HTTP1, f"{scene.target.pod_ip}:{page.port}", page.method, page.path, ())
        return _of_page(scene.from_outside(request, tls, port), page)


def _named(scene: Scene, credential: Credential, port: int) -> tuple[TlsAs, int]:
    """Where the mesh has no way to name a port, it is dialled."""
    tls = scene.tls(credential)
    return scene.side.forms(tls, port) if scene.side.forms else (tls, port)


def _of_page(answer: ProbeAnswer, page: Page) -> Seen:
    status = str(answer.status or answer.seen)
    if answer.status == 200 and page.words in answer.body:
        return Seen(AttemptOutcome.LET_THROUGH, status, f"an answer with `{page.words.decode()}`")
    if answer.seen is CallOutcome.TIMEOUT:
        return Seen(AttemptOutcome.UNDECIDED, status, "neither an answer nor a refusal")
    told = answer.body.decode("utf-8", "replace").strip()
    return Seen(AttemptOutcome.STOPPED, status, (told or answer.detail)[:160])
