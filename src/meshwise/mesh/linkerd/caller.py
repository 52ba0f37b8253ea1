"""Makes the calls of a proof on running sidecars, and says what Linkerd should make of them."""

from __future__ import annotations

from collections.abc import Mapping

from meshwise.mesh.expectations import (
    TOKEN_VARIANTS,
    CallOutcome,
    Expectation,
    Meaning,
    Signs,
    What,
    Who,
    expectations,
)
from meshwise.mesh.identity import IdentityFiles
from meshwise.mesh.linkerd import direct
from meshwise.mesh.linkerd.names import INBOUND_PORT, identity_of
from meshwise.mesh.probe import Entrance, Handshake, ProbeAnswer, TlsAs, on_hop
from meshwise.mesh.protection.credentials import files_of_outsiders
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import OUTSIDER, PlacedWorkload, Placement
from meshwise.service.plan import Plan
from meshwise.study.demands import effective_posture
from meshwise.study.model import Authorization, Cell, Layer, MtlsMode, Posture

SIGNS: Mapping[Layer, Signs] = {
    Layer.L7: {
        Meaning.ANSWERED: frozenset({CallOutcome.OK, CallOutcome.DECLINED}),
        Meaning.PEER_REFUSED: frozenset({CallOutcome.FORBIDDEN, CallOutcome.CLOSED, CallOutcome.TLS_FAILED}),
        Meaning.DENIED: frozenset({CallOutcome.FORBIDDEN}),
    },
    Layer.L4: {
        Meaning.ANSWERED: frozenset({CallOutcome.OK, CallOutcome.DECLINED}),
        Meaning.PEER_REFUSED: frozenset({CallOutcome.CLOSED, CallOutcome.TLS_FAILED}),
        Meaning.DENIED: frozenset({CallOutcome.CLOSED}),
    },
}
"""How Linkerd refuses: a peer without an identity by policy (403; TCP is closed), one with a foreign
certificate in TLS."""

_TLS_CALLERS = (Who.TWIN, Who.OTHER_ACCOUNT, Who.OTHER_NAMESPACE, Who.NO_CERTIFICATE)


def rows(posture: Posture, layer: Layer) -> tuple[Expectation, ...]:
    """The table of expectations as Linkerd can be asked: without tokens, with its own rules for TLS."""
    return tuple(
        Expectation(row.who, row.what, meaning(posture, layer, row))
        for row in expectations(posture, layer)
        if row.what not in TOKEN_VARIANTS
    )


def meaning(posture: Posture, layer: Layer, row: Expectation) -> Meaning:
    """Where Linkerd differs from the common table, for a reason of its own:

    - A proxy takes mesh TLS from every client that names it, in every posture; what makes `plaintext` is
      that no client offers it. Only a certificate of a foreign authority ends the handshake.
    - A client certificate is asked for, not demanded: without one the caller is like one in plaintext. On
      the proxy's own port, the only one that takes mesh TLS for an opaque port, it is demanded.
    """
    if row.who is Who.FOREIGN or (row.who is Who.NO_CERTIFICATE and layer is Layer.L4):
        return Meaning.PEER_REFUSED
    if posture.mtls is MtlsMode.DISABLE and row.who in _TLS_CALLERS:
        return Meaning.ANSWERED
    if posture.mtls is MtlsMode.PERMISSIVE and row.who is Who.NO_CERTIFICATE:
        by_identity = posture.authorization in (Authorization.NAMESPACE, Authorization.FINE)
        return Meaning.DENIED if by_identity else Meaning.ANSWERED
    return row.meaning


def rows_of(cell: Cell, callee: str) -> tuple[Expectation, ...]:
    """What a workload has to make of every caller, by the posture that it demands itself."""
    return rows(effective_posture(cell, cell.topology[callee]), layer_of(cell, callee))


def layer_of(cell: Cell, callee: str) -> Layer:
    return cell.topology[callee].speaks(cell.protocol).layer


class LinkerdCaller:
    """Keeps the first handshake of the client's twin that it saw."""

    def __init__(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        self._placement, self._cell, self._reach = placement, cell, reach
        self._files = files_of_outsiders(placement)
        self.handshake: Handshake | None = None

    def call(self, target: PlacedWorkload, who: Who, what: What, through: str | None = None) -> ProbeAnswer:
        """A caller inside the mesh calls through the sidecar of `through`, else of the target's first caller,
        in the protocol of the hop; an outsider asks what that one may ask."""
        cell, callee = self._cell, self._cell.topology[target.name]
        caller = cell.topology[through] if through else cell.topology.callers(target.name)[0]
        request, port = on_hop(cell, caller, callee, what, Plan()), callee.port(cell.protocol)
        if who is Who.MESH:
            return self._reach.call(caller.name, target.service_ip, port, request)
        secure = None if who is Who.PLAINTEXT else self._tls(who, target)
        if secure is not None and callee.speaks(cell.protocol).layer is Layer.L4:
            secure, port = direct.to_port(secure, port), INBOUND_PORT
        answer = self._reach.call(OUTSIDER, target.pod_ip, port, request, secure)
        if who is Who.TWIN:
            self.handshake = self.handshake or answer.handshake
        return answer

    def rows(self, target: PlacedWorkload) -> tuple[Expectation, ...]:
        """What the target has to make of every caller."""
        return rows_of(self._cell, target.name)

    def _tls(self, who: Who, target: PlacedWorkload) -> TlsAs:
        return _tls(self._files, self._placement, who, target)


def entrance(placement: Placement, cell: Cell, who: Who) -> Entrance:
    """How an outsider with a certificate calls the sidecar of the entry."""
    target, callee = placement[cell.topology.entry.name], cell.topology.entry
    request = on_hop(cell, cell.topology.callers(target.name)[0], callee, What.ALLOWED, Plan())
    address, port = target.pod_ip, callee.port(cell.protocol)
    if effective_posture(cell, callee).mtls is MtlsMode.DISABLE:
        return Entrance(OUTSIDER, address, port, request, None)
    secure = _tls(files_of_outsiders(placement), placement, who, target)
    if callee.speaks(cell.protocol).layer is Layer.L4:
        secure, port = direct.to_port(secure, port), INBOUND_PORT
    return Entrance(OUTSIDER, address, port, request, secure)


def _tls(files: Mapping[Who, IdentityFiles], placement: Placement, who: Who, target: PlacedWorkload) -> TlsAs:
    return TlsAs(
        identity=files.get(who),
        root=str(files[Who.TWIN].root),
        server_name=identity_of(target.workload, placement),
    )
