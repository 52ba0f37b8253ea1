"""TLS contexts of mesh traffic, both sides.

Mirrors pilot/pkg/security/authn/utils/utils.go, pilot/pkg/security/model/authentication.go (server) and
pilot/pkg/networking/core/cluster_tls.go (client).
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.mesh.identity import spiffe_id
from meshwise.mesh.istio.view import Json, Service, View

CERTIFICATE_SECRET = "default"
ROOT_SECRET = "ROOTCA"

HTTP_ALPN = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
TCP_ALPN = ("istio-peer-exchange", "istio")
MESH_ALPN = HTTP_ALPN + TCP_ALPN
PLAIN_ALPN = ("http/1.1", "h2c")

_TLS12_CIPHERS = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
)


_NO_SESSIONS: Json = {
    "disable_stateless_session_resumption": True,
    "disable_stateful_session_resumption": True,
}


def downstream(view: View, *, http: bool) -> Json:
    """The transport socket of an inbound chain that terminates mutual TLS."""
    alpn = ["h2", "http/1.1"] if http else ["istio-peer-exchange", "h2", "http/1.1"]
    prefix = {"prefix": f"spiffe://{view.trust_domain}/"}
    return _socket(
        "DownstreamTlsContext",
        {
            "common_tls_context": _common(view, alpn, [prefix], ciphers=True),
            "require_client_certificate": True,
            **({} if view.options.resumption else _NO_SESSIONS),
        },
    )


def upstream(view: View, service: Service, port: int, *, http2: bool) -> Json:
    """The transport socket of an outbound cluster with ISTIO_MUTUAL."""
    account = {"exact": spiffe_id(view.trust_domain, service.namespace, service.service_account)}
    anyone = {"prefix": f"spiffe://{view.trust_domain}/"}
    alpn = [*TCP_ALPN, "h2"] if http2 else list(TCP_ALPN)
    return _socket(
        "UpstreamTlsContext",
        {
            "common_tls_context": _common(view, alpn, [anyone if view.options.san_prefix else account]),
            "sni": sni(service, port),
            **({} if view.options.resumption else {"max_session_keys": 0}),
        },
    )


def sni(service: Service, port: int) -> str:
    return f"outbound_.{port}_._.{service.host}"


def _secret(view: View, name: str) -> Json:
    """A secret by name, and where a proxy subscribes to it."""
    return {"name": name, "sds_config": view.sources.secret(name)}


def _common(view: View, alpn: Sequence[str], names: Sequence[Json], *, ciphers: bool = False) -> Json:
    lowest, highest = view.options.tls_versions
    parameters: Json = {"tls_minimum_protocol_version": lowest, "tls_maximum_protocol_version": highest}
    if ciphers:
        parameters["cipher_suites"] = list(_TLS12_CIPHERS)
    if view.options.curves:
        parameters["ecdh_curves"] = list(view.options.curves)
    return {
        "tls_params": parameters,
        "alpn_protocols": list(alpn),
        "tls_certificate_sds_secret_configs": [_secret(view, CERTIFICATE_SECRET)],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": name} for name in names]
            },
            "validation_context_sds_secret_config": _secret(view, ROOT_SECRET),
        },
    }


def _socket(context: str, config: Json) -> Json:
    kind = f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{context}"
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": kind, **config}}
