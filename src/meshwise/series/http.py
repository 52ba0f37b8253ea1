"""One HTTP client for what others run: an address that is checked, an answer that is bounded, credentials
that come from a file and go to that one address only.

Redirects are not followed, and no proxy of the environment is used: what is sent, or asked, goes where the
user said.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import stat
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from meshwise import __version__
from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.files import reading

MOST_BYTES = 64 << 20
"""Of one answer."""
TIMEOUT_S = 60.0
"""For one exchange, however slowly it is answered."""
_SHOWN = 300


@dataclass(frozen=True)
class Endpoint:
    """Where to, and with what credentials."""

    scheme: str
    host: str
    port: int | None
    path: str
    """Without a slash at its end."""
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{host}{port}{self.path}"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes

    @property
    def words(self) -> str:
        """The beginning of its text, in one line."""
        return (
            " ".join(self.body[: 4 * _SHOWN].decode("utf-8", "replace").split())[:_SHOWN] or "no reason given"
        )


class TooLong(Exception):
    """The answer has more bytes than are read."""


def endpoint(url: str, auth: Path | None = None) -> Endpoint:
    """Raises MW020 for what is no http(s) address, MW021 for an unusable file of credentials."""

    def bad(reason: str, remedy: str) -> MeshwiseError:
        shown = url if "@" not in url else f"{url.partition('://')[0]}://...@{url.rpartition('@')[2]}"
        return messages.BAD_SERVER_ADDRESS.error(url=shown, reason=reason, remedy=remedy)

    example = "give one like http://127.0.0.1:9090"
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise bad("it has blanks or control characters", example)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise bad(str(error), example) from error
    if parts.scheme not in ("http", "https"):
        raise bad(f"its scheme is `{parts.scheme}`" if parts.scheme else "it has no scheme", example)
    if parts.username is not None or parts.password is not None:
        raise bad(
            "it holds credentials, which would be kept and shown", "put them into a file: `--auth FILE`"
        )
    if not parts.hostname:
        raise bad("it names no host", example)
    if parts.query or parts.fragment:
        raise bad("it has a query or a fragment", "give the address without `?` and `#`")
    return Endpoint(
        parts.scheme, parts.hostname, port, parts.path.rstrip("/"), _credentials(auth) if auth else None
    )


def _credentials(path: Path) -> str:
    """The value of the header; the file's text is in no message."""
    try:
        with reading(path) as stream:
            mode = os.fstat(stream.fileno()).st_mode
            text = stream.read(8193).decode()
    except OSError as error:
        raise messages.BAD_AUTH_FILE.error(str(path), reason=error.strerror or "it cannot be read") from error
    except UnicodeDecodeError as error:
        raise messages.BAD_AUTH_FILE.error(str(path), reason="it is not UTF-8") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise messages.BAD_AUTH_FILE.error(str(path), reason="others than its owner may read or write it")
    lines = text.strip().splitlines()
    kind, _, secret = (lines[0] if len(lines) == 1 else "").partition(" ")
    secret = secret.strip()
    if not secret or not secret.isascii() or not secret.isprintable():
        raise messages.BAD_AUTH_FILE.error(str(path), reason="it is not one line of credentials")
    if kind.lower() == "bearer":
        return f"Bearer {secret}"
    if kind.lower() == "basic" and ":" in secret:
        return f"Basic {b64encode(secret.encode()).decode()}"
    raise messages.BAD_AUTH_FILE.error(str(path), reason="it begins with neither `Bearer` nor `Basic`")


def exchange(
    to: Endpoint,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> Reply:
    """One request on a connection of its own. Raises MW022 without an answer, TooLong for one that is larger
    than `most_bytes`; any status is an answer."""
    deadline = time.monotonic() + timeout_s
    kind = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
    connection = kind(to.host, to.port, timeout=timeout_s)
    own = {"User-Agent": f"meshwise/{__version__}", "Connection": "close", **(headers or {})}
    if to.authorization:
        own["Authorization"] = to.authorization
    try:
        connection.request(method, to.path + path, body, own)
        answer = connection.getresponse()
        content = _read(answer, connection.sock, most_bytes, deadline)
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)
    except ssl.SSLError as error:
        reason = f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}"
        raise messages.UNREACHABLE.error(str(to), reason=reason, url=to) from error
    except TimeoutError as error:
        raise messages.UNREACHABLE.error(str(to), reason=f"none within {timeout_s:g} s", url=to) from error
    except (OSError, socket.gaierror) as error:
        raise messages.UNREACHABLE.error(str(to), reason=error.strerror or str(error), url=to) from error
    except http.client.HTTPException as error:
        words = str(error) or type(error).__name__
        raise messages.GARBAGE.error(str(to), reason=f"no HTTP: {words[:_SHOWN]}", url=to) from error
    finally:
        connection.close()


def _read(
    answer: http.client.HTTPResponse, sock: socket.socket | None, most_bytes: int, deadline: float
) -> bytes:
    content = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if sock is not None and sock.fileno() >= 0:
            sock.settimeout(left)
        piece = answer.read1(1 << 16)
        if not piece:
            if answer.length:
                raise http.client.IncompleteRead(bytes(content[:0]), answer.length)
            return bytes(content)
        content += piece
        if len(content) > most_bytes:
            raise TooLong


@dataclass(frozen=True)
class Retries:
    """How often, and how long between."""

    attempts: int = 5
    first_s: float = 0.5
    most_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep


def persisting(act: Callable[[], Reply], retries: Retries) -> Reply:
    """Again where there was no answer, or one that says later: 429 and 5xx; as long as `Retry-After` says, at
    most `most_s`. The last answer whatever it is; raises MW022 as `act` does when none came at last."""
    pause_s = retries.first_s
    for attempt in range(1, retries.attempts + 1):
        try:
            reply = act()
        except MeshwiseError as error:
            if error.code != messages.UNREACHABLE.code or attempt == retries.attempts:
                raise
            retries.sleep(pause_s)
        else:
            if (reply.status != 429 and reply.status < 500) or attempt == retries.attempts:
                return reply
            told = reply.headers.get("retry-after", "")
            retries.sleep(min(retries.most_s, float(told) if told.isdecimal() else pause_s))
        pause_s = min(retries.most_s, 2 * pause_s)
    raise AssertionError("at least one attempt")
