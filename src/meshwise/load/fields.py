"""What a request may carry: its method, path and header fields, checked for the protocol that will send them.

For `meshwise load` and for studies alike: `instrument.check_spec` asks before anything starts. A field that a
protocol cannot carry is refused with a word, never left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from meshwise.core import messages
from meshwise.load.spec import LoadSpec
from meshwise.study.model import Protocol

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 section 5.6.2: a method, the name of a field."""
_TARGET = re.compile(r"[!-~]+")
_GRPC_PATH = re.compile(r"/[!-.0-~]+/[!-.0-~]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = frozenset({"content-length", "transfer-encoding"})
_OF_CONNECTIONS = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"}
)


def check_request(spec: LoadSpec) -> None:
    """Raises MW302 for a header, MW303 for a method or path. Opaque TCP has none of them."""
    if spec.protocol is Protocol.TCP:
        return
    check_method(spec.method, spec.protocol)
    check_headers(spec.headers, spec.protocol)
    if spec.script is None:
        check_path(spec.path, spec.protocol)


def check_method(method: str, protocol: Protocol) -> None:
    """Raises MW303."""
    if not TOKEN.fullmatch(method):
        _refuse(f"{method!r} is no HTTP method", "write a word like GET or PUT")
    if method == "CONNECT":
        _refuse("CONNECT opens a tunnel, which is no request to be measured", "write another method")
    if protocol is Protocol.GRPC and method != "POST":
        _refuse(f"a gRPC call is a POST, never {method}", "leave out --method, or write --method POST")


def check_path(path: str, protocol: Protocol) -> None:
    """Raises MW303."""
    if protocol is Protocol.GRPC and not _GRPC_PATH.fullmatch(path):
        _refuse(f"{path!r} is not the path of a gRPC method", "write --grpc-method package.Service/Method")
    if not _TARGET.fullmatch(path):
        _refuse(
            f"the path {path!r} has characters that must be percent-encoded", "write them as %20 and the like"
        )


def check_headers(headers: Sequence[tuple[str, str]], protocol: Protocol) -> None:
    """Raises MW302 for what is no header, MW303 for one that the protocol cannot carry."""
    hosts = 0
    for name, value in headers:
        why = _wrong(name.lower(), value)
        hosts += name.lower() == "host"
        if not why and hosts > 1:
            why = "a request has one host"
        if why:
            raise messages.BAD_HEADER.error(text=f"{name}: {value}", why=why)
        if protocol is not Protocol.HTTP1:
            _check_http2(name, value, protocol)


def _check_http2(name: str, value: str, protocol: Protocol) -> None:
    """RFC 9113 section 8.2.2."""
    allowed = name.lower() == "te" and value.lower() == "trailers"
    if name.lower() in _OF_CONNECTIONS and not allowed:
        _refuse(
            f"{protocol} cannot carry `{name}: {value}`: HTTP/2 has no fields about one connection",
            "leave it out, or use --protocol http1",
        )


def _wrong(name: str, value: str) -> str:
    """Why this is no field that may be given; empty: it is one."""
    if not TOKEN.fullmatch(name):
        return f"`{name}` cannot be a header name"
    if _CONTROL.search(value):
        return "its value has control characters"
    if name in _OURS:
        return "the instrument sets this one itself"
    if name == "host" and not _TARGET.fullmatch(value):
        return "a host has no white space, and is not empty"
    return ""


def _refuse(what: str, remedy: str) -> None:
    raise messages.BAD_LOAD_OPTION.error(what=what, remedy=remedy)
