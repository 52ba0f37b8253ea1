"""A reach into pods that are notes only: whoever asks is answered in plaintext, as where there is no mesh."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from meshwise.core import messages
from meshwise.mesh.expectations import CallOutcome
from meshwise.mesh.hello import Choice
from meshwise.mesh.istio.bootstrap import ADMIN_PORT as ENVOY_ADMIN_PORT
from meshwise.mesh.linkerd.names import ADMIN_PORT as LINKERD_ADMIN_PORT
from meshwise.mesh.overheard import Flow, Overheard
from meshwise.mesh.probe import Ask, ProbeAnswer, TlsAs
from meshwise.mesh.protection.talk import End, Heard, HeardAnswer, Http2Heard, Say, Wire, http1_answers
from meshwise.service import arrivals, plan
from meshwise.service.arrivals import ArrivalLog
from meshwise.service.behaviour import body_of
from meshwise.service.http1_server import Http1Server, RequestHeadCache
from meshwise.service.http2_server import HeaderBlockCache, Http2Server
from meshwise.service.link import Codec
from meshwise.service.outgoing import Done, Outgoing
from meshwise.service.spec import NodeSpec
from meshwise.service.tcp_server import TcpServer
from meshwise.study.model import SERVICE_PORTS, Protocol, Study, Trial
from meshwise.testbed.layout import lay_out
from meshwise.testbed.seam import ReachedPods


class FakeLine:
    """See `meshwise.mesh.protection.talk.RawLine`: to a service's codec, without a socket and without
    waiting."""

    def __init__(self, service: Codec | None) -> None:
        self._service = service
        self._http2 = Http2Heard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing is open."""

    def talk(self, say: Say) -> Heard:
        service = self._service
        if service is None:
            return Heard((), End.REFUSED, detail="nothing listens")
        received = b"".join(service.receive(piece) for piece in say.pieces)
        end = End.CLOSED if service.closing else End.OPEN
        match say.wire:
            case Wire.HTTP1:
                return Heard(http1_answers(received), end, received)
            case Wire.HTTP2:
                answers, said, _ = self._http2.feed(received)
                return Heard(tuple(answers), end, received, said)
            case Wire.BYTES:
                return Heard((HeardAnswer(0, (), len(received)),) if received else (), end, received)


def services_of(arrived: ArrivalLog) -> Mapping[int, Callable[[], Codec]]:
    """A node that calls no other, by port."""
    spec = NodeSpec("fake", work_rounds_per_us=1.0)
    http1 = RequestHeadCache(spec, 1.0, arrived)
    http2 = HeaderBlockCache(spec, 1.0, Protocol.HTTP2, arrived)
    return {
        SERVICE_PORTS[Protocol.HTTP1]: lambda: Http1Server(http1, _calls_nobody),
        SERVICE_PORTS[Protocol.HTTP2]: lambda: Http2Server(http2, _calls_nobody),
        SERVICE_PORTS[Protocol.TCP]: lambda: TcpServer(arrived),
    }


def _calls_nobody(protocol: Protocol, outgoing: Sequence[Outgoing], done: Done) -> None:
    done("there is nobody behind", 0)


@dataclass(frozen=True)
class FakeReach:
    """See `meshwise.mesh.reach.Reach`. `answers`: by pod, port and path (without its query) the body of its
    200, and with it who listens; `refused`: pods whose calls are all refused."""

    answers: Mapping[tuple[str, int, str], bytes] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    services: Mapping[int, Callable[[], Codec]] = field(default_factory=dict, compare=False)
    """By port: makes the service's side of a connection, which `line` speaks to."""
    arrived: ArrivalLog | None = field(default=None, compare=False)
    """What these services note."""
    _said: list[bytes] = field(default_factory=list, compare=False)
    """What went over wires, in the order of calls."""

    def call(self, pod: str, address: str, port: int, request: Ask, tls: TlsAs | None = None) -> ProbeAnswer:
        if pod in self.refused or not any(port == known for _, known, _ in self.answers):
            return ProbeAnswer(CallOutcome.CLOSED, "nothing listens")
        body = body_of(plan.parse(dict(request.headers).get(plan.HEADER, "")).bytes)
        self._said.append(request.body + body)
        return ProbeAnswer(CallOutcome.OK, status=200, body=body)

    def choice(self, pod: str, address: str, port: int, server_name: str) -> Choice | str:
        return "nothing speaks TLS"

    def listens(self, pod: str, port: int) -> bool:
        return any((pod, port) == (of, known) for of, known, _ in self.answers)

    def get(self, pod: str, port: int, path: str) -> bytes:
        if path == arrivals.PATH and self.arrived is not None:
            return self.arrived.to_json()
        found = self.answers.get((pod, port, path.partition("?")[0]))
        if found is None:
            raise messages.ADMIN_SILENT.error(pod=pod, reason=f"{path} is not among the notes")
        return found

    def line(self, pod: str, address: str, port: int, tls: TlsAs | None = None) -> FakeLine:
        """To the service itself, where the port is one of its own; nothing speaks TLS."""
        heard = pod not in self.refused and tls is None and port in self.services
        return FakeLine(self.services[port]() if heard else None)

    @contextmanager
    def overhear(self, pod: str) -> Iterator[Callable[[], Overheard]]:
        begun = len(self._said)

        def heard() -> Overheard:
            said = self._said[begun:]
            wire = (("client", 1), (pod, 1))
            return Overheard(tuple(Flow(*wire, each) for each in said), len(said))

        yield heard


def reached_pods(study: Study, trial: Trial) -> ReachedPods:
    """The pods of a trial: services and proxies' statistics answer, and no proxy counts anything."""
    wanted = trial.cell.mesh, trial.process_set
    (placement,) = (
        each.placement
        for each in lay_out(study, Path("/nowhere"))
        if (each.placement.mesh, each.placement.process_set) == wanted
    )
    pages = {}
    for placed in placement.workloads:
        pages[placed.name, ENVOY_ADMIN_PORT, "/stats"] = b'{"stats": []}'
        pages[placed.name, LINKERD_ADMIN_PORT, "/metrics"] = b""
        pages |= {(placed.name, port, "/"): b"" for _, port in placed.workload.ports}
    arrived = ArrivalLog()
    return ReachedPods(placement, FakeReach(pages, services=services_of(arrived), arrived=arrived))
