"""Proof of a posture on running sidecars: the table of expectations in reality, and the proxies' counters.

Laws of this file:
- Two witnesses for everything that can have two: what a caller saw, and what the proxies counted.
- The handshake that matters is the one between the sidecars; only their counters can tell of it. The
  names in certificates are read by a TLS client of our own that calls the server side.
- It must be cheap (tens of calls, well under half a second): it runs before every trial.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from meshwise.mesh.expectations import (
    VARIANT,
    Expectation,
    Meaning,
    Seen,
    Signs,
    What,
    Who,
    expectations,
    meaning_of,
)
from meshwise.mesh.identity import spiffe_id
from meshwise.mesh.istio.admin import Admin, Stats, grown, total
from meshwise.mesh.istio.workloads import files_of_outsiders
from meshwise.mesh.probe import Answer, Handshake, TlsAs, ask, check_of, variant
from meshwise.mesh.request import plan_of
from meshwise.mesh.seam import OUTSIDER, Check, Dial, PlacedWorkload, Placement, Proof
from meshwise.service.plan import Plan
from meshwise.study.model import (
    SERVICE_PORTS,
    Authorization,
    Cell,
    Http1Transport,
    Level,
    MtlsMode,
    Protocol,
    TlsGroup,
)

SIGNS: Signs = {
    Meaning.ANSWERED: frozenset({Seen.OK}),
    Meaning.PEER_REFUSED: frozenset({Seen.CLOSED, Seen.TLS_FAILED}),
    Meaning.NO_TLS: frozenset({Seen.CLOSED, Seen.TLS_FAILED}),
    Meaning.DENIED: frozenset({Seen.FORBIDDEN}),
    Meaning.TOKEN_REFUSED: frozenset({Seen.UNAUTHENTICATED}),
}
"""How Istio refuses."""
L4_SIGNS: Signs = {**SIGNS, Meaning.DENIED: frozenset({Seen.CLOSED})}


def signs(cell: Cell) -> Signs:
    return L4_SIGNS if cell.protocol.level is Level.L4 else SIGNS


_COUNTERS = (
    r"^((cluster\.outbound.*|listener\.0\.0\.0\.0_15006)\.(ssl\.(handshake|session_reused|connection_error"
    r"|fail_verify.*|(versions|curves|ciphers)\..*)|no_filter_chain_match)"
    r"|cluster\.outbound.*\.upstream_cx_(total|http2_total)"
    r"|(http\.inbound_.*|tcp)\.(rbac|jwt_authn)\.(allowed|denied)"
    r"|listener_manager\.lds\.version_text|cluster_manager\.cds\.version_text|server\.concurrency)$"
)
_VERSIONS = ("listener_manager.lds.version_text", "cluster_manager.cds.version_text")


def prove(placement: Placement, cell: Cell, dial: Dial, fingerprint: str, workers: int) -> Proof:
    """`fingerprint`: what every used proxy's version has to begin with; `workers`: how many threads each
    has to run. Raises MW406 for a silent proxy."""
    begun_ns = time.monotonic_ns()
    topology = cell.topology
    used = placement.of(topology)
    client, first = used[0], used[1]
    caller = _Caller(placement, cell, dial)
    with ExitStack() as stack:
        admins = {placed.name: stack.enter_context(Admin(placed.name, dial)) for placed in used}
        before = {name: admin.stats(_COUNTERS) for name, admin in admins.items()}
        allowed = caller.call(first, Who.MESH, What.ALLOWED)
        sidecars = {name: admin.stats(_COUNTERS) for name, admin in admins.items()}
        rows = expectations(cell.posture, cell.protocol.level)
        answers = [
            (row, allowed if row == rows[0] else caller.call(first, row.who, row.what)) for row in rows
        ]
        checks = [check_of(row, answer, signs(cell)) for row, answer in answers]
        checks += [check for placed in used[2:] for check in caller.check_beyond(placed)]
        seen = caller.handshake
        resumed = caller.resume(first)
        after = {name: admin.stats(_COUNTERS) for name, admin in admins.items()}
        moved = grown(before[client.name], sidecars[client.name])
        checks += _between_sidecars(cell, moved, grown(before[first.name], sidecars[first.name]))
        checks += _http1_transport(cell, moved)
        checks += [
            _hop(cell, placed.name, grown(before[placed.name], sidecars[placed.name])) for placed in used[2:]
        ]
        checks += _policies(cell, [row for row, _ in answers], grown(before[first.name], after[first.name]))
        checks += [_version(name, stats, fingerprint) for name, stats in after.items()]
        checks += [_workers(name, stats, workers) for name, stats in after.items()]
        facts = {**_facts_of_sidecars(moved), **_facts_of_process(admins[client.name])}
    if seen:
        wanted = spiffe_id(placement.trust_domain, first.workload.namespace, first.workload.service_account)
        checks.append(_same("identity of the server", wanted, " ".join(seen.peer_ids)))
        checks.append(_same("key of the server's certificate", str(cell.key_type), seen.peer_key))
        facts |= {"server_identity": " ".join(seen.peer_ids), "server_key": seen.peer_key}
        facts["resumption"] = "offered, and taken up by a second connection" if resumed else "not offered"
    return Proof(tuple(checks), facts, time.monotonic_ns() - begun_ns)


_BEYOND = (
    (Who.PLAINTEXT, What.ALLOWED),
    (Who.OTHER_NAMESPACE, What.ALLOWED),
    (Who.MESH, What.OTHER_METHOD),
    (Who.MESH, What.NO_TOKEN),
)
"""What is tried at the nodes behind the first; that those answer their callers, the allowed call shows."""


class _Caller:
    """Makes the calls of the table; keeps the first handshake that it saw."""

    def __init__(self, placement: Placement, cell: Cell, dial: Dial) -> None:
        self._placement, self._cell, self._dial = placement, cell, dial
        self._topology = cell.topology
        self._port = SERVICE_PORTS[cell.protocol]
        self._files = files_of_outsiders(placement)
        self.handshake: Handshake | None = None

    def call(self, target: PlacedWorkload, who: Who, what: What) -> Answer:
        through_mesh = who is Who.MESH
        pod = self._topology.callers(target.name)[0].name if through_mesh else OUTSIDER
        address = target.service_ip if through_mesh else target.pod_ip
        plan = plan_of(self._cell) if through_mesh and what is What.ALLOWED else Plan()
        request = variant(self._cell, what, f"{target.workload.host}:{self._port}", plan)
        secure = None if who in (Who.MESH, Who.PLAINTEXT) else self._tls(who, target)
        answer = ask(lambda: self._dial(pod, address, self._port), request, secure)
        if who is Who.TWIN:
            self.handshake = self.handshake or answer.handshake
        return answer

    def check_beyond(self, target: PlacedWorkload) -> list[Check]:
        """A mesh caller calls through the sidecar of the workload that the policy names."""
        posture = self._cell.posture
        rows = [
            Expectation(who, what, meaning_of(posture, who, what))
            for who, what in _BEYOND
            if what in VARIANT[posture.authorization]
        ]
        return [
            check_of(row, self.call(target, row.who, row.what), SIGNS, f"{target.name}: ") for row in rows
        ]

    def resume(self, target: PlacedWorkload) -> bool:
        """Whether the server lets a client resume the session of the handshake that was seen."""
        if self.handshake is None or self.handshake.ticket is None:
            return False
        request = variant(self._cell, What.ALLOWED, f"{target.workload.host}:{self._port}", Plan())
        secure = replace(self._tls(Who.TWIN, target), ticket=self.handshake.ticket)
        answer = ask(lambda: self._dial(OUTSIDER, target.pod_ip, self._port), request, secure)
        return bool(answer.handshake and answer.handshake.resumed)

    def _tls(self, who: Who, target: PlacedWorkload) -> TlsAs:
        return TlsAs(
            identity=self._files.get(who),
            root=str(self._files[Who.TWIN].root),
            server_name=f"outbound_.{self._port}_._.{target.workload.host}",
            alpn=_ALPN[self._cell.protocol],
        )


_ALPN = {
    Protocol.HTTP1: ("istio-http/1.1", "istio", "http/1.1"),
    Protocol.HTTP2: ("istio-h2", "istio", "h2"),
    Protocol.GRPC: ("istio-h2", "istio", "h2"),
    Protocol.TCP: ("istio",),
}
"""What a sidecar offers; without `istio-peer-exchange`, which would have to be followed by metadata."""


# --- what the proxies counted --------------------------------------------------------------------


def _between_sidecars(cell: Cell, client: Stats, server: Stats) -> list[Check]:
    """The allowed call made a fresh handshake between the sidecars, or in plaintext none."""
    at_client = total(client, r"cluster\.outbound.*\.ssl\.handshake")
    at_server = total(server, r"listener\..*\.ssl\.handshake")
    observed = f"{at_client} at the client's sidecar, {at_server} at the server's"
    if cell.posture.mtls is MtlsMode.DISABLE:
        return [Check("handshakes between sidecars", "none", observed, at_client == at_server == 0)]
    versions = _names(client, "versions")
    group = cell.tls_group.upper()
    return [
        *(
            [_same("TLS group between sidecars", group, " ".join(_names(client, "curves")))]
            if cell.tls_group is not TlsGroup.DEFAULT
            else ()
        ),
        Check("handshakes between sidecars", "at least one", observed, at_client > 0 and at_server > 0),
        _same("TLS version between sidecars", "TLSv1.3", " ".join(versions)),
    ]


def _http1_transport(cell: Cell, client: Stats) -> list[Check]:
    """HTTP/1.1 left the client's sidecar by the transport that the cell asks for; unasked Istio keeps it."""
    if cell.protocol is not Protocol.HTTP1:
        return []
    opened = total(client, r"cluster\.outbound.*\.upstream_cx_total")
    http2 = total(client, r"cluster\.outbound.*\.upstream_cx_http2_total")
    wanted = cell.http1_transport is Http1Transport.HTTP2
    return [
        Check(
            "connections between sidecars",
            "HTTP/2 for HTTP/1.1 requests" if wanted else "HTTP/1.1",
            f"{http2} of {opened} with HTTP/2",
            opened > 0 and http2 == (opened if wanted else 0),
        )
    ]


def _hop(cell: Cell, name: str, server: Stats) -> Check:
    """The allowed call went on to the nodes behind the first one in the same way."""
    count = total(server, r"listener\..*\.ssl\.handshake")
    plain = cell.posture.mtls is MtlsMode.DISABLE
    expected = "none" if plain else "at least one"
    return Check(f"handshakes at {name}'s sidecar", expected, str(count), (count == 0) == plain)


def _policies(cell: Cell, rows: list[Expectation], server: Stats) -> list[Check]:
    """Refusals by policy were counted by the filter that has to make them, and nothing else was."""
    opaque = cell.protocol.level is Level.L4
    filters, judged = ("tcp", "connections") if opaque else (r"http\.inbound_.*", "requests")
    denied = total(server, rf"{filters}\.rbac\.denied")
    allowed = total(server, rf"{filters}\.rbac\.allowed")
    refused = total(server, r"http\.inbound_.*\.jwt_authn\.denied")
    wanted_denied = sum(row.meaning is Meaning.DENIED for row in rows)
    wanted_refused = sum(row.meaning is Meaning.TOKEN_REFUSED for row in rows)
    if cell.posture.authorization is Authorization.NONE:
        observed = f"{allowed} allowed, {denied} denied, {refused} tokens refused"
        return [Check(f"{judged} judged by policy", "none", observed, allowed + denied + refused == 0)]
    return [
        Check(f"{judged} allowed by policy", "at least 1", str(allowed), allowed > 0),
        Check(f"{judged} denied by policy", str(wanted_denied), str(denied), denied == wanted_denied),
        Check("tokens refused", str(wanted_refused), str(refused), refused == wanted_refused),
    ]


def _version(pod: str, stats: Stats, fingerprint: str) -> Check:
    found = sorted({str(stats.get(name, "none")) for name in _VERSIONS})
    passed = all(version.startswith(f"{fingerprint}-") for version in found)
    return Check(f"configuration of {pod}", f"{fingerprint}-*", " ".join(found), passed)


def _workers(pod: str, stats: Stats, wanted: int) -> Check:
    """Threads that the proxy says it runs, not what it was asked for."""
    found = stats.get("server.concurrency", "none")
    return Check(f"worker threads of {pod}", str(wanted), str(found), found == wanted)


def _facts_of_sidecars(client: Stats) -> Mapping[str, str]:
    kinds = {"tls_version": "versions", "tls_group": "curves", "tls_cipher": "ciphers"}
    return {fact: " ".join(_names(client, kind)) or "none" for fact, kind in kinds.items()}


def _names(stats: Stats, kind: str) -> list[str]:
    """What was counted under `ssl.<kind>.<name>`."""
    marker = f".ssl.{kind}."
    return sorted({name.partition(marker)[2] for name in stats if marker in name})


def _facts_of_process(client: Admin) -> Mapping[str, str]:
    """Build and workers; and whose certificate the client's sidecar presents."""
    info = client.json("/server_info")
    names = {
        name["uri"]
        for entry in client.json("/certs")["certificates"]
        for certificate in entry.get("cert_chain", [])
        for name in certificate.get("subject_alt_names", [])
        if "uri" in name
    }
    return {
        "build": info["version"],
        "workers": str(info["command_line_options"]["concurrency"]),
        "client_identity": " ".join(sorted(names)) or "none",
    }


def _same(name: str, expected: str, observed: str) -> Check:
    return Check(name, expected, observed or "none", expected == observed)
