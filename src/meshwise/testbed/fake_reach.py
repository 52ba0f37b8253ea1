"""A reach into pods that are notes only: whoever asks is answered in plaintext, as where there is no mesh."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from meshwise.core import messages
from meshwise.mesh.expectations import CallOutcome
from meshwise.mesh.hello import Choice
from meshwise.mesh.istio.bootstrap import ADMIN_PORT as ENVOY_ADMIN_PORT
from meshwise.mesh.linkerd.names import ADMIN_PORT as LINKERD_ADMIN_PORT
from meshwise.mesh.overheard import Flow, Overheard
from meshwise.mesh.probe import Ask, ProbeAnswer, TlsAs
from meshwise.service import plan
from meshwise.service.behaviour import body_of
from meshwise.study.model import Study, Trial
from meshwise.testbed.layout import lay_out
from meshwise.testbed.seam import ReachedPods


@dataclass(frozen=True)
class FakeReach:
    """See `meshwise.mesh.reach.Reach`. `answers`: by pod, port and path (without its query) the body of its
    200, and with it who listens; `refused`: pods whose calls are all refused."""

    answers: Mapping[tuple[str, int, str], bytes] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
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
        found = self.answers.get((pod, port, path.partition("?")[0]))
        if found is None:
            raise messages.ADMIN_SILENT.error(pod=pod, reason=f"{path} is not among the notes")
        return found

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
    return ReachedPods(placement, FakeReach(pages))
