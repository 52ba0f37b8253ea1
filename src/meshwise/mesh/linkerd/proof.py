"""Proof of a posture on running sidecars: the table of expectations in reality, and the proxies' counters.

Rules of this file:
- Two observations wherever there can be two: what a caller saw, and what the proxies counted.
- Identities are those that the proxies themselves verified: `client_id` at the server's, `server_id` at
  the client's sidecar, on every hop.
- Every hop is called by itself, through its caller's sidecar, in its own protocol: what an application does
  for a request is not what is proven here. What a callee has to answer goes by the posture that it demands
  itself (`study.demands`).
- It must be cheap (tens of calls, well under half a second; many services at once): it runs before every
  trial.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwise.core import messages
from meshwise.mesh.expectations import Expectation, Meaning, What, Who
from meshwise.mesh.hello import Choice
from meshwise.mesh.linkerd import hops
from meshwise.mesh.linkerd.admin import ProxyAdmin, Series, grown, total
from meshwise.mesh.linkerd.authority import CLOCK_SKEW
from meshwise.mesh.linkerd.caller import SIGNS, LinkerdCaller, layer_of
from meshwise.mesh.linkerd.hops import Hop, Readings
from meshwise.mesh.linkerd.names import INBOUND_PORT, identity_of
from meshwise.mesh.probe import Handshake, ProbeAnswer, check_of
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import OUTSIDER, Check, Delivered, PlacedWorkload, Placement
from meshwise.mesh.together import together
from meshwise.study.demands import effective_posture
from meshwise.study.model import Cell, Layer, MtlsMode, TlsGroup

_POLL_S = 0.005
_BEYOND = (Who.PLAINTEXT, Who.OTHER_NAMESPACE)
"""Who tries the nodes behind the first one; that those answer their callers, the hops' counters show."""
_BUILD = ("proxy_build_info", "tokio_rt_workers", "process_threads", "rustls_info")

Answered = list[tuple[Expectation, ProbeAnswer]]


def settle(placement: Placement, cell: Cell, reach: Reach, snapshot: Any) -> None:
    """Call every hop until it is judged by the snapshot's policy on the snapshot's transport, and no
    connection of another transport is left. Raises MW405 (too slow), MW406 (silent)."""
    wanted = hops.hops(cell, placement, snapshot)
    caller = LinkerdCaller(placement, cell, reach)
    settle_s = placement.patience.settle_s
    deadline = time.monotonic() + settle_s
    due = list(wanted)
    before = _read(reach, due)
    while True:
        answers = together(lambda hop: _on(caller, placement, hop), due)
        now = _read(reach, due)
        moved = _moved(before, now)
        waiting = [
            (hop, reason, answer)
            for hop, answer in zip(due, answers, strict=True)
            if (reason := _waiting(hop, moved, now))
        ]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise messages.CONFIG_SLOW.error(
                pod=wanted[0].caller,
                cell=cell.name,
                timeout=settle_s,
                waiting=f"{'; '.join(reason for _, reason, _ in waiting)} (last answer: {waiting[0][2]})",
            )
        before, due = now, [hop for hop, _, _ in waiting]
        time.sleep(_POLL_S)


def _on(caller: LinkerdCaller, placement: Placement, hop: Hop) -> ProbeAnswer:
    return caller.call(placement[hop.callee], Who.MESH, What.ALLOWED, hop.caller)


def _waiting(hop: Hop, moved: Readings, now: Readings) -> str:
    """Empty when there is nothing to wait for."""
    if not hops.judged(hop, moved):
        return f"{hop}: not by {hop.policy_name} yet"
    if stale := hops.stale(hop, now[hop.caller]):
        return f"{hop}: {stale:g} connections of the former transport"
    return ""


@dataclass(frozen=True)
class LinkerdEvidence:
    """What was seen and counted; per hop, or per workload by name."""

    called: Sequence[ProbeAnswer]
    """Of every hop's allowed call."""
    answers: Answered
    """Of the table of expectations at the first node."""
    beyond: Sequence[Answered]
    """Of what is tried at the nodes behind it."""
    before: Readings
    between: Readings
    """After the hops' calls."""
    after: Readings
    choice: Choice | str
    """What the first node's proxy chooses when a proxy calls it."""
    process: Sequence[Series]
    """What the client's proxy says of itself."""
    handshake: Handshake | None
    """Of the client's twin at the first node."""


def gather(placement: Placement, cell: Cell, reach: Reach, wanted: Sequence[Hop]) -> LinkerdEvidence:
    """Make the calls and read the counters. Raises MW406 for a silent proxy."""
    first, caller = placement.of(cell.topology)[1], LinkerdCaller(placement, cell, reach)
    before = _read(reach, wanted)
    called = together(lambda hop: _on(caller, placement, hop), wanted)
    between = _read(reach, wanted)
    table = caller.rows(first)
    answers = [
        (row, called[0] if row == table[0] else caller.call(first, row.who, row.what)) for row in table
    ]
    beyond = together(lambda placed: _try_beyond(caller, placed), placement.behind(cell.topology))
    after = _read(reach, wanted)
    name = identity_of(first.workload, placement)
    choice = reach.choice(OUTSIDER, first.pod_ip, INBOUND_PORT, name)
    process = ProxyAdmin(wanted[0].caller, reach).metrics(_BUILD)
    return LinkerdEvidence(called, answers, beyond, before, between, after, choice, process, caller.handshake)


def judge(
    placement: Placement, cell: Cell, evidence: LinkerdEvidence, snapshot: Any, delivered: Delivered
) -> tuple[tuple[Check, ...], Mapping[str, str]]:
    """Checks and facts. `snapshot`: what the proxies should have been given for this cell; `delivered`: what
    the control plane says that it has given them."""
    first, rest = placement.of(cell.topology)[1], placement.behind(cell.topology)
    wanted = hops.hops(cell, placement, snapshot)
    moved, layer = _moved(evidence.before, evidence.between), layer_of(cell, first.name)
    checks = [check_of(row, answer, SIGNS[layer]) for row, answer in evidence.answers]
    checks += [
        check_of(_ANSWERED, answer, SIGNS[layer_of(cell, hop.callee)], f"{hop}: ")
        for hop, answer in list(zip(wanted, evidence.called, strict=True))[1:]
    ]
    for placed, tried in zip(rest, evidence.beyond, strict=True):
        signs = SIGNS[layer_of(cell, placed.name)]
        checks += [check_of(row, answer, signs, f"{placed.name}: ") for row, answer in tried]
    checks += [check for hop in wanted for check in _hop_checks(hop, moved)]
    for placed, tried in zip((first, *rest), (evidence.answers, *evidence.beyond), strict=True):
        counted = grown(evidence.before[placed.name], evidence.after[placed.name])
        checks.append(_denials(layer_of(cell, placed.name), tried, counted, placed))
    checks += _tls_checks(cell, evidence.choice, evidence.handshake)
    checks.append(_served(snapshot, delivered))
    facts = {
        **_facts_of_tls(cell, evidence.choice, evidence.handshake, wanted[0]),
        **_facts_of_process(evidence.process),
    }
    return tuple(checks), facts


_ANSWERED = Expectation(Who.MESH, What.ALLOWED, Meaning.ANSWERED)


def _try_beyond(caller: LinkerdCaller, placed: PlacedWorkload) -> Answered:
    return [
        (row, caller.call(placed, row.who, row.what))
        for row in caller.rows(placed)
        if row.who in _BEYOND and row.what is What.ALLOWED
    ]


def _served(snapshot: Any, delivered: Delivered) -> Check:
    expected = f"{snapshot.fingerprint} on every stream"
    behind = f"all but {delivered.behind} streams" if delivered.behind else "every stream"
    observed = f"{delivered.version} on {behind}"
    return Check("snapshot of the control plane", expected, observed, observed == expected)


# --- what the proxies counted --------------------------------------------------------------------


def _hop_checks(hop: Hop, moved: Readings) -> list[Check]:
    """Both sidecars of a hop saw the request, on this transport, with this peer, under this policy."""
    client, server = _labels(hop.client_side), _labels(hop.server_side)
    sent, allowed = hops.sent(hop, moved), hops.allowed(hop, moved)
    return [
        Check(f"{hop}: sent with {client}", "at least 1", f"{sent:g}", sent > 0),
        Check(
            f"{hop}: allowed by {hop.policy_name} with {server}", "at least 1", f"{allowed:g}", allowed > 0
        ),
    ]


def _denials(layer: Layer, answers: Answered, counted: Sequence[Series], placed: PlacedWorkload) -> Check:
    """The policy of a node denied as many calls as had to be denied by policy, and not in TLS."""
    by_policy = {Meaning.DENIED, Meaning.PEER_REFUSED}
    in_tls = {Who.FOREIGN, Who.NO_CERTIFICATE} if layer is Layer.L4 else {Who.FOREIGN}
    denying = SIGNS[layer][Meaning.DENIED]
    wanted = sum(
        row.meaning in by_policy and row.who not in in_tls and answer.seen in denying
        for row, answer in answers
    )
    denied = total(counted, hops.OF_LAYER[layer].denied, target_ip=placed.pod_ip)
    return Check(f"{placed.name}: denied by policy", str(wanted), f"{denied:g}", denied == wanted)


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items() if key != "target_addr")


# --- the handshake ---------------------------------------------------------------------------------


def _tls_checks(cell: Cell, choice: Choice | str, seen: Handshake | None) -> list[Check]:
    if effective_posture(cell, cell.topology.entry).mtls is MtlsMode.DISABLE:
        return []
    version = choice.version if isinstance(choice, Choice) else choice
    group, wanted = (choice.group if isinstance(choice, Choice) else choice), cell.tls_group.upper()
    asked = cell.tls_group is not TlsGroup.DEFAULT
    return [
        *([Check("TLS group that a proxy is offered", wanted, group, group == wanted)] if asked else ()),
        Check("TLS version that a proxy is offered", "TLSv1.3", version, version == "TLSv1.3"),
        _same("TLS version of the client's twin", "TLSv1.3", seen.version if seen else "no handshake"),
        *(_certificate_checks(cell, seen) if seen else ()),
    ]


def _certificate_checks(cell: Cell, seen: Handshake) -> list[Check]:
    return [
        _same("key of the server's certificate", str(cell.key_type), seen.peer_key),
        _same("intermediates that the server sends", str(cell.chain_depth), str(seen.chain - 1)),
        _same("life of the server's certificate", f"{cell.certificate_life_s} s", _life(seen)),
    ]


def _life(seen: Handshake) -> str:
    """Without the allowance for other clocks at both ends."""
    return f"{seen.valid_s - 2 * CLOCK_SKEW.total_seconds():g} s"


def _facts_of_tls(cell: Cell, choice: Choice | str, seen: Handshake | None, hop: Hop) -> Mapping[str, str]:
    """The transport between the sidecars; `none` in plaintext, where no client offers TLS."""
    plain = effective_posture(cell, cell.topology.entry).mtls is MtlsMode.DISABLE
    if plain or isinstance(choice, str):
        return {"tls_version": "none", "tls_group": "none", "tls_cipher": "none"}
    return {
        "tls_version": choice.version,
        "tls_group": choice.group,
        "tls_cipher": choice.cipher,
        "client_identity": hop.server_side["client_id"],
        "server_identity": hop.client_side["server_id"],
        "resumption": "none",  # a proxy's client keeps no sessions
        "crl": "none",
        "san_match": "exact",
        **(
            {
                "server_key": seen.peer_key,
                "chain_depth": str(seen.chain - 1),
                "certificate_life": _life(seen),
            }
            if seen
            else {}
        ),
    }


def _facts_of_process(series: Sequence[Series]) -> Mapping[str, str]:
    """Build and workers, as the client's proxy says them itself."""
    found = {each.name: each for each in series}
    facts = {}
    if build := found.get("proxy_build_info"):
        facts["build"] = f"{build.labels.get('version', '?')} {build.labels.get('git_sha', '')}".strip()
    if rustls := found.get("rustls_info"):
        facts["tls_groups_offered"] = rustls.labels["tls_kx_groups"].strip(",")
    if workers := found.get("tokio_rt_workers"):
        facts["workers"] = f"{workers.value:g}"
    if threads := found.get("process_threads"):
        facts["threads"] = f"{threads.value:g}"
    return facts


def _same(name: str, expected: str, observed: str) -> Check:
    return Check(name, expected, observed, expected == observed)


# --- reading -----------------------------------------------------------------------------------------


def _read(reach: Reach, due: Sequence[Hop]) -> Readings:
    """Of the proxies of these hops."""
    names = list(dict.fromkeys(name for hop in due for name in (hop.caller, hop.callee)))
    found = together(lambda name: ProxyAdmin(name, reach).metrics(hops.WATCHED), names)
    return dict(zip(names, found, strict=True))


def _moved(before: Readings, after: Readings) -> Readings:
    return {name: grown(before[name], series) for name, series in after.items()}
