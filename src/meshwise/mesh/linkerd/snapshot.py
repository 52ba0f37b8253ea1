"""One immutable snapshot: all that the control plane answers in one posture. Pure.

resources (YAML) -> policy, destinations -> Snapshot -> file -> controller -> proxies
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from meshwise.mesh.linkerd import destinations, policy
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.names import ADMIN_PORT, workload_token
from meshwise.mesh.linkerd.proto import snapshot_pb2
from meshwise.mesh.linkerd.resources import LinkerdResources
from meshwise.mesh.seam import Placement
from meshwise.study.model import Workload


def snapshot(
    resources: LinkerdResources,
    placement: Placement,
    version: int,
    transport: Transport,
    absent: Sequence[Workload] = (),
) -> Any:
    """`snapshot_pb2.Snapshot`. `absent`: workloads without a pod here, which resources may name. Raises MW420
    for resources with references that lead nowhere."""
    workloads = [*(placed.workload for placed in placement.workloads), *absent]
    policy.checked(resources, workloads)
    made = snapshot_pb2.Snapshot(version=version)
    for placed in placement.workloads:
        workload = placed.workload
        entry = made.workloads.add(token=workload_token(placed))
        ports = [port for _, port in workload.ports]
        for port in ports:
            entry.ports[port].CopyFrom(policy.server_for(resources, workload, port, placement.trust_domain))
        # The statistics are read in every posture in the same way, so their port is open in every posture.
        entry.ports[ADMIN_PORT].CopyFrom(policy.default_server("all-unauthenticated"))
        entry.other_ports.CopyFrom(
            policy.default_server(policy.default_policy(resources, workload.namespace))
        )
        tls = not policy.identity_withheld(resources, workload)
        for port in ports:
            opaque = policy.is_opaque(resources, workload.namespace, port)
            here = destinations.Port(placed, port, tls=tls, opaque=opaque)
            made.services.append(destinations.service(here, placement, transport))
    made.fingerprint = _fingerprint(made)
    return made


def _fingerprint(made: Any) -> str:
    content = snapshot_pb2.Snapshot(workloads=made.workloads, services=made.services)
    return hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()[:16]
