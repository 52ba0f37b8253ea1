"""Where these sidecars differ from Istio's, and what that does to a measurement.

The gaps are those of upstream Envoy against istio-proxy; those that Istio's own filters close (`native`)
go away with a binary that has them. Texts are for the report's reader; docs/fidelity.md is made from them.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.mesh.istio.view import Options
from meshwise.mesh.seam import Fidelity

_UPSTREAM = Fidelity(
    "istio-upstream",
    "the proxy is a build of upstream Envoy (its version is recorded), not the binary of an Istio release",
    "not measured; docs/fidelity.md maps versions of Istio to versions of Envoy",
)
_ALPN = Fidelity(
    "istio-alpn",
    "the ALPN that tells HTTP between sidecars is set per declared port (set_filter_state), not per "
    "request by istio.alpn",
    "none: the same names are negotiated and the same chain is chosen",
)
_TCP_METADATA = Fidelity(
    "istio-tcp-metadata",
    "no metadata exchange on plain TCP connections",
    "none for HTTP and gRPC; one small frame less on each TCP connection",
)
_TCP_METRICS = Fidelity(
    "istio-tcp-metrics",
    "nothing counts connections and bytes of opaque TCP in the place of the istio.stats filter",
    "none for HTTP and gRPC; opaque TCP lacks a little work when a connection opens and closes, and every "
    "few seconds between",
)
_ALWAYS = (
    Fidelity(
        "istio-delivery",
        "configuration and certificates come from files, not from istiod and the agent",
        "none per request; the agent's memory is missing beside the proxy's",
    ),
    Fidelity(
        "istio-endpoints",
        "endpoints are part of their cluster (CDS), not delivered apart (EDS)",
        "none per request",
    ),
    Fidelity(
        "istio-drain",
        "a replaced configuration is dropped at once (--drain-time-s 0; Istio: 45 s)",
        "none in a trial; a posture change under load closes connections at once instead of slowly",
    ),
    Fidelity(
        "istio-push-scope",
        "every posture change replaces all inbound chains and the clusters of called services, so that each "
        "trial starts without connections and TLS sessions; istiod sends only what differs",
        "none in a trial",
    ),
    Fidelity(
        "istio-statistics",
        "beside Istio's list of kept statistics, connection, request, TLS, RBAC and JWT counters of the "
        "mesh's listeners and clusters are kept",
        "some tens of kilobytes of memory per proxy; counting is the same with or without",
    ),
    Fidelity(
        "istio-ready",
        "readiness is Envoy's own; there is no agent that merges metrics and probes",
        "none per request",
    ),
)
_METADATA = Fidelity(
    "istio-metadata-exchange",
    "workload metadata travels in two fixed headers of Istio's usual size instead of the "
    "istio.metadata_exchange filter",
    "the bytes are there; encoding, parsing and caching (an estimated 2-5 % of CPU) are not",
)
_METRICS = Fidelity(
    "istio-metrics",
    "Istio's request metrics are counted by envoy.access_loggers.stats with eight labels instead of "
    "the istio.stats filter with up to 25",
    "the largest gap; istio.stats is estimated at 5-15 % of CPU, the stand-in pays a part of that",
)
_NO_TELEMETRY = Fidelity(
    "istio-no-telemetry",
    "Istio's metadata exchange and metrics are switched off and nothing stands in for them",
    "costs are understated, by an estimated 7-20 % of CPU",
)
_CURVES = Fidelity(
    "istio-curves",
    "TLS groups are set to X25519 and P-256, which the Envoy of released Istio negotiates",
    "none: without it this newer Envoy would use X25519MLKEM768 and pay more per handshake",
)
_DEFAULT_CURVES = Fidelity(
    "istio-default-curves",
    "TLS groups are this Envoy's own default, which released Istio may not use",
    "handshakes may cost more than Istio's; requests do not",
)
_ONE_UID = Fidelity(
    "istio-capture",
    "an ordinary user's namespace has one uid, so outbound traffic is captured by service address and not "
    "by the proxy's uid",
    "none for calls to services",
)


ALL: Sequence[Fidelity] = (
    _UPSTREAM, _METADATA, _METRICS, _NO_TELEMETRY, _ALPN, _TCP_METADATA, _TCP_METRICS, _CURVES,
    _DEFAULT_CURVES, *_ALWAYS, _ONE_UID,
)  # fmt: skip
"""Every difference that can apply."""


def differences(options: Options, *, privileged: bool) -> Sequence[Fidelity]:
    """Those that apply, the weightiest first."""
    native = options.native
    applies = {
        _UPSTREAM: not native.complete,
        _METADATA: options.telemetry and native.metadata is None,
        _METRICS: options.telemetry and native.stats is None,
        _NO_TELEMETRY: not options.telemetry,
        _ALPN: native.alpn is None,
        _TCP_METADATA: native.tcp_metadata is None,
        _TCP_METRICS: options.telemetry and native.tcp_stats is None,
        _CURVES: bool(options.curves),
        _DEFAULT_CURVES: not options.curves,
        _ONE_UID: not privileged,
    }
    return tuple(each for each in ALL if applies.get(each, True))
