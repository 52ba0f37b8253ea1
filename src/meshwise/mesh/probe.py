"""The prober's words, for every mesh: a small request, who makes it, and what came of it. Pure.

What carries a request out is a `Reach` (`mesh.reach`): sockets in pods on one machine (`mesh.exchange`), or
an agent in a pod of a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.archive.outcome import Check
from meshwise.mesh.expectations import CallOutcome, Expectation, Signs, What
from meshwise.mesh.identity import IdentityFiles
from meshwise.mesh.request import (
    OTHER_TENANT,
    TENANT,
    TENANT_HEADER,
    allowance_for,
    method_of,
    path_of,
)
from meshwise.mesh.tokens import tokens
from meshwise.service.plan import HEADER as PLAN_HEADER
from meshwise.service.plan import Plan
from meshwise.study.model import Cell, Protocol, TopologyKind, Workload
from meshwise.study.topology import POSTGRES_PORT, REDIS_PORT


@dataclass(frozen=True)
class Greeting:
    """The first words to a store, which change nothing there, and how its answer begins."""

    sent: bytes
    answers: tuple[bytes, ...]


GREETINGS = {
    POSTGRES_PORT: Greeting(bytes.fromhex("0000000804d2162f"), (b"N", b"S")),
    REDIS_PORT: Greeting(b"PING\r\n", (b"+PONG", b"-NOAUTH")),
}
"""PostgreSQL: SSLRequest, answered by one letter before any login (its documentation, "Message Flow"). Redis:
PING, which it answers, or refuses for want of a password."""


MOST_BODY_BYTES = 1 << 16


@dataclass(frozen=True)
class Ask:
    """One request. `authority` as in the Host header."""

    protocol: Protocol
    authority: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    response_bytes: int = 0
    """Opaque TCP, which has none of the three before: the payload that is asked for."""
    greeting: Greeting | None = None
    """Opaque TCP to a real store, which speaks no framed echo."""
    body: bytes = b""
    """Of HTTP; gRPC has its own empty message."""


@dataclass(frozen=True)
class TlsAs:
    """A TLS client: who it is (None: no certificate), whom it trusts, what it names and offers."""

    identity: IdentityFiles | None
    root: str
    """PEM file of the authority that the server's certificate must come from."""
    server_name: str | None = None
    alpn: tuple[str, ...] = ()
    preface: bytes = b""
    """Sent first inside TLS, such as a header that names a port."""
    resume: bool = False
    """Call twice; the answer is that of the second connection, which offered the session of the first."""
    versions: tuple[str, str] | None = None
    """Lowest and highest that is offered, by OpenSSL's names (`TLSv1`, `TLSv1_2`, `TLSv1_3`); None: its
    own."""
    ciphers: str = ""
    """OpenSSL's cipher list for TLS 1.2 and older; empty: its own."""
    within_s: float | None = None
    """How long the handshake may take; None: as long as every other answer."""


@dataclass(frozen=True)
class Entrance:
    """How the sidecar of a workload is called by a client that has the mesh's own client's identity, but no
    sidecar: each call is one connection to it, and nobody else works for it."""

    pod: str
    address: str
    port: int
    request: Ask
    tls: TlsAs | None
    """None where the posture has no mutual TLS."""


@dataclass(frozen=True)
class Handshake:
    """What the TLS client saw."""

    version: str
    cipher: str
    alpn: str
    peer_ids: tuple[str, ...]
    """URI names of the server's certificate."""
    peer_key: str
    """Key type of the server's certificate, as `KeyType` names it where it has a name for it."""
    resumed: bool
    serial: str = ""
    """Of the server's certificate, in hexadecimal digits."""
    chain: int = 1
    """Certificates that the server sent, its own included."""
    valid_s: int = 0
    """From the first to the last moment at which the server's certificate is valid."""


@dataclass(frozen=True)
class ProbeAnswer:
    seen: CallOutcome
    detail: str = ""
    handshake: Handshake | None = None
    status: int = 0
    """HTTP's; 0 without an answer in HTTP."""
    fields: tuple[tuple[str, str], ...] = ()
    """Of the answer, trailers included; names in lower case."""
    body: bytes = b""
    """Of the answer, at most `MOST_BODY_BYTES` of it."""

    def field(self, name: str) -> str:
        """The first of this name; empty if there is none."""
        return next((value for known, value in self.fields if known == name), "")

    def __str__(self) -> str:
        return f"{self.seen} ({self.detail})" if self.detail else str(self.seen)


def variant(cell: Cell, what: What, authority: str, plan: Plan) -> Ask:
    """The cell's own request with the one fault that `what` names; `plan` is what the node is told."""
    return _fault(cell.protocol, (method_of(cell), path_of(cell)), what, authority, plan)


def on_hop(cell: Cell, caller: Workload, callee: Workload, what: What, plan: Plan) -> Ask:
    """What `caller` may ask `callee` under least privilege, in the protocol of that hop, with one fault. A
    service of the bank gets no body, which it declines before it does anything."""
    protocol, port = callee.speaks(cell.protocol), callee.port(cell.protocol)
    authority = f"{callee.host}:{port}"
    if protocol is Protocol.TCP:
        greeting = GREETINGS.get(port) if cell.shape is TopologyKind.BANK else None
        return Ask(protocol, authority, "", "", (), plan.bytes, greeting)
    return _fault(protocol, allowance_for(cell, caller, callee).requests[0], what, authority, plan)


def _fault(protocol: Protocol, request: tuple[str, str], what: What, authority: str, plan: Plan) -> Ask:
    if protocol is Protocol.TCP:
        return Ask(protocol, authority, "", "", (), plan.bytes)
    token: str | None = {
        What.EXPIRED_TOKEN: tokens().expired,
        What.FORGED_TOKEN: tokens().forged,
        What.OTHER_CLAIM: tokens().other_claim,
    }.get(what, tokens().valid)
    headers = [
        (TENANT_HEADER, OTHER_TENANT if what is What.OTHER_HEADER else TENANT),
        (PLAN_HEADER, str(plan)),
    ]
    if what is not What.NO_TOKEN:
        headers.insert(0, ("authorization", f"Bearer {token}"))
    method, path = request
    if what is What.OTHER_PATH:
        path = "/meshwise.Echo/Other" if protocol is Protocol.GRPC else f"{path}/other"
    if what is What.OTHER_METHOD:
        method = "DELETE"
    return Ask(protocol, authority, method, path, tuple(headers))


def check_of(expectation: Expectation, answer: ProbeAnswer, signs: Signs, where: str = "") -> Check:
    """One line of a proof."""
    wanted = signs[expectation.meaning]
    return Check(
        name=f"{where}{expectation.name}",
        expected=f"{expectation.meaning} ({' or '.join(sorted(wanted))})",
        observed=str(answer),
        passed=answer.seen in wanted,
    )
