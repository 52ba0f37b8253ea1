"""Proof of how two sidecars convince each other: version, group, key, chain, list of revoked certificates,
match of names, sessions. What can be seen on the wire is; the client's side of names and sessions is
read off the configuration that its proxy says it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwise.mesh.expectations import Expectation, Meaning, What, Who
from meshwise.mesh.identity import CLOCK_SKEW, form_of
from meshwise.mesh.istio.admin import EnvoyAdmin
from meshwise.mesh.istio.caller import SIGNS
from meshwise.mesh.probe import Handshake, ProbeAnswer, check_of
from meshwise.mesh.seam import Check
from meshwise.study.model import Cell, Resumption, TlsGroup, TlsVersion, Workload

_TLS_1_3 = "TLSv1.3"


@dataclass(frozen=True)
class ClientSide:
    """How a client's sidecar calls a service, in its own words."""

    names: str
    """What it wants of the server's name: `exact`, `prefix`; of several kinds each."""
    keeps_sessions: bool


def client_side(admin: EnvoyAdmin, cell: Cell, callee: Workload) -> ClientSide | None:
    """None where no cluster of the service uses TLS. Raises MW406 for a silent proxy."""
    name = f"^outbound.{callee.port(cell.protocol)}..{callee.host.replace('.', '[.]')}$"
    answer = admin.json(f"/config_dump?resource=dynamic_active_clusters&name_regex={name}")
    clusters = [each["cluster"] for each in answer.get("configs", ())]
    contexts = [context for cluster in clusters if (context := _context(cluster)) is not None]
    return _side(contexts[0]) if contexts else None


def _context(cluster: Mapping[str, Any]) -> Mapping[str, Any] | None:
    sockets = [
        cluster.get("transport_socket"),
        *(each["transport_socket"] for each in cluster.get("transport_socket_matches", ())),
    ]
    found = (socket["typed_config"] for socket in sockets if socket)
    return next((each for each in found if "common_tls_context" in each), None)


def _side(context: Mapping[str, Any]) -> ClientSide:
    validation = context["common_tls_context"]["combined_validation_context"]["default_validation_context"]
    matchers = [
        *(each["matcher"] for each in validation.get("match_typed_subject_alt_names", ())),
        *validation.get("match_subject_alt_names", ()),  # what istiod still sends
    ]
    kinds = {kind for each in matchers for kind in each}
    return ClientSide(" ".join(sorted(kinds)) or "any", context.get("max_session_keys") != 0)


def between_sidecars(cell: Cell, versions: Sequence[str], groups: Sequence[str]) -> list[Check]:
    """Of what the client's sidecar counted in its handshakes with the first node."""
    wanted = "TLSv1.2" if cell.tls_version is TlsVersion.TLS_1_2 else _TLS_1_3
    group = cell.tls_group.upper()
    return [
        *(
            [_same("TLS group between sidecars", group, " ".join(groups))]
            if cell.tls_group is not TlsGroup.DEFAULT
            else ()
        ),
        _same("TLS version between sidecars", wanted, " ".join(versions)),
    ]


def of_server(
    cell: Cell, seen: Handshake, resumed: bool, revoked: ProbeAnswer | None, side: ClientSide | None
) -> tuple[list[Check], Mapping[str, str]]:
    """Of what the client's twin saw of the first node's sidecar. `revoked`: what came of a call with a
    revoked certificate, which is made where there is a list."""
    life_s = seen.valid_s - CLOCK_SKEW.total_seconds()
    checks = [
        _same("key of the server's certificate", str(cell.key_type), seen.peer_key),
        _same("intermediates that the server sends", str(cell.chain_depth), str(seen.chain - 1)),
        _same(
            "life of the server's certificate", f"{form_of(cell).life.total_seconds():g} s", f"{life_s:g} s"
        ),
        *(
            []
            if side is None
            else [_same("names that the client's sidecar wants", cell.san_match, side.names)]
        ),
    ]
    if cell.resumption is not Resumption.DEFAULT:
        wanted = cell.resumption is Resumption.ON
        checks.append(_same("sessions that the server resumes", _whether(wanted), _whether(resumed)))
        keeps = side is not None and side.keeps_sessions
        checks.append(_same("sessions that the client's sidecar keeps", _whether(wanted), _whether(keeps)))
    if revoked is not None:
        row = Expectation(Who.TWIN, What.ALLOWED, Meaning.PEER_REFUSED)
        signs = SIGNS[cell.topology.entry.speaks(cell.protocol).layer]
        checks.append(check_of(row, revoked, signs, "with a revoked certificate: "))
    facts = {
        "server_key": seen.peer_key,
        "chain_depth": str(seen.chain - 1),
        "certificate_life": f"{life_s:g} s",
        "crl": f"read; {revoked}" if revoked is not None else "none",
        "resumption": "offered, and taken up by a second connection" if resumed else "none",
    }
    return checks, facts | ({"san_match": side.names} if side is not None else {})


def _whether(there: bool) -> str:
    return "yes" if there else "no"


def _same(name: str, expected: str, observed: str) -> Check:
    return Check(name, expected, observed or "none", expected == observed)
