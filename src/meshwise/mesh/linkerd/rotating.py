"""Rotation of certificates while connections are open, by what Linkerd has for it.

    leaf     every proxy's next renewal is answered now (spread: not all at the same time; see `issuing`)
    issuer   the identity service takes up another issuer of the same anchor; then as a leaf
    anchor   a proxy is told whom it trusts when it starts, so every one is started again, one after the
             other, as `kubectl rollout restart` does. With overlap: started with both anchors, then an issuer
             of the new one and every leaf from it, then started with the new one alone. Without (a fault):
             started once, with the new one alone; until the last one is, old and new refuse each other

Every rotation is proven by the serial number that the sidecar shows in a handshake on its own port; whether
connections of before were kept, by its own counters.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwise.mesh.changes import NOT_DONE, RestartProxy, Taken
from meshwise.mesh.expectations import Who
from meshwise.mesh.linkerd import authority, outsiders, sidecar
from meshwise.mesh.linkerd.admin import ProxyAdmin, Series, grown, total
from meshwise.mesh.linkerd.authority import LinkerdAuthority
from meshwise.mesh.linkerd.issuing import last_answered
from meshwise.mesh.linkerd.names import CONTROLLER_DIRECTORY, INBOUND_PORT, identity_of
from meshwise.mesh.probe import Ask, TlsAs
from meshwise.mesh.protection.credentials import files_of_outsiders
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import OUTSIDER, Placement
from meshwise.mesh.together import together
from meshwise.study.model import Cell, Protocol
from meshwise.study.timeline import Rotate, Rotated

SHOWN_S = 0.5
"""A proxy that has not shown its new certificate by then has refused it."""
_POLL_S = 0.02
_OPEN, _CLOSED = "tcp_open_connections", "tcp_close_total"
_BETWEEN_SIDECARS = ({"direction": "inbound", "peer": "src"}, {"direction": "outbound", "peer": "dst"})
_HANDSHAKE = Ask(Protocol.TCP, "", "", "", ())
"""What is sent after it does not matter: the proxy's own port takes nothing from who names no protocol."""

Done = int | str
"""When a proxy had it (CLOCK_MONOTONIC), or why it has not."""
Tell = Callable[..., Mapping[str, Any]]
"""A command to the control plane (`command.tell`)."""


@dataclass(frozen=True)
class LinkerdRotation:
    """One rotation of the sidecars of one cell."""

    placement: Placement
    cell: Cell
    reach: Reach
    tell: Tell
    restart: RestartProxy

    def carry_out(self, act: Rotate, own: LinkerdAuthority) -> tuple[Sequence[Taken], LinkerdAuthority]:
        """What came of it, and the authority from now on."""
        names = [placed.name for placed in self.placement.of(self.cell.topology)]
        before = dict(zip(names, together(self._connections, names), strict=True))
        serials = {name: self._serial(name) for name in names}
        if act.what is Rotated.ANCHOR:
            done, own = self._anchor(act, own, names)
        else:
            if act.what is Rotated.ISSUER:
                own = self._take_up(own.with_issuer(self.placement.trust_domain))
            done = self._leaves(act.spread_ns, names)
        seen: dict[str, dict[str, object]] = {name: {"serial_before": serials[name]} for name in names}
        if act.what is not Rotated.ANCHOR:  # a proxy that is started again keeps none, and counts from 0
            seen = {name: {**seen[name], **kept} for name, kept in self._kept(before).items()}
        return together(lambda name: self._taken(name, done[name], seen[name]), names), own

    # --- leaves --------------------------------------------------------------------------------------

    def _leaves(self, spread_ns: int, names: Sequence[str]) -> Mapping[str, Done]:
        """Evenly over the time, from its beginning on; all in one order where there is none."""
        if not spread_ns:
            return self._renewed(names)
        done: dict[str, Done] = {}
        for name in _evenly(names, spread_ns):
            done |= self._renewed([name])
        return done

    def _renewed(self, names: Sequence[str]) -> Mapping[str, Done]:
        told = self.tell("renew", pods=names, within_s=self.placement.patience.settle_s)
        done: dict[str, Done] = {each["pod"]: each["answered_ns"] for each in told["renewed"]}
        return {name: done.get(name, str(told["why"])) for name in names}

    def _take_up(self, own: LinkerdAuthority) -> LinkerdAuthority:
        """The identity service signs with another issuer from now on."""
        authority.store_issuer(own.issuer, self.placement.directory / CONTROLLER_DIRECTORY)
        self.tell("issuer")
        outsiders.issue(self.placement, own)
        return own

    # --- the anchor ----------------------------------------------------------------------------------

    def _anchor(
        self, act: Rotate, own: LinkerdAuthority, names: Sequence[str]
    ) -> tuple[Mapping[str, Done], LinkerdAuthority]:
        domain = self.placement.trust_domain
        former, new = own.anchor, authority.make_anchor(domain, dt.datetime.now(dt.UTC))
        if act.overlap:
            own = own.trusting(former, new)
            self._started_with(own, act.spread_ns, names)
            own = self._take_up(own.under(new, domain))
            renewed = self._renewed(names)
            if refused := [why for why in renewed.values() if isinstance(why, str)]:
                # Whoever has no leaf of the new anchor would be refused if the old one went.
                return dict.fromkeys(names, f"both anchors stay trusted: {refused[0]}"), own
        else:
            own = self._take_up(own.trusting(new).under(new, domain))
        own = own.trusting(new)
        done = self._started_with(own, act.spread_ns, names)
        outsiders.issue(self.placement, own)
        return done, own

    def _started_with(
        self, own: LinkerdAuthority, spread_ns: int, names: Sequence[str]
    ) -> Mapping[str, Done]:
        for name in names:
            sidecar.trust(self.placement[name], self.placement, own.anchor_pem)
        done: dict[str, Done] = {}
        for name in _evenly((*names[1:], names[0]), spread_ns):  # the client's last
            self.restart(name)
            done[name] = time.monotonic_ns()
        return done

    # --- proof ---------------------------------------------------------------------------------------

    def _taken(self, name: str, done: Done, seen: Mapping[str, object]) -> Taken:
        if isinstance(done, str):
            return Taken(name, None, {**seen, NOT_DONE: done})
        wanted = self._serial(name)
        shown, why = self._shown(name, wanted)
        detail: dict[str, object] = {
            **seen, "serial": wanted, "serial_seen": shown, "seen": why or "on the wire",
            "proven": shown == wanted,
        }  # fmt: skip
        if shown != wanted:
            detail[NOT_DONE] = "its proxy has not taken the certificate that it was given"
        return Taken(name, done if shown == wanted else None, detail)

    def _shown(self, name: str, wanted: str) -> tuple[str, str]:
        """A proxy needs about a millisecond from the answer until it shows the new certificate."""
        deadline = time.monotonic() + SHOWN_S * self.placement.patience.slowness
        while True:
            shown, why = self._on_the_wire(name)
            if shown == wanted or time.monotonic() > deadline:
                return shown, why
            time.sleep(_POLL_S)

    def _serial(self, name: str) -> str:
        """Of the certificate that the authority gave this proxy last."""
        answered = last_answered(self.placement.directory / CONTROLLER_DIRECTORY, name)
        return answered.serial if answered else ""

    def _on_the_wire(self, name: str) -> tuple[str, str]:
        """The serial that the sidecar shows in a handshake, and why there was none."""
        placed, twin = self.placement[name], files_of_outsiders(self.placement)[Who.TWIN]
        secure = TlsAs(twin, str(twin.root), identity_of(placed.workload, self.placement))
        answer = self.reach.call(OUTSIDER, placed.pod_ip, INBOUND_PORT, _HANDSHAKE, secure)
        return (answer.handshake.serial, "") if answer.handshake else ("", str(answer))

    def _connections(self, name: str) -> tuple[Series, ...]:
        return ProxyAdmin(name, self.reach).metrics((_OPEN, _CLOSED))

    def _kept(self, before: Mapping[str, tuple[Series, ...]]) -> Mapping[str, Mapping[str, object]]:
        after = together(self._connections, list(before))
        return {name: _kept(before[name], now) for name, now in zip(before, after, strict=True)}


def _kept(before: Sequence[Series], after: Sequence[Series]) -> Mapping[str, object]:
    """Of connections with mesh TLS."""
    ended = _sum(grown(before, after), _CLOSED)
    return {
        "connections_before": _sum(before, _OPEN),
        "connections_ended": ended,
        "connections_kept": ended == 0,
    }


def _sum(series: Sequence[Series], name: str) -> float:
    return sum(total(series, name, tls="true", **each) for each in _BETWEEN_SIDECARS)


def _evenly(names: Sequence[str], spread_ns: int) -> Iterator[str]:
    """Each name when it is due."""
    begun_ns = time.monotonic_ns()
    for number, name in enumerate(names):
        due_ns = begun_ns + number * spread_ns // len(names)
        time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
        yield name
