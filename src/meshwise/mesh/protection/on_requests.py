"""Attempts with requests that are spelled otherwise, doubled, or smuggled."""

from __future__ import annotations

from collections.abc import Mapping

from meshwise.mesh.protection.attempt import (
    ALWAYS,
    BY_CALLER,
    BY_REQUEST,
    NEVER,
    WITHOUT_MESH,
    AttackStep,
    Attempt,
    Documented,
    Inapplicable,
    Stops,
    both,
)
from meshwise.mesh.protection.foreign_speech import H2C, WEBSOCKET, Http2Unasked, HttpInTcp, NoHttp, Upgrade
from meshwise.mesh.protection.smuggling import END_OF_CHUNKS, Disguise, Smuggle
from meshwise.mesh.protection.spellings import Spell, Spelling
from meshwise.mesh.request import OTHER_TENANT, TENANT, TENANT_HEADER
from meshwise.study.model import Authorization, MeshName, MtlsMode, Protocol

SLOW_TRIES = 1
"""Of what a proxy answers only after a second, several times."""
GUARDED_TRIES = 3
"""Of what pushes a rule and takes it away again."""
WHO = "the allowed client's key in other hands"
WHERE = "from a pod without a sidecar, byte for byte"
_ISTIO = "istio.io/latest/docs/reference/config/security/normalization/"
_ISTIO_POLICY = "istio.io/latest/docs/reference/config/security/authorization-policy/"
_LINKERD = "linkerd.io/2-edge/reference/authorization-policy/#httproute"
_GATEWAY = "gateway-api.sigs.k8s.io/reference/spec/#httproutematch"
_BEYOND = f"{_ISTIO} (not normalised by default)"
_LITERAL = f"{_GATEWAY} (paths are compared as they are)"
_ENVOY = "envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/"
_HYPER = "rfc-editor.org/rfc/rfc9112 section 6.3"

_WITH_GUARD = BY_CALLER
"""From where on there is the rule that forbids."""
GUARD_LIMITS = (
    Inapplicable("there is no proxy", WITHOUT_MESH),
    Inapplicable(
        "the rule that forbids is laid over `strict+namespace` only",
        kinds=frozenset(Authorization) - {Authorization.NAMESPACE},
    ),
    Inapplicable(
        "the rule that forbids is laid over `strict+namespace` only",
        modes=frozenset({MtlsMode.DISABLE, MtlsMode.PERMISSIVE}),
    ),
)
_DECLARED = Stops(kinds=frozenset({Authorization.NAMESPACE, Authorization.FINE, Authorization.REQUEST}))
"""Linkerd learns what a port speaks from the Server that such a posture has; without one it looks for
itself, and passes on what is no HTTP."""
_FORBIDS_NOTHING = Inapplicable(
    "no rule forbids the inner request",
    kinds=frozenset(Authorization) - {Authorization.FINE, Authorization.REQUEST},
)
_NO_HOST_IN_LINKERD = Inapplicable(
    "Linkerd's policies cannot forbid a host: its routes select by host, and meshwise writes none",
    frozenset({MeshName.LINKERD}),
)


def _attempt(
    key: str,
    how: str,
    step: AttackStep,
    documented: Mapping[MeshName, Documented],
    limits: tuple[Inapplicable, ...] = (),
    protocol: Protocol = Protocol.HTTP1,
    tries: int | None = None,
) -> Attempt:
    must = "nothing of it arrives at the service"
    return Attempt(key, WHO, WHERE, how, must, step, documented, limits, protocol, tries)


# --- against a list of what is allowed -----------------------------------------------------------

_METHODS = (
    Spelling("lower case", method="{lower}"),
    Spelling("an unknown method", method="BREW"),
    Spelling("a forbidden method", method="DELETE"),
)
_PATHS = (
    Spelling("upper case", target="/ECHO"),
    Spelling("dots", target="{allowed}/../healthz"),
    Spelling("escaped dots", target="{allowed}/%2e%2e/healthz"),
    Spelling("two slashes", target="/{allowed}"),
    Spelling("an escaped slash", target="{allowed}%2f..%2fhealthz"),
    Spelling("a backslash", target="{allowed}\\..\\healthz"),
    Spelling("a parameter", target="{allowed};x=y"),
    Spelling("dots behind a parameter", target="{allowed};/../healthz"),
    Spelling("a fragment", target="{allowed}#/../healthz"),
    Spelling("another path with the allowed one as fragment", target="/healthz#{allowed}"),
    Spelling("a slash at the end", target="{allowed}/"),
    Spelling("the allowed path as query", target="/healthz?{allowed}"),
    Spelling("an escaped null", target="{allowed}%00"),
)
_ABSOLUTE = (
    Spelling("absolute form of a forbidden path", target="http://{authority}/healthz"),
    Spelling("absolute form, allowed path behind", target="http://{authority}/healthz?http://x{allowed}"),
)
_OTHERS = tuple(
    Spelling(words, more=more, without=(TENANT_HEADER,))
    for words, more in (
        ("another value", ((TENANT_HEADER, OTHER_TENANT),)),
        ("upper case value", ((TENANT_HEADER, TENANT.upper()),)),
        ("a list in one field", ((TENANT_HEADER, f"{TENANT}, {OTHER_TENANT}"),)),
        ("underscore for hyphen", (("x_tenant", TENANT),)),
    )
)
_DOUBLED = tuple(
    Spelling(
        f"{first} and {second}",
        more=((TENANT_HEADER, first), (TENANT_HEADER, second)),
        without=(TENANT_HEADER,),
    )
    for first, second in ((TENANT, OTHER_TENANT), (OTHER_TENANT, TENANT))
)

_ALLOW = (
    _attempt(
        "allow-method",
        "a method other than the allowed one, or its name in lower case",
        Spell(_METHODS),
        both(Documented(BY_REQUEST, _ISTIO), Documented(BY_REQUEST, _GATEWAY)),
    ),
    _attempt(
        "allow-method-http2",
        "over HTTP/2, a method other than the allowed one, or its name in lower case",
        Spell(_METHODS),
        both(Documented(BY_REQUEST, _ISTIO), Documented(BY_REQUEST, _GATEWAY)),
        protocol=Protocol.HTTP2,
    ),
    _attempt(
        "allow-path",
        "a forbidden path that looks like the allowed one",
        Spell((*_PATHS, *_ABSOLUTE)),
        both(Documented(BY_REQUEST, f"{_ISTIO}; CVE-2021-39156"), Documented(BY_REQUEST, _LITERAL)),
    ),
    _attempt(
        "allow-path-http2",
        "over HTTP/2, a forbidden path that looks like the allowed one",
        Spell(_PATHS),
        both(Documented(BY_REQUEST, f"{_ISTIO}; CVE-2021-39156"), Documented(BY_REQUEST, _LITERAL)),
        protocol=Protocol.HTTP2,
    ),
    _attempt(
        "allow-header",
        "a header with another value, a list, or a name that only looks like it",
        Spell(_OTHERS),
        both(Documented(BY_REQUEST, _ISTIO), Documented(BY_REQUEST, _GATEWAY)),
    ),
    _attempt(
        "allow-header-twice",
        "the header twice, with the allowed value and another",
        Spell(_DOUBLED),
        both(
            Documented(BY_REQUEST, f"{_ISTIO} (joined by commas)"),
            Documented(BY_REQUEST, f"{_GATEWAY} (joined by commas)"),
        ),
    ),
    _attempt(
        "allow-header-beside",
        "the header as allowed, and one with an underscore beside it",
        Spell((Spelling("underscore beside", more=(("x_tenant", OTHER_TENANT),)),)),
        both(Documented(NEVER, _ISTIO_POLICY), Documented(NEVER, _GATEWAY)),
    ),
)

# --- against a rule that forbids -----------------------------------------------------------------


def _guarded(
    key: str, how: str, spellings: tuple[Spelling, ...], istio: Documented, linkerd: Documented,
    *limits: Inapplicable, protocol: Protocol = Protocol.HTTP1,
) -> Attempt:  # fmt: skip
    step = Spell(spellings, guarded=True)
    return _attempt(key, how, step, both(istio, linkerd), (*limits, *GUARD_LIMITS), protocol, GUARDED_TRIES)


_LOWER = (Spelling("lower case", method="delete"), Spelling("mixed case", method="DeLeTe"))
_STOPS_I, _STOPS_L = Documented(_WITH_GUARD, _ISTIO), Documented(_WITH_GUARD, _GATEWAY)
_NOT_I, _NOT_L = Documented(NEVER, _BEYOND), Documented(NEVER, _LITERAL)

_DENY = (
    _guarded(
        "deny-method-case", "the forbidden method in lower and in mixed case", _LOWER, _STOPS_I,
        Documented(NEVER, "rfc-editor.org/rfc/rfc9110 section 9.1 (methods are case-sensitive)"),
    ),
    _guarded(
        "deny-method-case-http2",
        "over HTTP/2, the forbidden method in lower and in mixed case", _LOWER,
        _STOPS_I,
        Documented(NEVER, "rfc-editor.org/rfc/rfc9110 section 9.1 (methods are case-sensitive)"),
        protocol=Protocol.HTTP2,
    ),
    _guarded(
        "deny-method-override", "an allowed method with `x-http-method-override: DELETE`",
        (Spelling("override", more=(("x-http-method-override", "DELETE"),)),),
        Documented(NEVER, _ISTIO_POLICY), Documented(NEVER, _GATEWAY),
    ),
    _guarded(
        "deny-path-dots", "the forbidden path with dots and escaped letters: the same path by RFC 3986",
        (
            Spelling("`/./`", target="{allowed}/./admin"), Spelling("`/../`", target="{allowed}/x/../admin"),
            Spelling("`/%2e%2e/`", target="{allowed}/x/%2e%2e/admin"),
            Spelling("an escaped letter", target="{allowed}/%61dmin"),
        ),
        _STOPS_I, _NOT_L,
    ),
    _guarded(
        "deny-path-slashes", "the forbidden path with two slashes or an escaped one",
        (
            Spelling("`//`", target="{allowed}//admin"), Spelling("`%2F`", target="{allowed}%2Fadmin"),
            Spelling("a backslash", target="{allowed}\\admin"),
        ),
        Documented(NEVER, f"{_BEYOND}; CVE-2021-31920"), _NOT_L,
    ),
    _guarded(
        "deny-path-case", "the forbidden path in upper case",
        (Spelling("upper case", target="{allowed}/ADMIN"),),
        Documented(NEVER, "istio.io/latest/docs/ops/best-practices/security/#case-normalization"), _NOT_L,
    ),
    _guarded(
        "deny-path-end", "the forbidden path with a slash, a parameter or a space behind",
        (
            Spelling("a slash", target="{guarded}/"), Spelling("a parameter", target="{guarded};x=y"),
            Spelling("an escaped space", target="{guarded}%20"),
        ),
        _NOT_I, _NOT_L,
    ),
    _guarded(
        "deny-path-fragment", "the forbidden path with a fragment or a query",
        (Spelling("a fragment", target="{guarded}#x"), Spelling("a query", target="{guarded}?x=y")),
        Documented(_WITH_GUARD, f"{_ISTIO}; CVE-2021-39156"), _STOPS_L,
    ),
    _guarded(
        "deny-path-absolute", "the forbidden path in absolute form",
        (Spelling("absolute form", target="http://{authority}{guarded}"),), _STOPS_I, _STOPS_L,
    ),
    _guarded(
        "deny-host-case", "the forbidden host in other case, and as absolute form with another Host",
        (
            Spelling("other case", host="Admin.Example"),
            Spelling("absolute form, another Host", target="http://admin.example{allowed}"),
        ),
        Documented(_WITH_GUARD, "GHSA-7774-7vr3-cc8j"), _NOT_L, _NO_HOST_IN_LINKERD,
    ),
    _guarded(
        "deny-host-http2",
        "over HTTP/2, `:authority` and `host` that differ, one of them forbidden",
        (
            Spelling(
                "forbidden `:authority`", host="admin.example", more=(("host", "{authority}"),),
                seeks="admin.example",
            ),
            Spelling("forbidden `host`", more=(("host", "admin.example"),), seeks="admin.example"),
        ),
        Documented(_WITH_GUARD, "rfc-editor.org/rfc/rfc9113 section 8.3.1"), _NOT_L, _NO_HOST_IN_LINKERD,
        protocol=Protocol.HTTP2,
    ),
    _guarded(
        "deny-host-port", "the forbidden host with a port or a dot behind it",
        (Spelling("a port", host="admin.example:8080"), Spelling("a dot", host="admin.example.")),
        Documented(NEVER, f"{_ISTIO_POLICY} (hosts are compared with their port)"), _NOT_L,
        _NO_HOST_IN_LINKERD,
    ),
    _guarded(
        "deny-header-twice", "the forbidden value beside another, in two fields", _DOUBLED,
        Documented(_WITH_GUARD, "CVE-2026-31838"), _STOPS_L,
    ),
    _guarded(
        "deny-header-list", "the forbidden value in a list, in upper case, or in a field with an underscore",
        tuple(
            Spelling(words, more=(field,), without=(TENANT_HEADER,))
            for words, field in (
                ("a list", (TENANT_HEADER, f"{TENANT}, {OTHER_TENANT}")),
                ("upper case", (TENANT_HEADER, OTHER_TENANT.upper())),
                ("underscore", ("x_tenant", OTHER_TENANT)),
            )
        ),
        _NOT_I, _NOT_L,
    ),
)  # fmt: skip

# --- smuggling -----------------------------------------------------------------------------------

_TE = ("Transfer-Encoding", "chunked")
_LENGTHS = (
    Disguise("length, then chunked", (("Content-Length", "{length}"), _TE), END_OF_CHUNKS + b"<inner>"),
    Disguise("chunked, then length", (_TE, ("Content-Length", "4")), b"<size>\r\n<inner>\r\n0\r\n\r\n"),
    Disguise("two lengths", (("Content-Length", "{length}"), ("Content-Length", "0"))),
    Disguise("two lengths, the other way", (("Content-Length", "0"), ("Content-Length", "{length}"))),
    Disguise("a list of lengths", (("Content-Length", "0, {length}"),)),
    Disguise("a length with a sign", (("Content-Length", "+{length}"),)),
)
_IN_DOUBT = tuple(
    Disguise(words, (("Content-Length", "{length}"), field), END_OF_CHUNKS + b"<inner>")
    for words, field in (
        ("a space before the colon", ("Transfer-Encoding ", "chunked")),
        ("another coding", ("Transfer-Encoding", "xchunked")),
        ("chunked is not last", ("Transfer-Encoding", "chunked, identity")),
        ("a folded line", ("X-Fold", "x\r\n Transfer-Encoding: chunked")),
        ("a bare LF", ("X-RawLine", "x\nTransfer-Encoding: chunked")),
        ("a bare CR", ("X-RawLine", "x\rTransfer-Encoding: chunked")),
    )
)
_CODINGS = (
    *_IN_DOUBT,
    Disguise("a size in C's notation", (_TE,), b"0x5\r\nhello\r\n0\r\n\r\n<inner>"),
    Disguise("chunk lines that end in LF", (_TE,), b"0\n\n<inner>"),
    Disguise("a chunk extension cut by LF", (_TE,), b"2;\nxx\r\n<size>\r\n<inner>\r\n0\r\n\r\n"),
)
_HTTP2 = (
    Disguise("a length shorter than the body", (("content-length", "0"),)),
    Disguise("chunked over HTTP/2", (("transfer-encoding", "chunked"),), END_OF_CHUNKS + b"<inner>"),
    Disguise("CRLF in a value", (("x-a", "b\r\ntransfer-encoding: chunked"),), END_OF_CHUNKS + b"<inner>"),
    Disguise(
        "CRLF in the path", (), b"", target="{allowed} HTTP/1.1\r\nhost: x\r\n\r\nDELETE {allowed}/inner"
    ),
    Disguise("CRLF in the method", (), b"", method="GET /echo HTTP/1.1\r\nhost: x\r\n\r\nDELETE"),
)
_SMUGGLED = tuple(
    _attempt(
        key, how, Smuggle(disguises),
        both(Documented(BY_REQUEST, _ENVOY), Documented(BY_REQUEST, _HYPER)), (_FORBIDS_NOTHING,), protocol,
        tries=SLOW_TRIES if protocol is Protocol.HTTP2 else None,
    )
    for key, how, disguises, protocol in (
        ("smuggle-lengths", "a forbidden request behind two lengths of one body", _LENGTHS, Protocol.HTTP1),
        ("smuggle-chunks", "a forbidden request behind odd codings and chunks", _CODINGS, Protocol.HTTP1),
        ("smuggle-http2", "a forbidden request in HTTP/2, to be cut in HTTP/1.1", _HTTP2, Protocol.HTTP2),
    )
)  # fmt: skip

# --- another language ----------------------------------------------------------------------------

_SPEECH = (
    _attempt(
        "speech-http2-unasked", "HTTP/2 on a port of HTTP/1.1, and a forbidden request", Http2Unasked(),
        both(Documented(ALWAYS, _ENVOY), Documented(BY_REQUEST, _LINKERD)),
        (_FORBIDS_NOTHING,),
    ),
    _attempt(
        "speech-h2c-upgrade", "the allowed request, asking for an upgrade to HTTP/2", Upgrade(H2C),
        both(Documented(ALWAYS, _ENVOY), Documented(ALWAYS, "linkerd.io/2-edge/features/http-grpc/")),
    ),
    _attempt(
        "speech-websocket", "the allowed request, asking for an upgrade to WebSocket", Upgrade(WEBSOCKET),
        both(Documented(NEVER, _ENVOY), Documented(NEVER, "linkerd.io/2-edge/features/http-grpc/")),
    ),
    _attempt(
        "speech-raw-on-http", "bytes of no protocol on a port of HTTP", NoHttp(),
        both(Documented(ALWAYS, _ENVOY), Documented(_DECLARED, _LINKERD)),
    ),
    _attempt(
        "speech-http-in-tcp", "a forbidden HTTP request on an opaque port", HttpInTcp(),
        both(Documented(NEVER, _ISTIO_POLICY), Documented(NEVER, _LINKERD)), protocol=Protocol.TCP,
    ),
)  # fmt: skip

ATTEMPTS = (*_ALLOW, *_DENY, *_SMUGGLED, *_SPEECH)
