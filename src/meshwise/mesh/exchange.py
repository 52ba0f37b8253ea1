"""Carries out one request of the prober on a socket that is made for it, and reads what comes. Used by every
`Reach` that has sockets.

Rules of this file:
- It measures nothing; it finds out who is let through. No connection is kept, none is re-used.
- Every failure of the peer is an answer (`CallOutcome`), not an exception: a refusal is what half of the
  calls are made for. Only defects of meshwise raise.
- Facts of the handshake come from Python's own TLS client and the peer's certificate, so they do not
  depend on what a proxy says about itself.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import unquote

from cryptography import x509

from meshwise.load.wire import blocks, frames, tcp
from meshwise.mesh.expectations import CallOutcome
from meshwise.mesh.identity import key_name, spiffe_ids
from meshwise.mesh.probe import MOST_BODY_BYTES, Ask, Greeting, Handshake, ProbeAnswer, TlsAs
from meshwise.study.model import Protocol

_GRPC_EMPTY_MESSAGE = bytes(5)
_GRPC_SEEN = {0: CallOutcome.OK, 7: CallOutcome.FORBIDDEN, 16: CallOutcome.UNAUTHENTICATED}
_BAD_REQUEST, _INVALID_ARGUMENT = 400, 3
_HTTP_SEEN = {200: CallOutcome.OK, 401: CallOutcome.UNAUTHENTICATED, 403: CallOutcome.FORBIDDEN}
_WINDOW_BYTES = 1 << 24

Connect = Callable[[], socket.socket]
"""A connected TCP socket, with a time-out set. Raises OSError as connect does."""


@dataclass(frozen=True)
class SessionTicket:
    """A session that the server offered to resume, with the context that it belongs to."""

    context: ssl.SSLContext
    session: ssl.SSLSession


def ask(connect: Connect, request: Ask, tls: TlsAs | None = None) -> ProbeAnswer:
    """Connects, asks, closes. Nothing that the peer does raises."""
    answer, ticket = ask_once(connect, request, tls)
    if tls is None or not tls.resume:
        return answer
    return ask_once(connect, request, tls, ticket)[0] if ticket else answer


def ask_once(
    connect: Connect, request: Ask, tls: TlsAs | None, ticket: SessionTicket | None = None
) -> tuple[ProbeAnswer, SessionTicket | None]:
    """The same on one connection, which offers this ticket's session; and what a later one may offer."""
    handshake: Handshake | None = None
    try:
        connection = connect()
    except OSError as error:
        return ProbeAnswer(_of_error(error), f"connect: {error}"), None
    try:
        with connection:
            if tls is None:
                return _exchange(connection, request), None
            context, session = (ticket.context, ticket.session) if ticket else (client_context(tls), None)
            usual_s = connection.gettimeout()
            connection.settimeout(tls.within_s or usual_s)
            with context.wrap_socket(connection, server_hostname=tls.server_name, session=session) as secure:
                secure.settimeout(usual_s)
                handshake = _handshake(secure)
                if tls.preface:
                    secure.sendall(tls.preface)
                answer = replace(_exchange(secure, request), handshake=handshake)
                # TLS 1.3 sends tickets after the handshake, so they are here once an answer is.
                return answer, SessionTicket(context, secure.session) if secure.session else None
    except (OSError, http.client.HTTPException, frames.FramingError) as error:
        return ProbeAnswer(_of_error(error), _words(error), handshake), None


# --- the wires ---------------------------------------------------------------------------------


def _exchange(connection: socket.socket, request: Ask) -> ProbeAnswer:
    match request.protocol:
        case Protocol.TCP:
            return _greet(connection, request.greeting) if request.greeting else _tcp(connection, request)
        case Protocol.HTTP1:
            return _http1(connection, request)
        case _:
            return _http2(connection, request)


def _tcp(connection: socket.socket, request: Ask) -> ProbeAnswer:
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
            return ProbeAnswer(CallOutcome.OTHER, f"not the head of an answer: {came[:40]!r}")
    return ProbeAnswer(CallOutcome.OK)


def _greet(connection: socket.socket, greeting: Greeting) -> ProbeAnswer:
    """Raises ConnectionError when there is no answer."""
    connection.sendall(greeting.sent)
    came = b""
    while not came.startswith(greeting.answers):
        data = connection.recv(4096)
        if not data:
            raise ConnectionResetError("closed without an answer")
        came += data
        if not any(each.startswith(came) or came.startswith(each) for each in greeting.answers):
            return ProbeAnswer(CallOutcome.OTHER, f"not an answer of this store: {came[:40]!r}")
    return ProbeAnswer(CallOutcome.OK)


def _http1(connection: socket.socket, request: Ask) -> ProbeAnswer:
    client = http.client.HTTPConnection("unused")
    client.sock = connection
    client.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
    client.putheader("Host", request.authority)
    for name, value in request.headers:
        client.putheader(name, value)
    if request.method == "POST" or request.body:
        client.putheader("Content-Length", str(len(request.body)))
    client.endheaders(request.body or None)
    response = client.getresponse()
    came = tuple((name.lower(), value) for name, value in response.getheaders())
    return _http_answer(response.status, response.read(), came)


def _http2(connection: socket.socket, request: Ask) -> ProbeAnswer:
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
    body = _GRPC_EMPTY_MESSAGE if grpc else request.body
    sent += frames.headers_frames(1, blocks.encode_block(fields), end_stream=not body)
    if body:
        sent += frames.data_frames(1, body, end_stream=True)
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


def _answer_of_fields(fields: dict[bytes, bytes], body: bytes, grpc: bool) -> ProbeAnswer:
    status = int(fields.get(b":status", b"0"))
    came = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields.items())
    if not grpc:
        return _http_answer(status, body, came)
    whole = ProbeAnswer(CallOutcome.OTHER, status=status, fields=came, body=body[:MOST_BODY_BYTES])
    if b"grpc-status" not in fields:
        seen = CallOutcome.OTHER if status == 200 else _HTTP_SEEN.get(status, CallOutcome.OTHER)
        return replace(whole, seen=seen, detail=f"HTTP {status} without grpc-status")
    code = int(fields[b"grpc-status"])
    message = fields.get(b"grpc-message", b"").decode("latin-1")
    seen = _GRPC_SEEN.get(code, CallOutcome.OTHER)
    if code == _INVALID_ARGUMENT and _is_the_banks(unquote(message).encode()):
        seen = CallOutcome.DECLINED
    return replace(whole, seen=seen, detail=f"grpc-status {code} {message}".strip())


def _http_answer(status: int, body: bytes, came: tuple[tuple[str, str], ...]) -> ProbeAnswer:
    seen = _HTTP_SEEN.get(status, CallOutcome.OTHER)
    if status == _BAD_REQUEST and _is_the_banks(body):
        seen = CallOutcome.DECLINED
    detail = f"HTTP {status}" if seen is CallOutcome.OTHER else ""
    return ProbeAnswer(seen, detail, status=status, fields=came, body=body[:MOST_BODY_BYTES])


def _is_the_banks(text: bytes) -> bool:
    """Whether a refusal is in the bank's words; proxies refuse in plain ones."""
    try:
        return "error" in json.loads(text)
    except (ValueError, TypeError):
        return False


# --- TLS ---------------------------------------------------------------------------------------


def client_context(tls: TlsAs) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a SPIFFE certificate names no host; `peer_ids` are compared instead
    context.load_verify_locations(tls.root)
    if tls.identity is not None:
        context.load_cert_chain(tls.identity.chain, tls.identity.key)
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    if tls.ciphers:
        context.set_ciphers(tls.ciphers)
    if tls.versions:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # that is the point
            context.minimum_version, context.maximum_version = (ssl.TLSVersion[name] for name in tls.versions)
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
        peer_key=key_name(certificate),
        resumed=bool(secure.session_reused),
        serial=f"{certificate.serial_number:x}",
        chain=_certificates_sent(secure),
        valid_s=round((certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds()),
    )


def _certificates_sent(secure: ssl.SSLSocket) -> int:
    """By the peer, in a full handshake. `get_unverified_chain` is public from Python 3.13 on, and up to 3.12
    only a method of the object behind the socket."""
    source = secure if hasattr(secure, "get_unverified_chain") else getattr(secure, "_sslobj")  # noqa: B009
    return len(source.get_unverified_chain() or ())


# --- failures ----------------------------------------------------------------------------------


def _of_error(error: Exception) -> CallOutcome:
    if isinstance(error, TimeoutError):
        return CallOutcome.TIMEOUT
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return CallOutcome.TLS_FAILED
    if isinstance(error, (ConnectionError, ssl.SSLEOFError, http.client.RemoteDisconnected)):
        return CallOutcome.CLOSED
    return CallOutcome.OTHER


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or error.__class__.__name__
    return str(error) or error.__class__.__name__
