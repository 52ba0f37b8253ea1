"""Makes the calls of a proof on running sidecars, and says how Istio refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from meshwise.mesh.expectations import (
    VARIANT,
    CallOutcome,
    Expectation,
    Meaning,
    Signs,
    What,
    Who,
    meaning_of,
)
from meshwise.mesh.identity import IdentityFiles
from meshwise.mesh.probe import Entrance, Handshake, ProbeAnswer, TlsAs, on_hop
from meshwise.mesh.protection.credentials import Credential, credential_files, files_of_outsiders
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import OUTSIDER, PlacedWorkload, Placement
from meshwise.service.plan import Plan
from meshwise.study.demands import effective_posture
from meshwise.study.model import Cell, Layer, MtlsMode, Protocol

_SIGNS: Signs = {
    Meaning.ANSWERED: frozenset({CallOutcome.OK, CallOutcome.DECLINED}),
    Meaning.PEER_REFUSED: frozenset({CallOutcome.CLOSED, CallOutcome.TLS_FAILED}),
    Meaning.NO_TLS: frozenset({CallOutcome.CLOSED, CallOutcome.TLS_FAILED}),
    Meaning.DENIED: frozenset({CallOutcome.FORBIDDEN}),
    Meaning.TOKEN_REFUSED: frozenset({CallOutcome.UNAUTHENTICATED}),
}
SIGNS: Mapping[Layer, Signs] = {
    Layer.L7: _SIGNS,
    Layer.L4: {**_SIGNS, Meaning.DENIED: frozenset({CallOutcome.CLOSED})},
}
"""How Istio refuses."""

BEYOND = (
    (Who.PLAINTEXT, What.ALLOWED),
    (Who.OTHER_NAMESPACE, What.ALLOWED),
    (Who.MESH, What.OTHER_METHOD),
    (Who.MESH, What.NO_TOKEN),
)
"""What is tried at the nodes behind the first; that those answer their callers, the call on each hop
shows."""

_ALPN = {
    Protocol.HTTP1: ("istio-http/1.1", "istio", "http/1.1"),
    Protocol.HTTP2: ("istio-h2", "istio", "h2"),
    Protocol.GRPC: ("istio-h2", "istio", "h2"),
    Protocol.TCP: ("istio",),
}
"""What a sidecar offers; without `istio-peer-exchange`, which would have to be followed by metadata."""


class IstioCaller:
    """Keeps the first handshake of the client's twin that it saw."""

    def __init__(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        self._placement, self._cell, self._reach = placement, cell, reach
        self._files = files_of_outsiders(placement)
        self.handshake: Handshake | None = None

    def call(
        self, target: PlacedWorkload, who: Who, what: What, through: PlacedWorkload | None = None
    ) -> ProbeAnswer:
        """A caller inside the mesh calls through the sidecar of `through`, else of the target's first caller,
        in the protocol of the hop; an outsider asks what that one may ask."""
        cell, callee = self._cell, self._cell.topology[target.name]
        caller = cell.topology[through.name] if through else cell.topology.callers(target.name)[0]
        request = on_hop(cell, caller, callee, what, Plan())
        port = callee.port(cell.protocol)
        if who is Who.MESH:
            return self._reach.call(caller.name, target.service_ip, port, request)
        secure = None if who is Who.PLAINTEXT else self._tls(who, target)
        answer = self._reach.call(OUTSIDER, target.pod_ip, port, request, secure)
        if who is Who.TWIN:
            self.handshake = self.handshake or answer.handshake
        return answer

    def try_beyond(self, target: PlacedWorkload) -> list[tuple[Expectation, ProbeAnswer]]:
        """What its effective posture refuses, and refuses no more than that."""
        callee = self._cell.topology[target.name]
        posture, layer = effective_posture(self._cell, callee), callee.speaks(self._cell.protocol).layer
        rows = [
            Expectation(who, what, meaning_of(posture, who, what))
            for who, what in BEYOND
            if what in VARIANT[posture.authorization] and (what is What.ALLOWED or layer is Layer.L7)
        ]
        return [(row, self.call(target, row.who, row.what)) for row in rows]

    def resume(self, target: PlacedWorkload) -> bool:
        """Whether the server lets the client's twin resume a session; without TLS there is none."""
        if self.handshake is None:
            return False
        cell, callee = self._cell, self._cell.topology[target.name]
        request = on_hop(cell, cell.topology.callers(target.name)[0], callee, What.ALLOWED, Plan())
        secure = replace(self._tls(Who.TWIN, target), resume=True)
        port = callee.port(cell.protocol)
        answer = self._reach.call(OUTSIDER, target.pod_ip, port, request, secure)
        return bool(answer.handshake and answer.handshake.resumed)

    def revoked(self, target: PlacedWorkload) -> ProbeAnswer:
        """The client's own call, with its name in a certificate that was revoked."""
        cell, callee = self._cell, self._cell.topology[target.name]
        request = on_hop(cell, cell.topology.callers(target.name)[0], callee, What.ALLOWED, Plan())
        files = credential_files(self._placement, Credential.REVOKED)
        secure = tls_client(cell, target, files, str(files.root))
        return self._reach.call(OUTSIDER, target.pod_ip, callee.port(cell.protocol), request, secure)

    def _tls(self, who: Who, target: PlacedWorkload) -> TlsAs:
        root = str(self._files[Who.TWIN].root)
        return tls_client(self._cell, target, self._files.get(who), root)


def tls_client(cell: Cell, target: PlacedWorkload, identity: IdentityFiles | None, root: str) -> TlsAs:
    """As a sidecar calls the target; `root`: whom it trusts."""
    callee, protocol = cell.topology[target.name], cell.protocol
    name = f"outbound_.{callee.port(protocol)}_._.{callee.host}"
    return TlsAs(identity, root, server_name=name, alpn=_ALPN[callee.speaks(protocol)])


def entrance(placement: Placement, cell: Cell, who: Who) -> Entrance:
    """How an outsider with a certificate calls the sidecar of the entry."""
    target, callee = placement[cell.topology.entry.name], cell.topology.entry
    request = on_hop(cell, cell.topology.callers(target.name)[0], callee, What.ALLOWED, Plan())
    files = files_of_outsiders(placement)
    plain = effective_posture(cell, callee).mtls is MtlsMode.DISABLE
    secure = None if plain else tls_client(cell, target, files[who], str(files[Who.TWIN].root))
    return Entrance(OUTSIDER, target.pod_ip, callee.port(cell.protocol), request, secure)
