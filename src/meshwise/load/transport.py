"""A non-blocking connection: TCP, then TLS when asked for. Knows sockets and nothing of requests.

TLS runs over memory buffers rather than on the socket: OpenSSL on a socket reads each record with two
system calls, here one call brings all that has come. `recv` and `send` keep the socket's own contract
(BlockingIOError when there is nothing, b"" at the end), so that the engine's loop is one for both.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

from meshwise.core import messages
from meshwise.core.files import NotPlain, require_regular
from meshwise.load.spec import TlsSpec
from meshwise.load.wire.foreign import foreign
from meshwise.study.model import Protocol

_READ_BYTES = 256 * 1024


def tls_context(tls: TlsSpec, protocol: Protocol) -> ssl.SSLContext:
    """Client side; the ALPN of the protocol (none for tcp) unless `tls` names some. Raises MW304 for a file
    that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls.ca_file is not None:
        try:
            require_regular(Path(tls.ca_file))
            context.load_verify_locations(tls.ca_file)
        except (OSError, ssl.SSLError) as error:
            why = error.strerror if isinstance(error, NotPlain) else str(error)
            raise messages.BAD_TLS_FILE.error(where=tls.ca_file, what="CA", why=why) from error
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = bool(tls.server_name)
    if tls.cert_file is not None:
        for path in filter(None, (tls.cert_file, tls.key_file)):
            if not Path(path).is_file():
                raise messages.BAD_TLS_FILE.error(where=path, what="certificate or key", why="no such file")
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file)
        except (OSError, ssl.SSLError) as error:
            raise messages.BAD_TLS_FILE.error(
                where=tls.cert_file, what="certificate and key", why=str(error)
            ) from error
    if tls.alpn is not None:
        if tls.alpn:
            context.set_alpn_protocols(list(tls.alpn))
    elif protocol is not Protocol.TCP:
        context.set_alpn_protocols(["http/1.1"] if protocol is Protocol.HTTP1 else ["h2"])
    return context


class TlsStream:
    """TLS over a connected non-blocking socket."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        server_name: str,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """`session`: of an earlier connection with this context, offered to the server."""
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._in, self._out, server_hostname=server_name or None, session=session
        )
        self.ended = False
        """The peer ended it (close_notify), which one that only cut the connection could not have sent."""
        self._unsent = b""
        self._first = b""
        """What the server sent first."""

    def handshake(self, readable: bool) -> bool:
        """Goes on with the handshake; True when it is done. Raises ssl.SSLError, OSError, EOFError."""
        if readable:
            try:
                data = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                return False
            if not data:
                raise EOFError("the server closed during the TLS handshake")
            self._first = self._first or data[:64]
            self._in.write(data)
        try:
            self._tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        finally:
            self._flush()
        return done

    def explained(self, error: Exception) -> str:
        """Why the handshake failed, by name where it can be told."""
        who = foreign(self._first)
        if who != "TLS" and self._first:
            return f"the server does not speak TLS here, it answers in {who or repr(self._first[:24])}"
        text = str(error)
        if "NO_APPLICATION_PROTOCOL" in text:
            return "the server takes none of the protocols that were offered to it by ALPN"
        return text

    def alpn(self) -> str | None:
        return self._tls.selected_alpn_protocol()

    def version(self) -> str | None:
        return self._tls.version()

    def resumed(self) -> bool:
        """The server took the session that was offered."""
        return bool(self._tls.session_reused)

    def session(self) -> ssl.SSLSession | None:
        """What a later connection may offer, if there is such a thing by now."""
        session = self._tls.session
        if session is None or (self._tls.version() == "TLSv1.3" and not session.has_ticket):
            return None
        return session

    def close_notify(self) -> bytes:
        """The records that end TLS in good order."""
        with contextlib.suppress(ssl.SSLError):  # the peer has not said it yet
            self._tls.unwrap()
        return self._unsent + self._out.read()

    def recv(self, size: int) -> bytes:
        data = self._sock.recv(size)
        if not data:
            return b""
        self._in.write(data)
        return self.take_decrypted()

    def take_decrypted(self) -> bytes:
        """What is at hand; b"" when the peer closed, BlockingIOError when there is nothing."""
        tls = self._tls
        plain = b""
        try:
            while more := tls.read(_READ_BYTES):
                plain += more
                if not self._in.pending and not tls.pending():
                    return plain
        except ssl.SSLWantReadError:
            if plain:
                return plain
            raise BlockingIOError from None
        except ssl.SSLZeroReturnError:  # as below, where we have said it too
            pass
        # The end, whether or not the peer closes TCP too. Behind bytes it is read at the next event, and
        # there is one: the socket is at its end now.
        self.ended = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)
        return plain

    def seal(self, data: bytes) -> bytes:
        """The records that carry `data`, to be sent in order (with what TLS itself had still to send)."""
        self._tls.write(data)
        sealed = self._unsent + self._out.read()
        self._unsent = b""
        return sealed

    def _flush(self) -> None:
        self._unsent += self._out.read()
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                return
            self._unsent = self._unsent[sent:]
