"""The prober: one small request per connection, and what came of it. For every mesh.

Laws of this file:
- It measures nothing; it finds out who is let through. No connection is kept, none is re-used.
- Every failure of the peer is an answer (`Seen`), not an exception: a refusal is what half of the
  calls are made for. Only defects of meshwise raise.
- Facts of the handshake come from Python's own TLS client and the peer's certificate, so they do not
  depend on what a proxy says about itself.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meshwise.load.wire import blocks, frames, tcp
from meshwise.mesh.expectations import Expectation, Seen, Signs, What
from meshwise.mesh.identity import IdentityFiles, spiffe_ids
from meshwise.mesh.request import (
    OTHER_TENANT,
    TENANT,
    TENANT_HEADER,
    allowance_for,
    method_of,
    path_of,
)
from meshwise.mesh.seam import Check
from meshwise.mesh.tokens import tokens
from meshwise.service.plan import HEADER as PLAN_HEADER
from meshwise.service.plan import Plan
from meshwise.study.model import Cell, Protocol, TopologyKind, Workload
from meshwise.study.topology import POSTGRES_PORT, REDIS_PORT

_GRPC_EMPTY_MESSAGE = bytes(5)
_GRPC_SEEN = {0: Seen.OK, 7: Seen.FORBIDDEN, 16: Seen.UNAUTHENTICATED}
_BAD_REQUEST, _INVALID_ARGUMENT = 400, 3
_HTTP_SEEN = {200: Seen.OK, 401: Seen.UNAUTHENTICATED, 403: Seen.FORBIDDEN}
_WINDOW_BYTES = 1 << 24


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


@dataclass(frozen=True)
class Ticket:
    """A session that the server offered to resume, with the context that it belongs to."""

    context: ssl.SSLContext
    session: ssl.SSLSession


@dataclass(frozen=True)
class TlsAs:
    """A TLS client: who it is (None: no certificate), whom it believes, what it names and offers."""

    identity: IdentityFiles | None
    root: str
    """PEM file of the authority that the server's certificate must come from."""
    server_name: str | None = None
    alpn: tuple[str, ...] = ()
    ticket: Ticket | None = field(default=None, repr=False)
    """Ask to resume this session."""


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
    ticket: Ticket | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Answer:
    seen: Seen
    detail: str = ""
    handshake: Handshake | None = None

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


def ask(connect: Callable[[], socket.socket], request: Ask, tls: TlsAs | None = None) -> Answer:
    """Connects, asks, closes. Nothing that the peer does raises."""
    handshake: Handshake | None = None
    try:
        connection = connect()
    except OSError as error:
        return Answer(_of_error(error), f"connect: {error}")
    try:
        with connection:
            if tls is None:
                return _exchange(connection, request)
            context = tls.ticket.context if tls.ticket else _context(tls)
            session = tls.ticket.session if tls.ticket else None
            with context.wrap_socket(connection, server_hostname=tls.server_name, session=session) as secure:
                handshake = _handshake(secure)
                answer = _exchange(secure, request)
                # TLS 1.3 sends tickets after the handshake, so they are here once an answer is.
                ticket = Ticket(context, secure.session) if secure.session else None
                return replace(answer, handshake=replace(handshake, ticket=ticket))
    except (OSError, http.client.HTTPException, frames.FramingError) as error:
        return Answer(_of_error(error), _words(error), handshake)


def check_of(expectation: Expectation, answer: Answer, signs: Signs, where: str = "") -> Check:
    """One line of a proof."""
    wanted = signs[expectation.meaning]
    return Check(
        name=f"{where}{expectation.name}",
        expected=f"{expectation.meaning} ({' or '.join(sorted(wanted))})",
        observed=str(answer),
        passed=answer.seen in wanted,
    )


# --- the wires ---------------------------------------------------------------------------------


def _exchange(connection: socket.socket, request: Ask) -> Answer:
    match request.protocol:
        case Protocol.TCP:
            return _greet(connection, request.greeting) if request.greeting else _tcp(connection, request)
        case Protocol.HTTP1:
            return _http1(connection, request)
        case _:
            return _http2(connection, request)


def _tcp(connection: socket.socket, request: Ask) -> Answer:
    """The framed echo. Raises ConnectionError when there is no whole answer."""
    head = tcp.answer_head(0, request.response_bytes)
    connection.sendall(tcp.encode_request(b"", request.response_bytes))
    came = b""
    while len(came) < len(head) + request.response_bytes:
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError("closed before the answer was complete")
        came += data
        if came[: len(head)] != head[: len(came)]:
            return Answer(Seen.OTHER, f"not the head of an answer: {came[:40]!r}")
    return Answer(Seen.OK)


def _greet(connection: socket.socket, greeting: Greeting) -> Answer:
    """Raises ConnectionError when there is no answer."""
    connection.sendall(greeting.sent)
    came = b""
    while not came.startswith(greeting.answers):
        data = connection.recv(4096)
        if not data:
            raise ConnectionResetError("closed without an answer")
        came += data
        if not any(each.startswith(came) or came.startswith(each) for each in greeting.answers):
            return Answer(Seen.OTHER, f"not an answer of this store: {came[:40]!r}")
    return Answer(Seen.OK)


def _http1(connection: socket.socket, request: Ask) -> Answer:
    client = http.client.HTTPConnection("unused")
    client.sock = connection
    client.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
    client.putheader("Host", request.authority)
    for name, value in request.headers:
        client.putheader(name, value)
    if request.method == "POST":
        client.putheader("Content-Length", "0")
    client.endheaders()
    response = client.getresponse()
    return _http_answer(response.status, response.read())


def _http2(connection: socket.socket, request: Ask) -> Answer:
    """RFC 9113 with prior knowledge, one stream; gRPC is the same with its content type and message."""
    grpc = request.protocol is Protocol.GRPC
    fields = [
        (":method", request.method), (":scheme", "http"),
        (":authority", request.authority), (":path", request.path), *request.headers,
    ]  # fmt: skip
    if grpc:
        fields += [("content-type", "application/grpc"), ("te", "trailers")]
    sent = frames.PREFACE + frames.settings(
        {frames.HEADER_TABLE_SIZE: 0, frames.ENABLE_PUSH: 0, frames.INITIAL_WINDOW_SIZE: _WINDOW_BYTES}
    )
    sent += frames.window_update(0, _WINDOW_BYTES)
    sent += frames.headers_frames(1, blocks.encode_block(fields), end_stream=not grpc)
    if grpc:
        sent += frames.data_frames(1, _GRPC_EMPTY_MESSAGE, end_stream=True)
    connection.sendall(sent)
    return _answer_of_fields(*_receive(connection), grpc)


def _receive(connection: socket.socket) -> tuple[dict[bytes, bytes], bytes]:
    """Header and trailer fields of stream 1 and its body, at its end. Raises ConnectionError when there is
    none."""
    decoder = blocks.BlockDecoder()
    fields: dict[bytes, bytes] = {}
    block = body = b""
    ends = False
    rest = b""
    while True:
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError("closed before the answer was complete")
        parsed, rest = frames.split(rest + data)
        for kind, flags, stream_id, payload in parsed:
            if kind == frames.SETTINGS and not flags & frames.ACK:
                _acknowledge(connection, frames.SETTINGS_ACK)
            elif kind == frames.PING and not flags & frames.ACK:
                _acknowledge(connection, frames.ping(payload, ack=True))
            elif kind == frames.GOAWAY and frames.parse_goaway(payload)[1] != frames.NO_ERROR:
                raise ConnectionResetError(f"GOAWAY {frames.parse_goaway(payload)[1]}")
            elif stream_id != 1:
                continue
            elif kind == frames.RST_STREAM:
                raise ConnectionResetError(f"RST_STREAM {frames.parse_code(payload)}")
            elif kind in (frames.HEADERS, frames.CONTINUATION):
                block += frames.unpad(kind, flags, payload) if kind == frames.HEADERS else payload
                ends = ends or bool(kind == frames.HEADERS and flags & frames.END_STREAM)
                if flags & frames.END_HEADERS:
                    fields.update(decoder.decode(block))
                    block = b""
            elif kind == frames.DATA:
                body += frames.unpad(kind, flags, payload)
                ends = bool(flags & frames.END_STREAM)
            if ends and not block:
                return fields, body


def _acknowledge(connection: socket.socket, data: bytes) -> None:
    """A peer may answer and close before it has our acknowledgement: the answer counts, so read on."""
    with suppress(ConnectionError):
        connection.sendall(data)


def _answer_of_fields(fields: dict[bytes, bytes], body: bytes, grpc: bool) -> Answer:
    status = int(fields.get(b":status", b"0"))
    if not grpc:
        return _http_answer(status, body)
    if b"grpc-status" not in fields:
        seen = Seen.OTHER if status == 200 else _HTTP_SEEN.get(status, Seen.OTHER)
        return Answer(seen, f"HTTP {status} without grpc-status")
    code = int(fields[b"grpc-status"])
    message = fields.get(b"grpc-message", b"").decode("latin-1")
    seen = _GRPC_SEEN.get(code, Seen.OTHER)
    if code == _INVALID_ARGUMENT and _is_the_banks(unquote(message).encode()):
        seen = Seen.DECLINED
    return Answer(seen, f"grpc-status {code} {message}".strip())


def _http_answer(status: int, body: bytes) -> Answer:
    seen = _HTTP_SEEN.get(status, Seen.OTHER)
    if status == _BAD_REQUEST and _is_the_banks(body):
        seen = Seen.DECLINED
    return Answer(seen, f"HTTP {status}" if seen is Seen.OTHER else "")


def _is_the_banks(text: bytes) -> bool:
    """Whether a refusal is in the bank's words; proxies refuse in plain ones."""
    try:
        return "error" in json.loads(text)
    except (ValueError, TypeError):
        return False


# --- TLS ---------------------------------------------------------------------------------------


def _context(tls: TlsAs) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a SPIFFE certificate names no host; `peer_ids` are compared instead
    context.load_verify_locations(tls.root)
    if tls.identity is not None:
        context.load_cert_chain(tls.identity.chain, tls.identity.key)
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    return context


def _handshake(secure: ssl.SSLSocket) -> Handshake:
    encoded = secure.getpeercert(binary_form=True)
    assert encoded is not None, "a TLS client that verifies has a peer certificate"
    certificate = x509.load_der_x509_certificate(encoded)
    cipher = secure.cipher()
    return Handshake(
        version=secure.version() or "",
        cipher=cipher[0] if cipher else "",
        alpn=secure.selected_alpn_protocol() or "",
        peer_ids=spiffe_ids(certificate),
        peer_key=_key_name(certificate),
        resumed=bool(secure.session_reused),
    )


def _key_name(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return "ecdsa-p256"
    return type(key).__name__


# --- failures ----------------------------------------------------------------------------------


def _of_error(error: Exception) -> Seen:
    if isinstance(error, TimeoutError):
        return Seen.TIMEOUT
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return Seen.TLS_FAILED
    if isinstance(error, (ConnectionError, ssl.SSLEOFError, http.client.RemoteDisconnected)):
        return Seen.CLOSED
    return Seen.OTHER


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or error.__class__.__name__
    return str(error) or error.__class__.__name__
