"""From what was typed after `meshwise load` to values; each refusal says what was meant."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import idna

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.files import reading
from meshwise.core.units import format_duration, format_size
from meshwise.load.addresses import in_turn
from meshwise.load.records import MOST_ADDRESSES, PEAK_ROW_BYTES
from meshwise.load.spec import LoadSpec
from meshwise.study.load.rate import rate_over_time
from meshwise.study.model import Arrivals

T = TypeVar("T")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""All other characters are sent as typed, in UTF-8 (obs-text of RFC 9110 5.5)."""
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LONGEST_NAME = 254
_GRPC_PATH = re.compile(r"/?[!-.0-~]+/[!-.0-~]+")
"""Printable and ASCII, with one slash between; what is around it is up to the server."""
MESSAGE_BYTES = 64 << 20
"""Of --message: servers of gRPC take 4 MiB unless told otherwise, and a run holds several copies."""
_OURS = frozenset({"content-length", "transfer-encoding", "connection"})


def of_option(option: str, parse: Callable[[str], T], text: str) -> T:
    """What was typed for an option; a refusal names it."""
    try:
        return parse(text)
    except MeshwiseError as error:
        raise replace(error, where=option) from error


@dataclass(frozen=True)
class Target:
    """A URL, resolved."""

    tls: bool
    host: str
    addresses: tuple[str, ...]
    """In the order in which they are tried."""
    port: int
    path: str
    opaque: bool = False
    """tcp://: the framed echo, which has no path."""

    @property
    def authority(self) -> str:
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
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
    try:
        host = _zoned(parts.hostname) if ":" in parts.hostname else ascii_name(parts.hostname)
    except ValueError as error:
        raise messages.BAD_URL.error(text=text, why=str(error)) from error
    tls = parts.scheme == "https"
    port = (443 if tls else 80) if port is None else port
    if port == 0:
        raise messages.BAD_URL.error(text=text, why="port 0 cannot be connected to")
    return Target(tls, host, _resolve(host, port), port, path, opaque)


def _zoned(address: str) -> str:
    """An IPv6 address; the interface behind `%` (RFC 6874: `%25`) is one that is here. Raises ValueError."""
    address, percent, zone = address.partition("%")
    local = ipaddress.IPv6Address(address).is_link_local
    here = [name for _, name in socket.if_nameindex()]
    zone = zone if zone in here else zone.removeprefix("25")
    if local and not percent:
        raise ValueError(f"a link-local address needs its interface: [{address}%{here[-1]}]")
    if percent and not local:
        raise ValueError("only a link-local address has an interface, behind `%`")
    if percent and zone not in here:
        raise ValueError(f"there is no interface `{zone}` here; there are: {', '.join(here)}")
    return f"{address}{percent}{zone}"


def ascii_name(host: str) -> str:
    """A host's name as DNS, TLS and HTTP carry it; an address stays as it is. Raises ValueError.

    IDNA 2008 with the mapping of UTS 46, as browsers and curl have it. (Python's own codec is that of 2003,
    for which `faß.de` is `fass.de`: another host.)"""
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return host
    try:
        name = host if host.isascii() else idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"`{host}` is no name of a host: {error}") from error
    if len(name) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, name.removesuffix(".").split("."))):
        raise ValueError(f"`{host}` is no name of a host")
    return name


def parse_server_name(text: str) -> str:
    """Of --server-name; empty: none is sent and none is checked. Raises MW303."""
    try:
        return ascii_name(text) if text else ""
    except ValueError as error:
        raise refusal(f"--server-name: {error}", "write the name that the certificate bears") from error


def parse_method(text: str) -> str:
    """Of --method, a token (RFC 9110 9.1). Raises MW303."""
    if not _TOKEN.fullmatch(text):
        raise refusal(f"--method: `{text}` is no HTTP method", "write a word like GET or PUT")
    return text.upper()


def parse_grpc_path(text: str, option: str) -> str:
    """`package.Service/Method`, of --grpc-method or a URL, as the path of the request. Raises MW303."""
    if not _GRPC_PATH.fullmatch(text):
        raise refusal(f"{option}`{text}` is not a gRPC method", "write --grpc-method package.Service/Method")
    return f"/{text.lstrip('/')}"


def check_room(spec: LoadSpec, available: int, targets: int = 1) -> None:
    """Raises MW303 when the records of all requests, to so many targets, do not fit into so many bytes of
    memory."""
    if spec.arrivals is Arrivals.CLOSED:
        return  # takes what there is, and ends early
    mean = 1.0
    if spec.shape is not None:
        mean = rate_over_time(spec.shape, spec.rate_rps, spec.duration_ns).mean
    per_s = spec.rate_rps * max(mean, 1e-9)
    available //= targets
    rows = spec.rate_rps * spec.warmup_ns / 1e9 + per_s * spec.duration_ns / 1e9
    if rows * PEAK_ROW_BYTES > available:
        longest_ns = 0.9e9 * (available / PEAK_ROW_BYTES - spec.rate_rps * spec.warmup_ns / 1e9) / per_s
        raise refusal(
            f"--rate and --duration ask for {rows:,.0f} requests, whose records need"
            f" {format_size(rows * PEAK_ROW_BYTES)} of memory; {format_size(available)} may be taken"
            + (" for each URL" if targets > 1 else ""),
            "lower --rate"
            + (f", or --duration to {format_duration(longest_ns)}" if longest_ns > 10**9 else ""),
        )


def refusal(what: str, remedy: str) -> MeshwiseError:
    return messages.BAD_LOAD_OPTION.error(what=what, remedy=remedy)


def _resolve(host: str, port: int) -> tuple[str, ...]:
    if "%" in host:
        return (host,)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise messages.CANNOT_RESOLVE.error(host=host, why=str(error)) from error
    return in_turn([str(address[0]) for *_, address in found])[:MOST_ADDRESSES]


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
        if _CONTROL.search(value):
            raise messages.BAD_HEADER.error(text=text, why="its value has control characters")
        if name.lower() in _OURS:
            raise messages.BAD_HEADER.error(text=text, why="the instrument sets this one itself")
        headers.append((name, value))
    return tuple(headers)


def read_message(path: Path) -> bytes:
    """The serialised request of --message, of at most MESSAGE_BYTES. Raises MW303."""
    try:
        with reading(path, piped=True) as file:
            content = file.read(MESSAGE_BYTES + 1)
        why = f"it is larger than {format_size(MESSAGE_BYTES)}" if len(content) > MESSAGE_BYTES else ""
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise messages.BAD_LOAD_OPTION.error(
            where=str(path),
            what=f"the message cannot be read: {why}",
            remedy="give a file with the serialised request (protoc --encode writes one)",
        )
    return content
