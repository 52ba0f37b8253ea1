"""What is special to each mesh when it is attacked: its TLS client, its ports, its counters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from meshwise.mesh.istio import bootstrap
from meshwise.mesh.istio.admin import EnvoyAdmin
from meshwise.mesh.istio.caller import tls_client
from meshwise.mesh.istio.listeners import INBOUND_PORT as ENVOY_INBOUND
from meshwise.mesh.istio.listeners import OUTBOUND_PORT as ENVOY_OUTBOUND
from meshwise.mesh.linkerd import direct
from meshwise.mesh.linkerd.admin import ProxyAdmin
from meshwise.mesh.linkerd.names import ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT, identity_of
from meshwise.mesh.probe import TlsAs
from meshwise.mesh.protection.credentials import Credential, credential_files
from meshwise.mesh.protection.scene import Counted, Side
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import PlacedWorkload, Placement
from meshwise.study.model import Cell, MeshName

_ENVOY_COUNTERS = (
    r"(http\.inbound_.*|tcp)\.(rbac|jwt_authn)\.(allowed|denied)"
    r"|listener\.0\.0\.0\.0_15006\.(ssl\.(handshake|connection_error|fail_verify.*|no_certificate)"
    r"|no_filter_chain_match)"
)
_LINKERD_COUNTERS = re.compile(r"inbound_(http|tcp)_(authz_(allow|deny)_total|errors_total)")


def _istio_tls(placement: Placement, cell: Cell, target: PlacedWorkload, who: Credential | None) -> TlsAs:
    root = str(credential_files(placement, Credential.CLIENT).root)
    return tls_client(cell, target, credential_files(placement, who) if who else None, root)


def _linkerd_tls(placement: Placement, cell: Cell, target: PlacedWorkload, who: Credential | None) -> TlsAs:
    root = str(credential_files(placement, Credential.CLIENT).root)
    identity = credential_files(placement, who) if who else None
    return TlsAs(identity, root, server_name=identity_of(target.workload, placement))


def _envoy_counted(reach: Reach, pod: str) -> Counted:
    found: Counter[str] = Counter()
    for name, value in EnvoyAdmin(pod, reach).stats(f"^({_ENVOY_COUNTERS})$").items():
        if isinstance(value, int):
            found[_short(name)] += value
    return found


def _short(name: str) -> str:
    """`http.inbound_0.0.0.0_8080;.rbac.denied` -> `rbac.denied`."""
    return re.sub(r"^(http\.inbound_[^;]*;?\.|listener\.0\.0\.0\.0_15006\.)", "", name)


def _linkerd_counted(reach: Reach, pod: str) -> Counted:
    """Without the connections over loopback, on which this is asked."""
    found: Counter[str] = Counter()
    for each in ProxyAdmin(pod, reach).matching(_LINKERD_COUNTERS):
        if each.labels.get("target_addr", "").startswith("127."):
            continue
        reason = each.labels.get("error", "")
        found[f"{each.name}{f' ({reason})' if reason else ''}"] += int(each.value)
    return found


def _nothing_counted(_reach: Reach, _pod: str) -> Counted:
    return {}


def _no_tls(placement: Placement, cell: Cell, target: PlacedWorkload, who: Credential | None) -> TlsAs:
    raise AssertionError("without a mesh there is no TLS: such attempts are not applicable")


SIDES: Mapping[MeshName, Side] = {
    MeshName.NONE: Side(MeshName.NONE, _no_tls, _nothing_counted),
    MeshName.ISTIO: Side(
        MeshName.ISTIO,
        _istio_tls,
        _envoy_counted,
        inbound_port=ENVOY_INBOUND,
        outbound_port=ENVOY_OUTBOUND,
        admin_port=bootstrap.ADMIN_PORT,
        metrics=(bootstrap.METRICS_PORT, "/stats/prometheus"),
        tunnel_port=bootstrap.TUNNEL_PORT,
    ),
    MeshName.LINKERD: Side(
        MeshName.LINKERD,
        _linkerd_tls,
        _linkerd_counted,
        inbound_port=INBOUND_PORT,
        outbound_port=OUTBOUND_PORT,
        admin_port=ADMIN_PORT,
        metrics=(ADMIN_PORT, "/metrics"),
        reason_fields=("l5d-proxy-error",),
        forms=lambda tls, port: (direct.to_port(tls, port), INBOUND_PORT),
    ),
}
