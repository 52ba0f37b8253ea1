"""Where these sidecars differ from Istio's, and what that does to a measurement.

The gaps are those of upstream Envoy against istio-proxy; those that Istio's own filters close (`native`)
go away with a binary that has them. Texts are for the report's reader; docs/fidelity.md is made from them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from meshwise.mesh.istio.tracing import COLLECTOR
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
_DELIVERY = Fidelity(
    "istio-delivery",
    "configuration (ADS) and certificates (SDS) come over streams from one process of ours, which stands for "
    "istiod and for the agent of every pod; it sends a change at once, where istiod waits 100 ms for more",
    "none per request; the agent's memory is missing beside the proxy's",
)
_DRAIN = Fidelity(
    "istio-drain",
    "a replaced configuration is dropped at once (--drain-time-s 0; Istio: 45 s); not in studies in which "
    "events push policies or change the posture",
    "none in a trial: nothing is replaced within it",
)
_PUSH_SCOPE = Fidelity(
    "istio-push-scope",
    "what comes between trials replaces all inbound chains and the clusters of called services, so that each "
    "trial starts without connections and TLS sessions; istiod sends only what differs",
    "none in a trial, within which only what differs is sent here as well",
)
_SAN_TYPE = Fidelity(
    "istio-san-type",
    "a peer's name is looked for among the URIs of its certificate (match_typed_subject_alt_names); istiod "
    "still sends the deprecated field, which looks among names of any kind",
    "none: a certificate of the mesh has one name, a URI",
)
_TYPED_STRUCT = Fidelity(
    "istio-typed-struct",
    "Istio's own metadata exchange is configured by a TypedStruct of its present name (xds.type.v3); istiod "
    "sends the former one (udpa.type.v1)",
    "none: Envoy takes both for the same",
)
_ASKED = Fidelity(
    "istio-asked",
    "what a study asks of handshakes and no setting of Istio says alone (`tls_version`, `san_match`, "
    "`resumption`), and the provider of spans where requests are traced, are written into the configuration, "
    "as an EnvoyFilter or a Telemetry resource would have it",
    "none: it is what the study asks for",
)
_ISTIOD = Fidelity(
    "istio-istiod",
    "the real istiod (its build is recorded) generates the sidecars' configuration, from a Kubernetes API "
    "that holds the study's services, pods and resources only; replaced in it is what a "
    "reset replaces chains and clusters by, and the TLS groups and stand-ins that are named here",
    "none per request; istiod does not deliver it itself, so a change within a trial takes istiod's "
    "generation and our reading of it, not istiod's own push",
)
_ALWAYS = (
    _DELIVERY,
    _SAN_TYPE,
    _DRAIN,
    Fidelity(
        "istio-keys",
        "a certificate that is renewed keeps its key; Istio's agent makes a new key each time",
        "none per request or handshake; what the agent computes when certificates rotate is missing",
    ),
    _PUSH_SCOPE,
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
    _DEFAULT_CURVES, _ASKED, _ISTIOD, *_ALWAYS, _TYPED_STRUCT, _ONE_UID,
)  # fmt: skip
"""Every difference that can apply."""


def differences(
    options: Options, *, privileged: bool, istiod: bool = False, drains: bool = False
) -> Sequence[Fidelity]:
    """Those that apply, the weightiest first. `istiod`: the real one generates the configuration. `drains`:
    the proxies have Istio's own drain time."""
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
        _ASKED: any(map(partial(asks, options), ("tls_versions", "san_prefix", "resumption", "traced"))),
        _ISTIOD: istiod,
        _DRAIN: not drains,
        _SAN_TYPE: not istiod,
        _TYPED_STRUCT: not istiod
        and options.telemetry
        and (native.metadata or native.tcp_metadata) is not None,
        _ONE_UID: not privileged,
    }
    return tuple(each for each in ALL if applies.get(each, True))


def asks(options: Options, name: str) -> bool:
    """Whether an option is other than by default."""
    return bool(getattr(options, name) != getattr(Options(), name))


# --- in a sidecar's configuration ------------------------------------------------------------------


@dataclass(frozen=True)
class FieldDifference:
    """A field that istiod sets otherwise. `path`: a regular expression of the whole way to it, in protobuf's
    JSON names, from `/clusters`, `/listeners` or `/routes` by the resource's name."""

    code: str
    """Of the difference above that speaks of it."""
    path: str
    values: tuple[object, object] | None = None
    """istiod's and ours, None being absent; not given: whatever they are."""
    asked: str = ""
    """The option of `view.Options` whose doing it is; known only where that is not the default."""


FIELDS: Sequence[FieldDifference] = (
    FieldDifference(_SAN_TYPE.code, r".*/matchTypedSubjectAltNames/\d+/sanType", (None, "URI")),
    FieldDifference(
        _TYPED_STRUCT.code,
        r".*/typedConfig/@type",
        ("type.googleapis.com/udpa.type.v1.TypedStruct", "type.googleapis.com/xds.type.v3.TypedStruct"),
    ),
    FieldDifference(_CURVES.code, r".*/commonTlsContext/tlsParams/ecdhCurves"),
    FieldDifference(_PUSH_SCOPE.code, r".*/filterMetadata/meshwise/generation"),
    FieldDifference(_ASKED.code, r".*/tlsParams/tls(Minimum|Maximum)ProtocolVersion", asked="tls_versions"),
    FieldDifference(
        _ASKED.code,
        r"/clusters/outbound\|.*/matchTypedSubjectAltNames/0/matcher/(exact|prefix)",
        asked="san_prefix",
    ),
    FieldDifference(_ASKED.code, r"/clusters/.*/maxSessionKeys", (None, 0), asked="resumption"),
    FieldDifference(
        _ASKED.code,
        r"/listeners/.*/disableState(ful|less)SessionResumption",
        (None, True),
        asked="resumption",
    ),
    FieldDifference(_ASKED.code, r"/listeners/.*/tracing/(provider/.*|randomSampling/value)", asked="traced"),
    FieldDifference(_ASKED.code, rf"/clusters/{re.escape(COLLECTOR)}", asked="traced"),
)
"""Every one; a test compares all postures with a real istiod and takes no other difference."""
