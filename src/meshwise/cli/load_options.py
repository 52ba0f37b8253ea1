"""From what was typed after `meshwise load` to values; each refusal says what was meant."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from meshwise.core import messages

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = frozenset({"content-length", "transfer-encoding", "connection"})


@dataclass(frozen=True)
class Target:
    """A URL, resolved."""

    tls: bool
    host: str
    address: str
    port: int
    path: str
    opaque: bool = False
    """tcp://: the framed echo, which has no path."""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parse_url(text: str) -> Target:
    """Raises MW301 for what is not a URL to load, MW308 for a host without an address."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise messages.BAD_URL.error(text=text, why=str(error)) from error
    if parts.scheme not in ("http", "https", "tcp") or not text.lower().startswith(f"{parts.scheme}://"):
        raise messages.BAD_URL.error(text=text, why="it does not begin with http://, https:// or tcp://")
    if not parts.hostname:
        raise messages.BAD_URL.error(text=text, why="it has no host")
    if parts.username is not None:
        raise messages.BAD_URL.error(text=text, why="a user name belongs into --header 'authorization: ...'")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(character <= " " for character in path):
        raise messages.BAD_URL.error(text=text, why="its path has characters that must be percent-encoded")
    opaque = parts.scheme == "tcp"
    if opaque and (path not in ("/", "") or port is None):
        raise messages.BAD_URL.error(text=text, why="opaque TCP has a port and no path: tcp://HOST:PORT")
    tls = parts.scheme == "https"
    port = (443 if tls else 80) if port is None else port
    if port == 0:
        raise messages.BAD_URL.error(text=text, why="port 0 cannot be connected to")
    return Target(tls, parts.hostname, _resolve(parts.hostname, port), port, path, opaque)


def _resolve(host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise messages.CANNOT_RESOLVE.error(host=host, why=str(error)) from error
    # IPv4 first: `localhost` servers that listen on ::1 alone are rare, the other way round is common.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def parse_headers(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`name: value` or `name:value`. Raises MW302."""
    headers = []
    for text in texts:
        name, colon, value = text.partition(":")
        name, value = name.strip(), value.strip()
        if not colon:
            raise messages.BAD_HEADER.error(text=text, why="it has no colon")
        if not _TOKEN.fullmatch(name):
            raise messages.BAD_HEADER.error(text=text, why=f"`{name}` cannot be a header name")
        if any(character in value for character in "\r\n\0") or any(
            ord(character) > 255 for character in value
        ):
            raise messages.BAD_HEADER.error(text=text, why="its value has characters that cannot be sent")
        if name.lower() in _OURS:
            raise messages.BAD_HEADER.error(text=text, why="the instrument sets this one itself")
        headers.append((name, value))
    return tuple(headers)


def read_message(path: Path) -> bytes:
    """The serialised request of --message. Raises MW303."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise messages.BAD_LOAD_OPTION.error(
            where=str(path),
            what=f"the message cannot be read: {error.strerror}",
            remedy="give a file with the serialised request (protoc --encode writes one)",
        ) from error
