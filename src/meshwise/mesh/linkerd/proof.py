"""Proof of a posture on running sidecars: the table of expectations in reality, and the proxies' counters.

Laws of this file:
- Two witnesses for everything that can have two: what a caller saw, and what the proxies counted.
- Identities are those that the proxies themselves verified: `client_id` at the server's, `server_id` at
  the client's sidecar, on every hop.
- It must be cheap (tens of calls, well under half a second): it runs before every trial.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from meshwise.core import messages
from meshwise.mesh.expectations import Expectation, Meaning, What, Who, meaning_of
from meshwise.mesh.linkerd import hops
from meshwise.mesh.linkerd.admin import Admin, Series, grown, total
from meshwise.mesh.linkerd.caller import SIGNS, Caller, meaning, rows
from meshwise.mesh.linkerd.hello import Choice, choice_of
from meshwise.mesh.linkerd.hops import Hop, Readings
from meshwise.mesh.linkerd.names import INBOUND_PORT, identity_of
from meshwise.mesh.probe import Answer, check_of
from meshwise.mesh.seam import OUTSIDER, Check, Dial, PlacedWorkload, Placement, Proof
from meshwise.study.model import Cell, Level, MtlsMode, TlsGroup

SETTLE_TIMEOUT_S = 5.0
_POLL_S = 0.005
_BEYOND = (Who.PLAINTEXT, Who.OTHER_NAMESPACE)
"""Who tries the nodes behind the first one; that those answer their callers, the hops' counters show."""
_BUILD = ("proxy_build_info", "tokio_rt_workers", "process_threads", "rustls_info")


def settle(placement: Placement, cell: Cell, dial: Dial, snapshot: Any) -> None:
    """Send the cell's request until every hop is judged by the snapshot's policy on the snapshot's
    transport, and no connection of another transport is left. Raises MW405 (too slow), MW406 (silent)."""
    wanted = hops.hops(cell, placement, snapshot)
    first = placement[wanted[0].callee]
    caller = Caller(placement, cell, dial)
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    with _admins(placement, cell, dial) as admins:
        before = _read(admins)
        while True:
            answer = caller.call(first, Who.MESH, What.ALLOWED)
            now = _read(admins)
            waiting = _waiting(wanted, _moved(before, now), now)
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise messages.CONFIG_SLOW.error(
                    pod=wanted[0].caller,
                    cell=cell.name,
                    timeout=SETTLE_TIMEOUT_S,
                    waiting=f"{'; '.join(waiting)} (last answer: {answer})",
                )
            before = now
            time.sleep(_POLL_S)


def _waiting(wanted: Sequence[Hop], moved: Readings, now: Readings) -> list[str]:
    waiting = [f"{hop}: not by {hop.policy_name} yet" for hop in wanted if not hops.judged(hop, moved)]
    waiting += [
        f"{hop}: {stale:g} connections of the former transport"
        for hop in wanted
        if (stale := hops.stale(hop, now[hop.caller]))
    ]
    return waiting


def prove(placement: Placement, cell: Cell, dial: Dial, snapshot: Any, status: Mapping[str, Any]) -> Proof:
    """`snapshot`: what the proxies should have been given for this cell. `status`: what the control plane
    says that it has given them. Raises MW406 for a silent proxy."""
    begun_ns = time.monotonic_ns()
    used = placement.of(cell.topology)
    first = used[1]
    wanted = hops.hops(cell, placement, snapshot)
    caller = Caller(placement, cell, dial)
    with _admins(placement, cell, dial) as admins:
        before = _read(admins)
        allowed = caller.call(first, Who.MESH, What.ALLOWED)
        moved = _moved(before, _read(admins))
        table, signs = rows(cell.posture, cell.protocol.level), SIGNS[cell.protocol.level]
        answers = [
            (row, allowed if row == table[0] else caller.call(first, row.who, row.what)) for row in table
        ]
        counted = grown(before[first.name], admins[first.name].metrics(hops.WATCHED))
        checks = [check_of(row, answer, signs) for row, answer in answers]
        checks += [_beyond(caller, cell, placed, who) for placed in used[2:] for who in _BEYOND]
        checks += [check for hop in wanted for check in _hop_checks(hop, moved)]
        checks.append(_denials(cell, answers, counted, first))
        choice = _choice(placement, dial, first)
        checks += _tls_checks(cell, choice, caller)
        checks.append(_served(snapshot, status))
        facts = {
            **_facts_of_tls(cell, choice, wanted[0]),
            **_facts_of_process(admins[wanted[0].caller].metrics(_BUILD)),
        }
    return Proof(tuple(checks), facts, time.monotonic_ns() - begun_ns)


def _beyond(caller: Caller, cell: Cell, placed: PlacedWorkload, who: Who) -> Check:
    common = Expectation(who, What.ALLOWED, meaning_of(cell.posture, who, What.ALLOWED))
    level = cell.protocol.level
    row = Expectation(who, What.ALLOWED, meaning(cell.posture, level, common))
    return check_of(row, caller.call(placed, who, What.ALLOWED), SIGNS[level], f"{placed.name}: ")


def _served(snapshot: Any, status: Mapping[str, Any]) -> Check:
    expected = f"{snapshot.fingerprint} on every stream"
    behind = status["behind"]
    observed = f"{status['fingerprint']} on " + (f"all but {behind} streams" if behind else "every stream")
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


def _denials(
    cell: Cell,
    answers: Sequence[tuple[Expectation, Answer]],
    counted: Sequence[Series],
    first: PlacedWorkload,
) -> Check:
    """The policy of the first node denied as many calls as had to be denied by policy, and not in TLS."""
    level = cell.protocol.level
    by_policy = {Meaning.DENIED, Meaning.PEER_REFUSED}
    in_tls = {Who.STRANGER, Who.NO_CERTIFICATE} if level is Level.L4 else {Who.STRANGER}
    denying = SIGNS[level][Meaning.DENIED]
    wanted = sum(
        row.meaning in by_policy and row.who not in in_tls and answer.seen in denying
        for row, answer in answers
    )
    denied = total(counted, hops.OF_LEVEL[level].denied, target_ip=first.pod_ip)
    return Check(f"{first.name}: denied by policy", str(wanted), f"{denied:g}", denied == wanted)


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items() if key != "target_addr")


# --- the handshake ---------------------------------------------------------------------------------


def _choice(placement: Placement, dial: Dial, first: PlacedWorkload) -> Choice | str:
    """What the first node's proxy chooses when a proxy calls it."""
    name = identity_of(first.workload, placement)
    return choice_of(lambda: dial(OUTSIDER, first.pod_ip, INBOUND_PORT), name)


def _tls_checks(cell: Cell, choice: Choice | str, caller: Caller) -> list[Check]:
    if cell.posture.mtls is MtlsMode.DISABLE:
        return []
    version = choice.version if isinstance(choice, Choice) else choice
    group, wanted = (choice.group if isinstance(choice, Choice) else choice), cell.tls_group.upper()
    asked = cell.tls_group is not TlsGroup.DEFAULT
    return [
        *([Check("TLS group that a proxy is offered", wanted, group, group == wanted)] if asked else ()),
        Check("TLS version that a proxy is offered", "TLSv1.3", version, version == "TLSv1.3"),
        Check(
            "TLS version of the client's twin",
            "TLSv1.3",
            caller.twin_version,
            caller.twin_version == "TLSv1.3",
        ),
    ]


def _facts_of_tls(cell: Cell, choice: Choice | str, hop: Hop) -> Mapping[str, str]:
    """The transport between the sidecars; `none` in plaintext, where no client offers TLS."""
    if cell.posture.mtls is MtlsMode.DISABLE or isinstance(choice, str):
        return {"tls_version": "none", "tls_group": "none", "tls_cipher": "none"}
    return {
        "tls_version": choice.version,
        "tls_group": choice.group,
        "tls_cipher": choice.cipher,
        "client_identity": hop.server_side["client_id"],
        "server_identity": hop.client_side["server_id"],
        "server_key": "ecdsa-p256",
        "resumption": "none: a proxy's client keeps no sessions",
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


# --- reading -----------------------------------------------------------------------------------------


@contextmanager
def _admins(placement: Placement, cell: Cell, dial: Dial) -> Iterator[dict[str, Admin]]:
    with ExitStack() as stack:
        used = placement.of(cell.topology)
        yield {placed.name: stack.enter_context(Admin(placed.name, dial)) for placed in used}


def _read(admins: Mapping[str, Admin]) -> Readings:
    return {name: admin.metrics(hops.WATCHED) for name, admin in admins.items()}


def _moved(before: Readings, after: Readings) -> Readings:
    return {name: grown(before[name], series) for name, series in after.items()}
