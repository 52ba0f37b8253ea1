"""Levels of factors that are one of a few words. `study.model` shows them."""

from __future__ import annotations

from enum import StrEnum


class MeshName(StrEnum):
    NONE = "none"
    ISTIO = "istio"
    LINKERD = "linkerd"


class KeyType(StrEnum):
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"


class Http1Transport(StrEnum):
    """How HTTP/1.1 requests travel between two sidecars. `default`: as the mesh does it unasked (Istio:
    HTTP/1.1, Linkerd: HTTP/2)."""

    DEFAULT = "default"
    HTTP1 = "http1"
    HTTP2 = "http2"


class TlsGroup(StrEnum):
    """Group of the key exchange between sidecars. `default`: what the mesh's proxies agree on unasked."""

    DEFAULT = "default"
    X25519 = "x25519"
    X25519MLKEM768 = "x25519mlkem768"


class TlsVersion(StrEnum):
    """Of the handshake between sidecars. `default`: what the mesh's proxies agree on unasked."""

    DEFAULT = "default"
    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class SanMatch(StrEnum):
    """What a client's sidecar wants of the name in a server's certificate."""

    EXACT = "exact"
    """The name of the service that was called, as both meshes do it unasked."""
    PREFIX = "prefix"
    """Any name of the trust domain."""


class Resumption(StrEnum):
    """Whether a new connection between sidecars takes up the TLS session of an earlier one. `default`: as the
    mesh does it unasked (Istio: yes, Linkerd: no)."""

    DEFAULT = "default"
    ON = "on"
    OFF = "off"


class ForbiddenBy(StrEnum):
    """By what a stricter posture forbids a part of the load."""

    REQUEST = "request"
    """The client inside the mesh asks for another tenant, on the connections of its other requests."""
    IDENTITY = "identity"
    """A client outside the mesh has a certificate of the mesh's authority, of another namespace."""


class RuleKind(StrEnum):
    """What the further authorization entries ask for. `whole`: all that the posture's own entries do; the
    others ask for one thing each, to tell what it costs."""

    WHOLE = "whole"
    IDENTITY = "identity"
    NAMESPACE = "namespace"
    METHOD = "method"
    PATH = "path"
    PATH_PREFIX = "path-prefix"
    PATH_SUFFIX = "path-suffix"
    HEADER = "header"
    CLAIM = "claim"


OF_A_REQUEST = frozenset(RuleKind) - {RuleKind.WHOLE, RuleKind.IDENTITY, RuleKind.NAMESPACE}
"""Kinds that read the request, of which opaque TCP has none."""


class RulePlace(StrEnum):
    """Where the further entries stand, none of which ever matches as a whole."""

    BEFORE = "before"
    """Before the entry that matches: each is a miss that comes before the hit."""
    AFTER = "after"
    """Behind it: whoever stops at the first hit never reads them."""
    DENY = "deny"
    """In a policy that denies, which is asked before the one that allows."""
    HIT = "hit"
    """Before the entry that matches; what the entry asks for is met, and a header that it asks for besides is
    not: a hit that lets no one in."""
