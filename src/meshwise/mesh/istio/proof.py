"""Proof of a posture on running sidecars: the table of expectations in reality, and the proxies' counters.

Rules of this file:
- Two observations wherever there can be two: what a caller saw, and what the proxies counted.
- The handshake that matters is the one between the sidecars; only their counters can tell of it. The
  names in certificates are read by a TLS client of our own that calls the server side.
- Every hop is called by itself, through its caller's sidecar, in its own protocol: what an application does
  for a request (sleeps, chance, errors of its own) is not what is proven here. What a callee has to answer
  goes by the posture that it demands itself (`study.demands`).
- It must be cheap (tens of calls, well under half a second; many services at once): it runs before every
  trial.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshwise.mesh.expectations import Expectation, Meaning, What, Who, expectations
from meshwise.mesh.identity import spiffe_id
from meshwise.mesh.istio.admin import EnvoyAdmin, Stats, grown, total
from meshwise.mesh.istio.caller import SIGNS, IstioCaller
from meshwise.mesh.istio.handshake import ClientSide, between_sidecars, client_side, of_server
from meshwise.mesh.probe import Handshake, ProbeAnswer, check_of
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import Check, PlacedWorkload, Placement
from meshwise.mesh.together import together
from meshwise.study.demands import effective_posture
from meshwise.study.model import (
    Authorization,
    Cell,
    Http1Transport,
    Layer,
    MtlsMode,
    Posture,
    Protocol,
    Workload,
)

_COUNTERS = (
    r"^((cluster\.outbound.*|listener\.0\.0\.0\.0_15006)\.(ssl\.(handshake|session_reused|connection_error"
    r"|fail_verify.*|(versions|curves|ciphers)\..*)|no_filter_chain_match)"
    r"|cluster\.outbound.*\.upstream_cx_(total|http2_total)"
    r"|(http\.inbound_.*|tcp)\.(rbac|jwt_authn)\.(allowed|denied)"
    r"|listener_manager\.lds\.version_text|cluster_manager\.cds\.version_text|server\.concurrency)$"
)
_VERSIONS = ("listener_manager.lds.version_text", "cluster_manager.cds.version_text")

Answered = list[tuple[Expectation, ProbeAnswer]]


@dataclass(frozen=True)
class IstioEvidence:
    """What was seen and counted; per hop, or per workload by name."""

    called: Sequence[ProbeAnswer]
    """Of every hop's allowed call, the client's first."""
    answers: Answered
    """Of the table of expectations at the first node."""
    beyond: Sequence[Answered]
    """Of what is tried at the nodes behind it."""
    before: Mapping[str, Stats]
    between: Mapping[str, Stats]
    """After the hops' calls."""
    after: Mapping[str, Stats]
    process: Mapping[str, str]
    """What the client's proxy says of itself."""
    handshake: Handshake | None
    """Of the client's twin at the first node."""
    resumed: bool
    side: ClientSide | None
    """How the client's sidecar calls the first node; None without TLS."""
    revoked: ProbeAnswer | None
    """What comes of a revoked certificate at the first node; None where no list of them is read."""


def gather(placement: Placement, cell: Cell, reach: Reach) -> IstioEvidence:
    """Make the calls and read the counters. Raises MW406 for a silent proxy."""
    used = placement.of(cell.topology)
    first = used[1]
    caller = IstioCaller(placement, cell, reach)
    admins = {placed.name: EnvoyAdmin(placed.name, reach) for placed in used}
    before = _read(admins)
    called = together(lambda hop: caller.call(hop[1], Who.MESH, What.ALLOWED, hop[0]), _hops(placement, cell))
    between = _read(admins)
    table = rows(cell, first.name)
    answers = [
        (row, called[0] if row == table[0] else caller.call(first, row.who, row.what)) for row in table
    ]
    beyond = together(caller.try_beyond, placement.behind(cell.topology))
    resumed = caller.resume(first)
    after = _read(admins)
    secure = caller.handshake is not None
    side = client_side(admins[used[0].name], cell, first.workload) if secure else None
    revoked = caller.revoked(first) if secure and cell.crl_entries else None
    process = _facts_of_process(admins[used[0].name])
    return IstioEvidence(
        called, answers, beyond, before, between, after, process, caller.handshake, resumed, side, revoked
    )


def rows(cell: Cell, callee: str) -> tuple[Expectation, ...]:
    """The table of expectations at one workload."""
    return expectations(*_asked_of(cell, callee))


def judge(
    placement: Placement, cell: Cell, evidence: IstioEvidence, fingerprint: str, workers: int
) -> tuple[tuple[Check, ...], Mapping[str, str]]:
    """Checks and facts. `fingerprint`: what every used proxy's version has to begin with; `workers`: how many
    threads each has to run."""
    used, hops, rest = (
        placement.of(cell.topology),
        _hops(placement, cell),
        placement.behind(cell.topology),
    )
    client, first = used[0], used[1]
    seen, after = evidence.handshake, evidence.after
    moved = {name: grown(evidence.before[name], evidence.between[name]) for name in after}
    judged = {name: grown(evidence.before[name], after[name]) for name in after}
    layer = _asked_of(cell, first.name)[1]
    checks = [check_of(row, answer, SIGNS[layer]) for row, answer in evidence.answers]
    for (source, target), answer in list(zip(hops, evidence.called, strict=True))[1:]:
        row = Expectation(Who.MESH, What.ALLOWED, Meaning.ANSWERED)
        where = f"{source.name} -> {target.name}: "
        checks.append(check_of(row, answer, SIGNS[_asked_of(cell, target.name)[1]], where))
    for placed, tried in zip(rest, evidence.beyond, strict=True):
        signs = SIGNS[_asked_of(cell, placed.name)[1]]
        checks += [check_of(row, answer, signs, f"{placed.name}: ") for row, answer in tried]
    checks += _between_sidecars(cell, moved[client.name], moved[first.name])
    checks += _http1_transport(cell, moved[client.name])
    checks += [_hop(cell, source.name, target.name, moved) for source, target in hops[1:]]
    checks += _policies(cell, first, evidence.answers, judged[first.name])
    for placed, tried in zip(rest, evidence.beyond, strict=True):
        checks += _policies(cell, placed, tried, judged[placed.name], f"{placed.name}: ")
    checks += [_version(name, stats, fingerprint) for name, stats in after.items()]
    checks += [_workers(name, stats, workers) for name, stats in after.items()]
    facts = {**_facts_of_sidecars(moved[client.name]), **evidence.process}
    if seen:
        wanted = spiffe_id(placement.trust_domain, first.workload.namespace, first.workload.service_account)
        checks.append(_same("identity of the server", wanted, " ".join(seen.peer_ids)))
        more, found = of_server(cell, seen, evidence.resumed, evidence.revoked, evidence.side)
        checks += more
        facts |= {"server_identity": " ".join(seen.peer_ids), **found}
    return tuple(checks), facts


def _hops(placement: Placement, cell: Cell) -> list[tuple[PlacedWorkload, PlacedWorkload]]:
    return [(placement[w.name], placement[name]) for w in cell.topology.workloads for name in w.calls]


def _read(admins: Mapping[str, EnvoyAdmin]) -> Mapping[str, Stats]:
    names = list(admins)
    return dict(zip(names, together(lambda name: admins[name].stats(_COUNTERS), names), strict=True))


def _asked_of(cell: Cell, callee: str) -> tuple[Posture, Layer]:
    """The posture that a workload's callers meet, and what its proxy reads of what they send."""
    workload = cell.topology[callee]
    return effective_posture(cell, workload), workload.speaks(cell.protocol).layer


# --- what the proxies counted --------------------------------------------------------------------


def _between_sidecars(cell: Cell, client: Stats, server: Stats) -> list[Check]:
    """The allowed call made a fresh handshake between the sidecars, or in plaintext none."""
    at_client = total(client, r"cluster\.outbound.*\.ssl\.handshake")
    at_server = total(server, r"listener\..*\.ssl\.handshake")
    observed = f"{at_client} at the client's sidecar, {at_server} at the server's"
    if effective_posture(cell, cell.topology.entry).mtls is MtlsMode.DISABLE:
        return [Check("handshakes between sidecars", "none", observed, at_client == at_server == 0)]
    return [
        Check("handshakes between sidecars", "at least one", observed, at_client > 0 and at_server > 0),
        *between_sidecars(cell, _names(client, "versions"), _names(client, "curves")),
    ]


def _http1_transport(cell: Cell, client: Stats) -> list[Check]:
    """HTTP/1.1 left the client's sidecar by the transport that the cell asks for; unasked Istio keeps it."""
    if cell.topology.entry.speaks(cell.protocol) is not Protocol.HTTP1:
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


def _hop(cell: Cell, source: str, target: str, moved: Mapping[str, Stats]) -> Check:
    """The call from one node to another was a fresh handshake at both sidecars, or in plaintext none."""
    callee: Workload = cell.topology[target]
    cluster = re.escape(f"cluster.outbound|{callee.port(cell.protocol)}||{callee.host}")
    at_source = total(moved[source], rf"{cluster};?\.ssl\.handshake")
    at_target = total(moved[target], r"listener\..*\.ssl\.handshake")
    observed = f"{at_source} at {source}'s sidecar, {at_target} at {target}'s"
    name = f"{source} -> {target}: handshakes between sidecars"
    if effective_posture(cell, callee).mtls is MtlsMode.DISABLE:
        return Check(name, "none", observed, at_source == at_target == 0)
    return Check(name, "at least one", observed, at_source > 0 and at_target > 0)


def _policies(
    cell: Cell, placed: PlacedWorkload, tried: Answered, server: Stats, where: str = ""
) -> list[Check]:
    """Refusals by policy were counted by the filter that has to make them, and nothing else was."""
    posture, layer = _asked_of(cell, placed.name)
    opaque = layer is Layer.L4
    filters, judged = ("tcp", "connections") if opaque else (r"http\.inbound_.*", "requests")
    denied = total(server, rf"{filters}\.rbac\.denied")
    allowed = total(server, rf"{filters}\.rbac\.allowed")
    refused = total(server, r"http\.inbound_.*\.jwt_authn\.denied")
    wanted_denied = sum(row.meaning is Meaning.DENIED for row, _ in tried)
    wanted_refused = sum(row.meaning is Meaning.TOKEN_REFUSED for row, _ in tried)
    if posture.authorization is Authorization.NONE:
        observed = f"{allowed} allowed, {denied} denied, {refused} tokens refused"
        return [Check(f"{where}{judged} judged by policy", "none", observed, allowed + denied + refused == 0)]
    return [
        Check(f"{where}{judged} allowed by policy", "at least 1", str(allowed), allowed > 0),
        Check(f"{where}{judged} denied by policy", str(wanted_denied), str(denied), denied == wanted_denied),
        Check(f"{where}tokens refused", str(wanted_refused), str(refused), refused == wanted_refused),
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


def _facts_of_process(client: EnvoyAdmin) -> Mapping[str, str]:
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
