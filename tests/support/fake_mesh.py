"""A fake of the seams `MeshModel` and `LocalMesh`: a mesh that exists as notes only.

It has a sidecar beside every workload that is never started. A pod's services answer by the posture that was
last brought to them, so that a proof passes exactly when that is the posture which is judged.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from meshwise.mesh.changes import Change, Disturbance, RestartProxy, Taken
from meshwise.mesh.dump import ask_all
from meshwise.mesh.expectations import CallOutcome, Expectation, Meaning, What, Who, expectations
from meshwise.mesh.files import private_directory, write_private
from meshwise.mesh.probe import Entrance, check_of, on_hop
from meshwise.mesh.reach import Reach
from meshwise.mesh.request import Headers, request_of
from meshwise.mesh.seam import OUTSIDER, Capture, Delivered, Fidelity, Placement, ProcessPlan, Proof, Ready
from meshwise.mesh.traits import NAMES
from meshwise.service.plan import Plan
from meshwise.study.changed import in_posture
from meshwise.study.demands import effective_posture
from meshwise.study.model import LADDER, Cell, MeshName
from meshwise.study.timeline import Act, ChangePosture, Restart, Rotate, event_name
from meshwise.telemetry.seam import Moment, Sample, Sampler

ADMIN_PORT = 9901
TAKEN_UP = "/taken-up"
SIGNS = {Meaning.ANSWERED: frozenset({CallOutcome.OK}), Meaning.PEER_REFUSED: frozenset({CallOutcome.CLOSED})}
MTLS_ONLY = LADDER[:3]
"""The postures that it can express."""


class NotesModel:
    """See `meshwise.mesh.seam.MeshModel`."""

    @property
    def name(self) -> MeshName:
        return MeshName.LINKERD

    def not_applicable(self, cell: Cell) -> str | None:
        return None if cell.posture in MTLS_ONLY else f"notes have no posture {cell.posture.name}"

    def resources(self, cell: Cell, trust_domain: str) -> str:
        return "---\n".join(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": each.name},
                    "data": {"posture": effective_posture(cell, each).name, "domain": trust_domain},
                }
            )
            + "\n"
            for each in cell.topology.workloads
        )

    def request(self, cell: Cell) -> Headers:
        return request_of(cell)

    def traits(self, build: Mapping[str, str]) -> Mapping[str, str]:
        return {NAMES[0]: build["proxy"]}

    def expectations(self, cell: Cell, callee: str) -> Sequence[Expectation]:
        workload = cell.topology[callee]
        rows = expectations(effective_posture(cell, workload), workload.speaks(cell.protocol).layer)
        return [row for row in rows if row.who in (Who.MESH, Who.PLAINTEXT) and row.what is What.ALLOWED]

    def entrance(self, placement: Placement, cell: Cell, who: Who = Who.TWIN) -> Entrance:
        client, entry = cell.topology.workloads[0], cell.topology.entry
        request = on_hop(cell, client, entry, What.ALLOWED, Plan())
        return Entrance(OUTSIDER, placement[entry.name].pod_ip, entry.port(cell.protocol), request, tls=None)

    def judge(self, placement: Placement, cell: Cell, reach: Reach, delivered: Delivered) -> Proof:
        begun_ns = time.monotonic_ns()
        client, entry = cell.topology.workloads[0], cell.topology.entry
        request = on_hop(cell, client, entry, What.ALLOWED, Plan())
        port, checks = entry.port(cell.protocol), []
        for row in self.expectations(cell, entry.name):
            pod = client.name if row.who is Who.MESH else OUTSIDER
            answer = reach.call(pod, placement[entry.name].pod_ip, port, request)
            checks.append(check_of(row, answer, SIGNS))
        taken_up = reach.get(entry.name, ADMIN_PORT, TAKEN_UP).decode()
        return Proof(tuple(checks), {"taken_up": taken_up}, time.monotonic_ns() - begun_ns)


class NotesMesh:
    """See `meshwise.mesh.seam.LocalMesh`."""

    def __init__(self) -> None:
        self.model = NotesModel()
        self.workers = 0

    def processes(self, placement: Placement, workers: int) -> Sequence[ProcessPlan]:
        self.workers = workers
        argv, ready = (sys.executable, "-c", "raise SystemExit"), Ready(ADMIN_PORT, "/ready")
        return [ProcessPlan(placed.name, "proxy", argv, ready=ready) for placed in placement.workloads]

    def capture(self, workload: str) -> Capture | None:
        return Capture(inbound_port=4001, outbound_port=4002, proxy_uid=2000)

    def prepare(self, placement: Placement, cell: Cell) -> None:
        for placed in placement.workloads:
            directory = private_directory(placement.directory / placed.name)
            posture = effective_posture(cell, placed.workload).name
            write_private(directory / "posture", posture)

    def reset(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        self.prepare(placement, cell)

    def push(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        self.prepare(placement, cell)

    def cannot(self, cell: Cell, act: Act) -> str | None:
        if isinstance(act, ChangePosture):
            return self.model.not_applicable(in_posture(cell, act.posture))
        return None if isinstance(act, Rotate | Restart) else "notes know postures and certificates only"

    def foresee(self, placement: Placement, cell: Cell, changes: Sequence[Change]) -> None:
        """Notes take no time."""

    def carry_out(
        self, placement: Placement, cell: Cell, act: Change, reach: Reach, restart: RestartProxy
    ) -> Sequence[Taken]:
        """Noted beside every workload."""
        if isinstance(act, ChangePosture):
            self.push(placement, in_posture(cell, act.posture), reach)
        return [
            Taken(each.name, time.monotonic_ns(), {"noted": event_name(act)})
            for each in placement.of(cell.topology)
        ]

    def failing(self, placement: Placement, act: Disturbance) -> AbstractContextManager[None]:
        return nullcontext()

    def guard(self, guarded: bool) -> None:
        """Notes have no such rule."""

    def delivered(self, placement: Placement) -> Delivered:
        return Delivered(self.workers)

    def state(self, placement: Placement, cell: Cell, reach: Reach) -> Mapping[str, str]:
        used = [placed.name for placed in placement.of(cell.topology)]
        return ask_all(reach, ADMIN_PORT, used, {"notes.txt": TAKEN_UP})

    def samplers(self, placement: Placement, reach: Reach) -> Sequence[Sampler]:
        return [NotesSampler(f"{placement.mesh}/a/{each.name}/proxy") for each in placement.workloads]

    def describe(self) -> Mapping[str, str]:
        return {"proxy": "notes", "version": "v0", "tls_library": "none"}

    def fidelity(self, *, privileged: bool) -> Sequence[Fidelity]:
        return [Fidelity("notes", "no proxy runs", "nothing costs anything")]


@dataclass(frozen=True)
class NotesSampler:
    """See `meshwise.telemetry.seam.Sampler`: nothing is read of what does not run."""

    name: str

    def sample(self, moment: Moment) -> Sequence[Sample]:
        return ()
