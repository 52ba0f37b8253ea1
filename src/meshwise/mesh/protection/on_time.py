"""Attempts with time and amount: connections that outlive a policy, no control plane, too much of what is
allowed."""

from __future__ import annotations

from meshwise.mesh.protection.attempt import (
    ALWAYS,
    BY_CALLER,
    NEVER,
    NO_PROXY,
    STRICT,
    Attempt,
    Documented,
    Inapplicable,
    both,
)
from meshwise.mesh.protection.credentials import Credential
from meshwise.mesh.protection.excess import Flood, LongHead, SlowHead
from meshwise.mesh.protection.kept import SHORT_WATCH_S, WATCH_S, KeptOpen
from meshwise.mesh.protection.on_requests import WHERE, WHO
from meshwise.mesh.protection.uncontrolled import WithoutControlPlane
from meshwise.study.model import LADDER, Authorization, MtlsMode, Protocol

_PLAINTEXT, _PERMISSIVE, _STRICT, _NAMESPACE, _ = LADDER
_DRAIN = "istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig (drainDuration, 45 s)"
_WATCHED = (
    "linkerd.io/2-edge/reference/authorization-policy/ (policies are watched while connections are open)"
)

_AT_NAMESPACE = (
    NO_PROXY,
    Inapplicable(
        "tried at the step that forbids it, from `strict` to `strict+namespace`",
        kinds=frozenset(Authorization) - {Authorization.NAMESPACE},
    ),
    Inapplicable(
        "tried at the step that forbids it, from `strict` to `strict+namespace`",
        modes=frozenset({MtlsMode.DISABLE, MtlsMode.PERMISSIVE}),
    ),
)
_AT_STRICT = (
    NO_PROXY,
    Inapplicable(
        "tried at the step that forbids it, from `permissive` to `strict`",
        modes=frozenset({MtlsMode.DISABLE, MtlsMode.PERMISSIVE}),
    ),
    Inapplicable(
        "tried at the step that forbids it, from `permissive` to `strict`",
        kinds=frozenset(Authorization) - {Authorization.NONE},
    ),
)


def _watch_s(protocol: Protocol) -> float:
    return SHORT_WATCH_S if protocol is Protocol.TCP else WATCH_S


def _kept_caller(protocol: Protocol, words: str) -> Attempt:
    return Attempt(
        f"kept-caller-{protocol}",
        "a caller of another namespace",
        "on a connection from before the policy",
        f"goes on using {words} when its namespace is not allowed any more",
        "refused on the open connection as well",
        KeptOpen(_STRICT, Credential.OTHER_NAMESPACE, _watch_s(protocol)),
        both(Documented(NEVER, _DRAIN), Documented(BY_CALLER, _WATCHED)),
        _AT_NAMESPACE,
        protocol,
        tries=1,
    )


def _kept_plaintext(protocol: Protocol, words: str) -> Attempt:
    return Attempt(
        f"kept-plaintext-{protocol}",
        "a caller in plaintext",
        "on a connection from before the policy",
        f"goes on using {words} when mTLS is demanded",
        "refused on the open connection as well",
        KeptOpen(_PERMISSIVE, None, _watch_s(protocol)),
        both(Documented(NEVER, _DRAIN), Documented(STRICT, _WATCHED)),
        _AT_STRICT,
        protocol,
        tries=1,
    )


_LATCHES = (
    "envoyproxy.io/docs/envoy/latest/configuration/overview/mgmt_server (a proxy that cannot reach it stays "
    "with the configuration that it has)"
)
_KEEPS = "linkerd.io/2-edge/reference/architecture/ (proxies go on with what they know)"
_FAILS = (
    "linkerd.io/2-edge/reference/proxy-configuration/ (default-inbound-policy, with which the proxy was "
    "started: all-unauthenticated)"
)
ATTEMPTS = (
    _kept_caller(Protocol.HTTP1, "a kept connection of HTTP/1.1"),
    _kept_caller(Protocol.HTTP2, "a connection of HTTP/2"),
    _kept_caller(Protocol.TCP, "an opaque connection"),
    _kept_plaintext(Protocol.HTTP1, "a kept connection of HTTP/1.1"),
    _kept_plaintext(Protocol.TCP, "an opaque connection"),
    Attempt(
        "excess-requests", WHO, WHERE, "sends some hundred allowed requests at once on one connection",
        "some are refused", Flood(),
        both(
            Documented(NEVER, "istio.io/latest/docs/tasks/policy-enforcement/rate-limit/ (no default)"),
            Documented(NEVER, "linkerd.io/2-edge/reference/rate-limiting/ (no default)"),
        ),
        protocol=Protocol.HTTP2,
    ),
    Attempt(
        "excess-head", WHO, WHERE, "sends the allowed request with a head of 256 KiB", "refused by the proxy",
        LongHead(),
        both(
            Documented(ALWAYS, "envoyproxy.io (max_request_headers_kb, 60 KiB)"),
            Documented(NEVER, "docs.rs/hyper (max_buf_size, about 408 KiB)"),
        ),
        (),
    ),
    Attempt(
        "excess-time", WHO, WHERE, "sends the beginning of a request and waits", "the connection is ended",
        SlowHead(),
        both(
            Documented(NEVER, "envoyproxy.io (request_headers_timeout, off)"),
            Documented(NEVER, "hyper (header_read_timeout, not set by the proxy)"),
        ),
        tries=1,
    ),
    Attempt(
        "uncontrolled-known-port", "a caller in plaintext", "while the control plane is gone",
        "calls the port of the service", "refused as before", WithoutControlPlane(known=True),
        both(Documented(STRICT, _LATCHES), Documented(STRICT, _KEEPS)), (NO_PROXY,), tries=1,
    ),
    Attempt(
        "uncontrolled-new-port", "a caller in plaintext", "while the control plane is gone",
        "calls a port that the proxy has not been asked for yet", "refused by the default policy",
        WithoutControlPlane(known=False),
        both(Documented(STRICT, _LATCHES), Documented(NEVER, _FAILS)), (NO_PROXY,), tries=1,
    ),
)  # fmt: skip
