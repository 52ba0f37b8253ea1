"""Rotation of certificates while connections are open, as a sidecar's agent and istiod's authority do it.

    leaf     every agent asks for a new certificate (spread: not all at the same time)
    issuer   the authority signs with a new intermediate; then as a leaf
    anchor   with overlap: both anchors are trusted everywhere, then every leaf is of the new one, then the
             new one alone is trusted. Without (a fault): each pod gets anchor and leaf at once, one after the
             other, and meanwhile those who have it and those who have it not refuse each other

Every rotation is proven: the serial number that the sidecar shows on the wire, or, where it accepts no calls,
that its administration names; and whether connections of before were kept, by its own counters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.changes import NOT_DONE, Taken
from meshwise.mesh.expectations import What, Who
from meshwise.mesh.identity import IdentityFiles, form_of, serial_of
from meshwise.mesh.istio.admin import EnvoyAdmin, Stats, grown, total
from meshwise.mesh.istio.caller import tls_client
from meshwise.mesh.istio.workloads import WorkloadIdentities
from meshwise.mesh.probe import on_hop
from meshwise.mesh.protection.credentials import files_of_outsiders
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import OUTSIDER, Placement
from meshwise.mesh.together import together
from meshwise.service.plan import Plan
from meshwise.study.demands import effective_posture
from meshwise.study.model import Cell, MtlsMode
from meshwise.study.timeline import Rotate, Rotated

_IN, _OUT = r"listener\.0\.0\.0\.0_15006\.downstream_cx_", r"cluster\.outbound\|.*\.upstream_cx_"
_CONNECTIONS = rf"^({_IN}|{_OUT})(active|destroy)$"

Deliver = Callable[[Mapping[str, IdentityFiles]], Mapping[str, int]]
"""Brings these pods their certificates; when each had taken them up (CLOCK_MONOTONIC)."""


@dataclass(frozen=True)
class Rotation:
    """One rotation of the sidecars of one placement."""

    placement: Placement
    cell: Cell
    reach: Reach
    identities: WorkloadIdentities
    deliver: Deliver
    uid: int | None

    def carry_out(self, act: Rotate) -> Sequence[Taken]:
        names = [placed.name for placed in self.placement.of(self.cell.topology)]
        if why := self.identities.wait_for_authority(self.placement):
            return [Taken(name, None, {NOT_DONE: why}) for name in names]
        before = {name: serial_of(self._files(name)) for name in names}
        counted = dict(zip(names, together(self._connections, names), strict=True))
        done = self._anchor(act, names) if act.what is Rotated.ANCHOR else self._leaves(act, names)
        open_then = dict(zip(names, together(self._connections, names), strict=True))
        return together(
            lambda name: Taken(
                name,
                done[name],
                {
                    "serial_before": before[name],
                    **self._kept(counted[name], open_then[name]),
                    **self._proof(name),
                },
            ),
            names,
        )

    def _leaves(self, act: Rotate, names: Sequence[str]) -> Mapping[str, int]:
        if act.what is Rotated.ISSUER:
            self.identities.new_issuer(self.placement)
        return self._one_by_one(names, act.spread_ns, lambda name: self._issued(name))

    def _anchor(self, act: Rotate, names: Sequence[str]) -> Mapping[str, int]:
        former = self.identities.root_pem(self.placement)
        self.identities.new_anchor(self.placement)
        new = self.identities.root_pem(self.placement)
        if act.overlap:
            self.deliver({name: self._trusting(name, former + new) for name in names})
            self._one_by_one(names, act.spread_ns, lambda name: self._issued(name, former + new))
            done = self.deliver({name: self._trusting(name, new) for name in names})
        else:
            done = self._one_by_one(names, act.spread_ns, lambda name: self._issued(name))
        self.identities.issue_outsiders(self.placement, form_of(self.cell))
        return done

    def _one_by_one(
        self, names: Sequence[str], spread_ns: int, make: Callable[[str], IdentityFiles]
    ) -> Mapping[str, int]:
        """Evenly over the time, from its beginning on; all in one push where there is none."""
        if not spread_ns:
            return self.deliver({name: make(name) for name in names})
        begun_ns = time.monotonic_ns()
        done: dict[str, int] = {}
        for number, name in enumerate(names):
            due_ns = begun_ns + number * spread_ns // len(names)
            time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            done |= self.deliver({name: make(name)})
        return done

    def _files(self, name: str) -> IdentityFiles:
        return self.identities.current(self.placement, name, form_of(self.cell))

    def _issued(self, name: str, roots: bytes | None = None) -> IdentityFiles:
        return self.identities.renew(self.placement, name, form_of(self.cell), self.uid, roots)

    def _trusting(self, name: str, roots: bytes) -> IdentityFiles:
        return self.identities.trust(self.placement, name, form_of(self.cell), self.uid, roots)

    # --- proof -------------------------------------------------------------------------------------

    def _connections(self, name: str) -> Stats:
        return EnvoyAdmin(name, self.reach).stats(_CONNECTIONS)

    def _proof(self, name: str) -> Mapping[str, object]:
        wanted = serial_of(self._files(name))
        try:
            seen, where = self._on_the_wire(name) or self._in_its_own_words(name, wanted)
        except MeshwiseError as error:
            seen, where = "", error.what
        return {"serial": wanted, "serial_seen": seen, "seen": where, "proven": seen == wanted}

    def _on_the_wire(self, name: str) -> tuple[str, str] | None:
        """A handshake with this sidecar; None where it takes none."""
        cell, topology = self.cell, self.cell.topology
        callers, callee = topology.callers(name), topology[name]
        if not callers or effective_posture(cell, callee).mtls is MtlsMode.DISABLE:
            return None
        twin, target = files_of_outsiders(self.placement)[Who.TWIN], self.placement[name]
        request = on_hop(cell, callers[0], callee, What.ALLOWED, Plan())
        secure = tls_client(cell, target, twin, str(twin.root))
        answer = self.reach.call(OUTSIDER, target.pod_ip, callee.port(cell.protocol), request, secure)
        if answer.handshake is None:
            return self._in_its_own_words(name, serial_of(self._files(name)), f"; on the wire: {answer}")
        return answer.handshake.serial, "on the wire"

    def _in_its_own_words(self, name: str, wanted: str, beside: str = "") -> tuple[str, str]:
        """Its administration also names certificates of connections that are still open."""
        certificates = EnvoyAdmin(name, self.reach).json("/certs")["certificates"]
        named = [one["serial_number"].lstrip("0") for each in certificates for one in each["cert_chain"]]
        seen = wanted if wanted in named else ", ".join(dict.fromkeys(named))
        return seen, f"by its administration{beside}"

    def _kept(self, before: Stats, after: Stats) -> Mapping[str, object]:
        """Where the load itself ends connections, those that end tell nothing."""
        ended = total(grown(before, after), rf"({_IN}|{_OUT})destroy")
        found = {"connections_before": total(before, rf"({_IN}|{_OUT})active"), "connections_ended": ended}
        if self.cell.requests_per_connection or self.cell.churn_per_s:
            return found
        return {**found, "connections_kept": ended == 0}
