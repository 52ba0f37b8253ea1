"""Linkerd as a `Mesh`: what a posture is in Linkerd, for real linkerd2-proxy sidecars.

    cell -> resources (YAML) -> snapshot -> file -> controller -> relay -> proxy

`posture` writes the resources, `policy` and `destinations` do what Linkerd's controllers do, `proof` asks
the proxies.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.mesh import dump
from meshwise.mesh.files import hand_over, private_directory, write_private
from meshwise.mesh.linkerd import (
    authority,
    binary,
    command,
    fidelity,
    outsiders,
    posture,
    proof,
    sidecar,
    traits,
)
from meshwise.mesh.linkerd.admin import Admin
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.names import (
    ADMIN_PORT,
    API_SOCKET,
    CONTROL_PORT,
    CONTROLLER_DIRECTORY,
    INBOUND_PORT,
    INBOUND_SKIP_PORTS,
    OUTBOUND_PORT,
    OUTBOUND_SKIP_PORTS,
    PROXY_UID,
    SNAPSHOT_FILE,
    identity_of,
)
from meshwise.mesh.linkerd.resources import Resources, parse
from meshwise.mesh.linkerd.sampler import ProxySampler
from meshwise.mesh.linkerd.snapshot import snapshot
from meshwise.mesh.request import request_of
from meshwise.mesh.seam import Capture, Dial, Fidelity, Headers, Placement, ProcessPlan, Proof, Ready
from meshwise.study.model import Cell, Http1Transport, MeshName
from meshwise.telemetry.seam import Sampler

_RELAY = Path(__file__).with_name("relay.py")
_RESOLVER = Path("/etc/resolv.conf")
TLS_LIBRARY = "rustls on aws-lc-rs"
_STATE = {"metrics.txt": "/metrics"}
_INHERITED = ("PATH", "PYTHONPATH")
"""What the controller, a Python program, needs of the user's environment."""


class LinkerdMesh:
    """See `meshwise.mesh.seam.Mesh`. Holds its authority, the proxies' keys and a count of its pushes."""

    def __init__(self, transport: Transport | None = None) -> None:
        self.transport = transport or Transport()
        self._authorities: dict[str, authority.Authority] = {}
        self._keys: dict[tuple[str, str], ec.EllipticCurvePrivateKey] = {}
        self._pushes = itertools.count(1)

    @property
    def name(self) -> MeshName:
        return MeshName.LINKERD

    def not_applicable(self, cell: Cell) -> str | None:
        return posture.not_applicable(cell)

    def resources(self, cell: Cell, placement: Placement) -> str:
        return posture.resources(cell)

    def processes(self, placement: Placement, workers: int) -> Sequence[ProcessPlan]:
        proxy = str(binary.proxy_path())
        controller = placement.directory / CONTROLLER_DIRECTORY
        anchors = self._authority(placement).anchor_pem
        plans = [
            ProcessPlan(
                pod=placement.workloads[0].name,
                role="controller",
                argv=(sys.executable, "-m", "meshwise.mesh.linkerd.controller", str(controller)),
                environment={name: os.environ[name] for name in _INHERITED if name in os.environ},
            )
        ]
        for placed in placement.workloads:
            relay = (sys.executable, "-I", "-S", str(_RELAY), str(CONTROL_PORT), str(controller / API_SOCKET))
            plans.append(ProcessPlan(pod=placed.name, role="relay", argv=relay))
            plans.append(
                ProcessPlan(
                    pod=placed.name,
                    role="proxy",
                    argv=(proxy,),
                    environment=sidecar.environment(placed, placement, workers, anchors),
                    uid=PROXY_UID,
                    ready=Ready(ADMIN_PORT, "/ready"),
                )
            )
        return plans

    def capture(self, workload: str) -> Capture | None:
        return Capture(
            inbound_port=INBOUND_PORT,
            outbound_port=OUTBOUND_PORT,
            proxy_uid=PROXY_UID,
            inbound_exempt_ports=INBOUND_SKIP_PORTS,
            outbound_exempt_ports=OUTBOUND_SKIP_PORTS,
        )

    def prepare(self, placement: Placement, cell: Cell) -> None:
        if not _RESOLVER.is_file():
            raise messages.NO_RESOLVER.error(path=_RESOLVER)
        hand_over(placement.directory, PROXY_UID)
        tokens = {}
        for placed in placement.workloads:
            key = self._keys.setdefault((placement.process_set, placed.name), authority.make_key())
            token = secrets.token_urlsafe(32)
            sidecar.lay_out(placed, placement, key, token)
            tokens[identity_of(placed.workload, placement)] = authority.token_digest(token.encode())
        controller = private_directory(placement.directory / CONTROLLER_DIRECTORY)
        authority.store_issuer(self._authority(placement).issuer, controller)
        settings = {"tokens": tokens, "leaf_life_s": authority.LEAF_LIFE.total_seconds()}
        write_private(controller / "identities.json", json.dumps(settings))
        outsiders.issue(placement, self._authority(placement))
        self._write_snapshot(placement, cell)

    def apply(self, placement: Placement, cell: Cell, dial: Dial) -> None:
        made = self._write_snapshot(placement, cell)
        status = command.tell(placement.directory / CONTROLLER_DIRECTORY, "reload", placement.process_set)
        if status["unknown_calls"]:
            raise _strange(f"it called {', '.join(status['unknown_calls'])}")
        try:
            proof.settle(placement, cell, dial, made)
        except MeshwiseError as error:
            if error.code == messages.CONFIG_SLOW.code and binary.untried():
                raise _strange(error.what) from error
            raise

    def prove(self, placement: Placement, cell: Cell, dial: Dial) -> Proof:
        status = command.tell(placement.directory / CONTROLLER_DIRECTORY, "status", placement.process_set)
        return proof.prove(placement, cell, dial, self._snapshot(placement, cell, 0), status)

    def state(self, placement: Placement, cell: Cell, dial: Dial) -> Mapping[str, str]:
        used = [placed.name for placed in placement.of(cell.topology)]
        return dump.ask_all(lambda pod: Admin(pod, dial), used, _STATE)

    def request(self, cell: Cell) -> Headers:
        return request_of(cell)

    def samplers(self, placement: Placement, dial: Dial) -> Sequence[Sampler]:
        return [ProxySampler(placement, placed.name, dial) for placed in placement.workloads]

    def describe(self) -> Mapping[str, str]:
        found = binary.facts(binary.proxy_path())
        return {
            "proxy": "linkerd2-proxy",
            "worker_model": "tokio worker threads (CORES), one more for administration",
            "tls_library": TLS_LIBRARY,
            **found,
        }

    def traits(self) -> Mapping[str, str]:
        return traits.traits(self.transport, TLS_LIBRARY)

    def fidelity(self, *, privileged: bool) -> Sequence[Fidelity]:
        return fidelity.differences(self.transport, binary.untried(), privileged=privileged)

    # --- how a posture gets there ------------------------------------------------------------------

    def _authority(self, placement: Placement) -> authority.Authority:
        domain = placement.trust_domain
        if domain not in self._authorities:
            self._authorities[domain] = authority.make_authority(domain)
        return self._authorities[domain]

    def _snapshot(self, placement: Placement, cell: Cell, version: int) -> Any:
        return snapshot(
            _parsed(self.resources(cell, placement)), placement, version, self._transport_for(cell)
        )

    def _transport_for(self, cell: Cell) -> Transport:
        """The mesh's own, with the upgrade that the cell asks for."""
        if cell.http1_transport is Http1Transport.DEFAULT:
            return self.transport
        return replace(self.transport, http2_upgrade=cell.http1_transport is Http1Transport.HTTP2)

    def _write_snapshot(self, placement: Placement, cell: Cell) -> Any:
        made = self._snapshot(placement, cell, next(self._pushes))
        path = placement.directory / CONTROLLER_DIRECTORY / SNAPSHOT_FILE
        write_private(path, made.SerializeToString())
        return made


def _strange(reason: str) -> MeshwiseError:
    facts = binary.facts(binary.proxy_path())
    return messages.STRANGE_PROXY.error(
        path=facts["path"], version=facts["version"], reason=reason, pinned=binary.pinned()
    )


@lru_cache(maxsize=64)
def _parsed(text: str) -> Resources:
    return parse(text)
