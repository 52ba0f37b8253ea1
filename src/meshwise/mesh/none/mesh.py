"""No mesh, as both halves of one: nothing in between. The reference that every cost is measured against."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from meshwise.mesh.changes import Change, Disturbance, RestartProxy, Taken
from meshwise.mesh.expectations import CallOutcome, Expectation, Meaning, Signs, What, Who, expectations
from meshwise.mesh.probe import Entrance, ProbeAnswer, check_of, on_hop
from meshwise.mesh.reach import Reach
from meshwise.mesh.request import Headers, request_of
from meshwise.mesh.seam import (
    OUTSIDER,
    Capture,
    Check,
    Delivered,
    Fidelity,
    Placement,
    ProcessPlan,
    Proof,
)
from meshwise.mesh.together import together
from meshwise.service.plan import Plan
from meshwise.study.model import NO_MESH, Cell, MeshName, Workload
from meshwise.study.timeline import Act, Restart, Restarted
from meshwise.telemetry.seam import Sampler

SIGNS: Signs = {
    Meaning.ANSWERED: frozenset({CallOutcome.OK, CallOutcome.DECLINED}),
    Meaning.NO_TLS: frozenset({CallOutcome.CLOSED, CallOutcome.TLS_FAILED}),
}
PROXY_PORTS: Mapping[str, int] = {
    "Istio's inbound listener": 15006,
    "Istio's outbound listener": 15001,
    "Envoy's administration": 15000,
    "Linkerd's inbound listener": 4143,
    "Linkerd's outbound listener": 4140,
    "Linkerd's administration": 4191,
}
"""Where a sidecar would listen; all of these must refuse."""


class NoneModel:
    """See `meshwise.mesh.seam.MeshModel`. Clients dial the pods: no service address is answered."""

    @property
    def name(self) -> MeshName:
        return MeshName.NONE

    def not_applicable(self, cell: Cell) -> str | None:
        if cell.posture != NO_MESH:
            return "without a mesh there is only the posture `none`"
        if cell.policy_count:
            return "without a mesh there is no authorization policy"
        if cell.plaintext_share:
            return "without a mesh every client is a plaintext client already"
        if cell.forbidden_share:
            return "without a mesh nothing is forbidden"
        return None

    def resources(self, cell: Cell, trust_domain: str) -> str:
        return "# no mesh: no resources\n"

    def request(self, cell: Cell) -> Headers:
        return request_of(cell)

    def traits(self, build: Mapping[str, str]) -> Mapping[str, str]:
        return {}

    def expectations(self, cell: Cell, callee: str) -> Sequence[Expectation]:
        return expectations(cell.posture, cell.topology[callee].speaks(cell.protocol).layer)

    def entrance(self, placement: Placement, cell: Cell, who: Who = Who.TWIN) -> Entrance:
        client, entry = cell.topology.workloads[0], cell.topology.entry
        request = on_hop(cell, client, entry, What.ALLOWED, Plan())
        return Entrance(OUTSIDER, placement[entry.name].pod_ip, entry.port(cell.protocol), request, tls=None)

    def judge(self, placement: Placement, cell: Cell, reach: Reach, delivered: Delivered) -> Proof:
        begun_ns = time.monotonic_ns()
        topology = cell.topology
        used = placement.of(topology)

        def call(caller: Workload, callee: Workload, pod: str) -> ProbeAnswer:
            address, port = placement[callee.name].pod_ip, callee.port(cell.protocol)
            request = on_hop(cell, caller, callee, What.ALLOWED, Plan())
            return reach.call(pod, address, port, request)

        client, entry = topology.workloads[0], topology.entry
        checks = [
            check_of(row, call(client, entry, client.name if row.who is Who.MESH else OUTSIDER), SIGNS)
            for row in self.expectations(cell, entry.name)
        ]
        further = [(each, topology[name]) for each in topology.workloads[1:] for name in each.calls]
        answered = Expectation(Who.MESH, What.ALLOWED, Meaning.ANSWERED)
        checks += together(
            lambda hop: check_of(
                answered, call(*hop, hop[0].name), SIGNS, f"{hop[0].name} -> {hop[1].name}: "
            ),
            further,
        )
        checks += together(lambda placed: _no_proxy(placed.name, reach), used)
        return Proof(tuple(checks), {"proxy": "none"}, time.monotonic_ns() - begun_ns)


class NoneMesh:
    """See `meshwise.mesh.seam.LocalMesh`."""

    def __init__(self) -> None:
        self.model = NoneModel()

    def processes(self, placement: Placement, workers: int) -> Sequence[ProcessPlan]:
        return ()

    def capture(self, workload: str) -> Capture | None:
        return None

    def prepare(self, placement: Placement, cell: Cell) -> None:
        """Nothing to write."""

    def reset(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        """Nothing to change."""

    def push(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        """Nothing to change."""

    def cannot(self, cell: Cell, act: Act) -> str | None:
        if isinstance(act, Restart) and act.what is Restarted.SERVICE:
            return None
        return "without a mesh there is nothing of it to change"

    def foresee(self, placement: Placement, cell: Cell, changes: Sequence[Change]) -> None:
        """Nothing will change (`cannot`)."""

    def carry_out(
        self, placement: Placement, cell: Cell, act: Change, reach: Reach, restart: RestartProxy
    ) -> Sequence[Taken]:
        """Nothing to change (`cannot`)."""
        return ()

    def failing(self, placement: Placement, act: Disturbance) -> AbstractContextManager[None]:
        """Nothing that could fail (`cannot`)."""
        return nullcontext()

    def guard(self, guarded: bool) -> None:
        """Nothing to lay it over."""

    def delivered(self, placement: Placement) -> Delivered:
        return Delivered(workers=0)

    def state(self, placement: Placement, cell: Cell, reach: Reach) -> Mapping[str, str]:
        return {}

    def samplers(self, placement: Placement, reach: Reach) -> Sequence[Sampler]:
        return ()

    def describe(self) -> Mapping[str, str]:
        return {"proxy": "none"}

    def fidelity(self, *, privileged: bool) -> Sequence[Fidelity]:
        return ()


def _no_proxy(pod: str, reach: Reach) -> Check:
    """No port of any sidecar answers in this pod."""
    found = [name for name, port in PROXY_PORTS.items() if reach.listens(pod, port)]
    return Check(
        f"no sidecar beside {pod}", "nothing listens", ", ".join(found) or "nothing listens", not found
    )
