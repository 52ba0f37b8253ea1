"""Istio as a `Mesh`: what a posture is in Istio, for real Envoy sidecars.

    cell -> resources (YAML) -> view -> translate -> files -> Envoy

`posture` writes the resources, `translate` is istiod, `delivery` is xDS, `proof` asks the proxies.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, lru_cache

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.mesh import dump
from meshwise.mesh.files import hand_over, private_directory, write_private
from meshwise.mesh.istio import binary, bootstrap, clusters, delivery, fidelity, posture, proof, traits
from meshwise.mesh.istio.admin import Admin, fetch_from
from meshwise.mesh.istio.clusters import INBOUND_SOURCE_IP
from meshwise.mesh.istio.kinds import Resources
from meshwise.mesh.istio.listeners import INBOUND_PORT, OUTBOUND_PORT
from meshwise.mesh.istio.resources import parse
from meshwise.mesh.istio.translate import fingerprint, translate
from meshwise.mesh.istio.view import Options, View, view_of
from meshwise.mesh.istio.workloads import Identities, files_of_workload
from meshwise.mesh.request import request_of
from meshwise.mesh.seam import Capture, Dial, Fidelity, Headers, Placement, ProcessPlan, Proof, Ready
from meshwise.mesh.together import together
from meshwise.mesh.tokens import tokens
from meshwise.study.model import Cell, MeshName, TlsGroup
from meshwise.telemetry.envoy import EnvoySampler
from meshwise.telemetry.seam import Sampler

PROXY_UID = 1337
DRAIN_TIME_S = 0
"""Istio's is 45 s. Here a replaced configuration must be gone before the next trial; `fidelity` says so."""

CURVES: Mapping[TlsGroup, tuple[str, ...]] = {
    TlsGroup.DEFAULT: (),
    TlsGroup.X25519: ("X25519",),
    TlsGroup.X25519MLKEM768: ("X25519MLKEM768", "X25519"),
}
"""As Envoy names them; none leaves `Options.curves`. Sidecars agree on the first; the proof's own TLS client
need not know it, and takes the second."""

SETTLE_TIMEOUT_S = 10.0
_POLL_S = 0.005
_STATE = {"config_dump.json": "/config_dump", "clusters.txt": "/clusters", "listeners.txt": "/listeners"}


class IstioMesh:
    """See `meshwise.mesh.seam.Mesh`. Holds the keys of its authority, a count of its pushes, and how many
    workers it was asked for."""

    def __init__(self, options: Options | None = None) -> None:
        self._given = options
        self._identities = Identities()
        self._pushes = itertools.count(1)
        self._workers: dict[str, int] = {}

    @cached_property
    def options(self) -> Options:
        """As given, or those of a default Istio with all of its filters that the binary has."""
        return self._given or Options(native=binary.istio_filters(binary.envoy_path()))

    @property
    def name(self) -> MeshName:
        return MeshName.ISTIO

    def not_applicable(self, cell: Cell) -> str | None:
        return posture.not_applicable(cell)

    def resources(self, cell: Cell, placement: Placement) -> str:
        return posture.resources(cell, tokens().jwks, placement.trust_domain)

    def processes(self, placement: Placement, workers: int) -> Sequence[ProcessPlan]:
        envoy = binary.envoy_path()
        self._workers[placement.process_set] = workers
        return [
            ProcessPlan(
                pod=placed.name,
                role="proxy",
                argv=bootstrap.arguments(
                    envoy, placement.directory / placed.name / "bootstrap.json", workers, DRAIN_TIME_S
                ),
                uid=PROXY_UID,
                ready=Ready(bootstrap.READY_PORT, bootstrap.READY_PATH),
            )
            for placed in placement.workloads
        ]

    def capture(self, workload: str) -> Capture | None:
        return Capture(
            inbound_port=INBOUND_PORT,
            outbound_port=OUTBOUND_PORT,
            proxy_uid=PROXY_UID,
            proxy_gid=PROXY_UID,
            inbound_exempt_ports=(bootstrap.TUNNEL_PORT, *bootstrap.EXEMPT_PORTS),
            inbound_source=INBOUND_SOURCE_IP,
            tunnel_port=bootstrap.TUNNEL_PORT,
        )

    def prepare(self, placement: Placement, cell: Cell) -> None:
        hand_over(placement.directory, PROXY_UID)
        self._identities.issue_all(placement, cell.key_type, PROXY_UID)
        view = self._view(placement, cell)
        for service in view.services:
            directory = private_directory(placement.directory / service.name, PROXY_UID)
            delivery.lay_out(directory, PROXY_UID)
            config = bootstrap.bootstrap(service, directory)
            write_private(directory / "bootstrap.json", json.dumps(config), PROXY_UID)
        self._push(placement, cell, view)

    def apply(self, placement: Placement, cell: Cell, dial: Dial) -> None:
        used = [placed.name for placed in placement.of(cell.topology)]
        with ExitStack() as stack:
            admins = {name: stack.enter_context(Admin(name, dial)) for name in used}
            stats = together(lambda name: admins[name].stats(delivery.WATCHED), used)
            refused = dict(zip(used, map(delivery.rejections, stats), strict=True))
            pushed = self._push(placement, cell, self._view(placement, cell))
            deadline = time.monotonic() + SETTLE_TIMEOUT_S
            together(lambda name: _settle(admins[name], cell, pushed[name], refused[name], deadline), used)

    def prove(self, placement: Placement, cell: Cell, dial: Dial) -> Proof:
        workers = self._workers[placement.process_set]
        return proof.prove(placement, cell, dial, self._fingerprint(placement, cell), workers)

    def state(self, placement: Placement, cell: Cell, dial: Dial) -> Mapping[str, str]:
        used = [placed.name for placed in placement.of(cell.topology)]
        return dump.ask_all(lambda pod: Admin(pod, dial), used, _STATE)

    def request(self, cell: Cell) -> Headers:
        return request_of(cell)

    def samplers(self, placement: Placement, dial: Dial) -> Sequence[Sampler]:
        place = f"{placement.mesh}/{placement.process_set}"
        return [
            EnvoySampler(f"{place}/{placed.name}/proxy", fetch_from(placed.name, dial))
            for placed in placement.workloads
        ]

    def describe(self) -> Mapping[str, str]:
        found = binary.facts(binary.envoy_path())
        return {"proxy": "Envoy", "worker_model": "one event loop per worker (--concurrency)", **found}

    def traits(self) -> Mapping[str, str]:
        return traits.traits(self.options, binary.facts(binary.envoy_path())["tls_library"])

    def fidelity(self, *, privileged: bool) -> Sequence[Fidelity]:
        return fidelity.differences(self.options, privileged=privileged)

    # --- how a posture gets there ------------------------------------------------------------------

    def _fingerprint(self, placement: Placement, cell: Cell) -> str:
        return fingerprint(self.resources(cell, placement), cell.key_type, self._options_for(cell))

    def _options_for(self, cell: Cell) -> Options:
        """Those of the mesh, with the TLS group that the cell asks for."""
        curves = CURVES[cell.tls_group]
        return replace(self.options, curves=curves) if curves else self.options

    def _view(self, placement: Placement, cell: Cell) -> View:
        text = self.resources(cell, placement)
        generation = f"{self._fingerprint(placement, cell)}-{next(self._pushes)}"
        return view_of(placement, _parsed(text), generation, self._options_for(cell))

    def _push(self, placement: Placement, cell: Cell, view: View) -> dict[str, delivery.Pushed]:
        made: clusters.Made = {}
        configs = {service.name: translate(view, service.name, made) for service in view.services}
        encoded: delivery.Encoded = {}
        pushed = {}
        for name, config in configs.items():
            files = files_of_workload(placement, name, cell.key_type)
            if not files.chain.exists():
                files = self._identities.issue(placement, name, cell.key_type, PROXY_UID)
            directory = placement.directory / name
            one = delivery.push(config, view.generation, directory, files, PROXY_UID, encoded)
            pushed[name] = replace(one, stores=view.stores, is_store=view.service(name).is_store)
        return pushed


@lru_cache(maxsize=64)
def _parsed(text: str) -> Resources:
    return parse(text)


def _settle(admin: Admin, cell: Cell, pushed: delivery.Pushed, refused: int, deadline: float) -> None:
    """Returns when the proxy has taken the push up. Raises MW404 (refused) or MW405 (too slow)."""
    while True:
        stats = admin.stats(delivery.WATCHED)
        if delivery.rejections(stats) > refused:
            raise _refused(admin, cell)
        waiting = delivery.missing(stats, pushed)
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise messages.CONFIG_SLOW.error(
                pod=admin.pod, cell=cell.name, timeout=SETTLE_TIMEOUT_S, waiting="; ".join(waiting)
            )
        time.sleep(_POLL_S)


def _refused(admin: Admin, cell: Cell) -> MeshwiseError:
    """The proxy's own words, from the state of the resources that it refused."""
    reasons = []
    for kind in ("dynamic_listeners", "dynamic_active_clusters", "dynamic_warming_clusters"):
        for entry in admin.json(f"/config_dump?resource={kind}").get("configs", []):
            if details := entry.get("error_state", {}).get("details"):
                reasons.append(f"{entry.get('name', kind)}: {details}")
    reason = "; ".join(reasons) or "see the proxy's log"
    return messages.CONFIG_REFUSED.error(pod=admin.pod, cell=cell.name, reason=reason)
