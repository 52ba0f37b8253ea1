"""What a client's sidecar offers in TLS: the server's chains tell HTTP between sidecars from other TLS by it.

Istio's filter `istio.alpn` (pilot/pkg/xds/filters/filters.go) sets it per request, by the protocol of the
request's upstream. Where the binary lacks it, the same names are fixed by the port's declared protocol, and
for a service that is reached otherwise than the others of its port, by its virtual host.
"""

from __future__ import annotations

from meshwise.mesh.istio import native
from meshwise.mesh.istio.view import Json, Service, View
from meshwise.study.model import Protocol

_STAND_IN = "envoy.filters.http.set_filter_state"
_CONFIG = "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config"
_HTTP1 = "istio-http/1.1,istio,http/1.1"
_HTTP2 = "istio-h2,istio,h2"


def filters(view: View, client: Service, port: int) -> list[Json]:
    """Of the connection manager of a port."""
    if name := view.options.native.alpn:
        return [native.alpn(name)]
    names = _HTTP2 if any_http2(view, client, port) else _HTTP1
    return [{"name": _STAND_IN, "typed_config": _offer(names)}]


def of_host(view: View, client: Service, service: Service, port: int) -> Json:
    """What the virtual host of a service adds where any other of its port is reached over HTTP/2; it is
    applied after the connection manager's."""
    if view.options.native.alpn or view.http2_to(client, service, port):
        return {}
    return {"typed_per_filter_config": {_STAND_IN: _offer(_HTTP1)}}


def any_http2(view: View, client: Service, port: int) -> bool:
    """Whether any service that carries requests on this port is reached over HTTP/2."""
    return any(
        view.http2_to(client, service, port)
        for service in view.visible_to(client)
        if service.ports.get(port, Protocol.TCP) is not Protocol.TCP
    )


def offered(manager: Json, host: Json) -> str:
    """Read back from both, for the simulation; empty without a stand-in."""
    found = [each["typed_config"] for each in manager["http_filters"] if each["name"] == _STAND_IN]
    found += [config for name, config in host.get("typed_per_filter_config", {}).items() if name == _STAND_IN]
    if not found:
        return ""
    return str(found[-1]["on_request_headers"][0]["format_string"]["text_format_source"]["inline_string"])


def _offer(names: str) -> Json:
    value = {
        "object_key": "envoy.network.application_protocols",
        "format_string": {"text_format_source": {"inline_string": names}},
    }
    return {"@type": _CONFIG, "on_request_headers": [value]}
