"""Which functions of a proxy do what: patterns as data, one table per proxy. Pure.

A pattern is a regular expression that a function's subject begins with; the first that fits decides. The
subject is what a function is of: the path of a free function, the type of a method, the trait where the type
is a mere parameter. Libraries of the system are told by their file. What fits nothing is `rest`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import cache

from meshwise.study.model import MeshName
from meshwise.telemetry.counting.seam import Function


class Group(StrEnum):
    TLS = "TLS"
    """Records, handshakes and the ciphers."""
    CODEC = "HTTP codec"
    """HTTP/1.1, HTTP/2, their headers and buffers."""
    POLICY = "policy"
    """Who may do what: authorization, and the server's and routes' policies."""
    TELEMETRY = "telemetry"
    """Metrics, tracing, access logs."""
    ROUTING = "routing"
    """Choosing where a request goes, and the layers that it passes on its way."""
    ALLOCATOR = "allocator"
    LIBC = "libc"
    """The C library: most of it copies and compares memory."""
    RUNTIME = "runtime"
    """Event loop, tasks, timers, and the language's own library."""
    REST = "rest"


Patterns = tuple[tuple[str, Group], ...]

_LIBRARIES: Patterns = (
    (r"libc[.-]", Group.LIBC),
    (r"libm[.-]", Group.LIBC),
    (r"ld-linux", Group.LIBC),
    (r"libpthread[.-]", Group.LIBC),
)
"""By the file's name."""

LINKERD: Patterns = (
    (r"rustls::|tokio_rustls::", Group.TLS),
    (r"aws_lc_|aead_|_?aes|_?gcm_", Group.TLS),
    (r"linkerd_(meshtls|tls|rustls|transport_header)\w*::", Group.TLS),
    (r"_rjem_|do_rallocx|tcache_|arena_|(rtree|edata|emap|extent|large|base|bin|sz|pac)_", Group.ALLOCATOR),
    (r"linkerd_proxy_(server|client)_policy::", Group.POLICY),
    (r"linkerd_app_inbound::policy::", Group.POLICY),
    (r"linkerd_http_route::", Group.ROUTING),
    (r"tracing(_\w+)?::|sharded_slab::", Group.TELEMETRY),
    (r"prometheus_client::|linkerd_(stack_)?metrics::|linkerd_http_(prom|metrics)::", Group.TELEMETRY),
    (r"linkerd_(http_access_log|proxy_tap|stack_tracing|trace_context|http_classify)::|jiff::",
     Group.TELEMETRY),
    (r"linkerd_app_inbound::metrics::|linkerd_app_core::(metrics|classify)", Group.TELEMETRY),
    (r"linkerd_io::sensor", Group.TELEMETRY),
    (r"h2::|hyper(_util)?::|httparse::|\[?http::|httpdate::|http_body(_util)?::|bytes::|tonic\w*::",
     Group.CODEC),
    (r"linkerd_proxy_http::|linkerd_http_(box|body\w*|upgrade|override_authority|stream_timeouts)::",
     Group.CODEC),
    (r"tower(_\w+)?::|hyper_balance::|linkerd_", Group.ROUTING),
    (r"tokio(_\w+)?::|futures(_\w+)?::|slab::|drain::", Group.RUNTIME),
    (r"core::|alloc::|std::|hashbrown::|indexmap::|ahash::|smallvec::|__rust", Group.RUNTIME),
)  # fmt: skip
"""linkerd2-proxy, whose crates have their names from what they do."""

ENVOY: Patterns = (
    (r"bssl::|SSL_|EVP_|CRYPTO_|BIO_|X509|ASN1_|RSA_|EC_|ec_|bn_|_?aes|_?gcm_|aead_|OPENSSL_", Group.TLS),
    (r"Envoy::Extensions::TransportSockets::|Envoy::Ssl::", Group.TLS),
    (r"Envoy::Extensions::Filters::Common::RBAC::|Envoy::Extensions::(Http|Network)Filters::RBACFilter::",
     Group.POLICY),
    (r"Envoy::Extensions::HttpFilters::(JwtAuthn|ExtAuthz|Common::Jwt)", Group.POLICY),
    (r"Envoy::Extensions::(AccessLoggers|StatSinks|Tracers|Formatter)::", Group.TELEMETRY),
    (r"Envoy::(Stats|Tracing|Formatter|AccessLog|StreamInfo|Logger)::|spdlog::", Group.TELEMETRY),
    (r"Envoy::Http::(Http1|Http2|Http3|HeaderMap\w*|HeaderUtility)::|http2::|quiche::|nghttp2_", Group.CODEC),
    (r"Envoy::Http::HeaderMapImpl|Envoy::Http::HeaderString|Envoy::Buffer::|http_parser|balsa", Group.CODEC),
    (r"Envoy::(Router|Upstream|Matcher|Rds|Config)::", Group.ROUTING),
    (r"Envoy::(Http|Tcp|TcpProxy|ConnectionPool|Grpc)::", Group.ROUTING),
    (r"Envoy::Extensions::", Group.ROUTING),
    (r"tcmalloc::|TCMalloc|tc_|operator (new|delete)", Group.ALLOCATOR),
    (r"absl::|std::|google::protobuf::|Envoy::|event_", Group.RUNTIME),
)  # fmt: skip
"""Envoy, whose namespaces say what is of what; BoringSSL's functions begin with what they are of."""

TABLES: Mapping[MeshName, Patterns] = {MeshName.LINKERD: LINKERD, MeshName.ISTIO: ENVOY}

_PARAMETER = re.compile(r"[A-Z]\w?|[ui](8|16|32|64|128|size)|bool|char|str|\[.*|\(.*|\{.*")
"""A type that says nothing: `T`, `u8`, a slice, a tuple."""
_BEFORE = re.compile(r"(?:&|\*|mut |dyn |const |impl |\(anonymous namespace\)::| )+")
_OF_CPP = re.compile(
    r"(?:non-)?virtual thunk to |typeinfo for |vtable for |guard variable for |(?:void|bool|auto) "
)


def subject(name: str) -> str:
    """What a function is of: `<A<B> as C>::f` -> `A<B>::f`; what a generic drop drops."""
    name = _OF_CPP.sub("", name)
    if name.startswith("core::ptr::drop_in_place<"):
        name = name.removeprefix("core::ptr::drop_in_place<")
    name = _BEFORE.sub("", name, count=1) if _BEFORE.match(name) else name
    if not name.startswith("<"):
        return name
    own, separator, other = _split_as(name[1:])
    own = _BEFORE.sub("", own, count=1) if _BEFORE.match(own) else own
    if separator and _PARAMETER.fullmatch(own):
        return other
    return subject(own) if own.startswith("<") else own


def _split_as(text: str) -> tuple[str, str, str]:
    """`A<B as C> as D>::f` -> `A<B as C>`, ` as `, `D>::f`; without an ` as ` of its own: all, nothing."""
    depth = 0
    for at, letter in enumerate(text):
        if letter in "<([":
            depth += 1
        elif letter in ">)]" and not text.startswith("->", at - 1):
            if depth == 0:
                return text, "", ""
            depth -= 1
        elif depth == 0 and text.startswith(" as ", at):
            return text[:at], " as ", text[at + 4 :]
    return text, "", ""


@cache
def group_of(mesh: MeshName, function: Function) -> Group:
    """Of a function without a symbol: `rest`."""
    file = function.binary.rpartition("/")[2]
    for pattern, group in _LIBRARIES:
        if re.match(pattern, file):
            return group
    about = subject(function.name)
    return next((group for pattern, group in TABLES.get(mesh, ()) if re.match(pattern, about)), Group.REST)
