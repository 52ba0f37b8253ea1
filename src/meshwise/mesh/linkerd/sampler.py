"""A sidecar's own statistics as samples: requests, TLS, authorization, connections, certificate, memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.linkerd.admin import ProxyAdmin, total
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import Placement
from meshwise.telemetry.seam import Moment, Sample
from meshwise.telemetry.source import Source

_IN, _OUT = {"direction": "inbound"}, {"direction": "outbound"}
_FROM, _TO = {"peer": "src"}, {"peer": "dst"}
_TLS = {"tls": "true"}
_REFRESHES = "control_identity_cert_refreshes_total"

READ: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
    ("downstream_requests_total", "side=inbound", "request_total", _IN),
    ("downstream_requests_total", "side=outbound", "request_total", _OUT),
    ("downstream_connections_total", "side=inbound", "tcp_open_total", {**_IN, **_FROM}),
    ("downstream_connections_total", "side=outbound", "tcp_open_total", {**_OUT, **_FROM}),
    ("downstream_connections", "side=inbound", "tcp_open_connections", {**_IN, **_FROM}),
    ("downstream_connections", "side=outbound", "tcp_open_connections", {**_OUT, **_FROM}),
    ("upstream_connections_total", "side=inbound", "tcp_open_total", {**_IN, **_TO}),
    ("upstream_connections_total", "side=outbound", "tcp_open_total", {**_OUT, **_TO}),
    ("upstream_connections", "side=inbound", "tcp_open_connections", {**_IN, **_TO}),
    ("upstream_connections", "side=outbound", "tcp_open_connections", {**_OUT, **_TO}),
    ("tls_handshakes_total", "side=server", "tcp_open_total", {**_IN, **_FROM, **_TLS}),
    ("tls_handshakes_total", "side=client", "tcp_open_total", {**_OUT, **_TO, **_TLS}),
    ("authorization_allowed_total", "", "inbound_http_authz_allow_total", {}),
    ("authorization_denied_total", "", "inbound_http_authz_deny_total", {}),
    ("route_not_found_total", "", "inbound_http_route_not_found_total", {}),
    ("errors_total", "side=inbound", "inbound_http_errors_total", {}),
    ("errors_total", "side=outbound", "outbound_http_errors_total", {}),
    ("transport_headers_total", "", "inbound_tcp_transport_header_connections_total", {}),
    ("certificate_refreshes_total", "result=ok", _REFRESHES, {"result": "ok"}),
    ("certificate_refreshes_total", "result=error", _REFRESHES, {"result": "error"}),
    ("certificate_expiry_unix_s", "", "control_identity_cert_expiration_timestamp_seconds", {}),
    ("certificate_refreshed_unix_s", "", "control_identity_cert_refresh_timestamp_seconds", {}),
    ("memory_resident_bytes", "", "process_resident_memory_bytes", {}),
    ("workers", "", "tokio_rt_workers", {}),
)
"""(metric, labels, the proxy's name, the labels that are summed up)"""

_NAMES = frozenset(name for _, _, name, _ in READ)


class ProxySampler:
    """One sidecar. A new mesh TLS connection is a full handshake: a proxy's client resumes no session, and
    so the connections with TLS are the handshakes.

    Reading costs the proxy CPU that a trial would be charged with, so during a trial nothing is asked.
    """

    def __init__(self, placement: Placement, workload: str, reach: Reach) -> None:
        self._source = str(Source(placement.mesh, placement.process_set, workload, "proxy"))
        self._admin = ProxyAdmin(workload, reach)

    @property
    def name(self) -> str:
        return self._source

    def sample(self, moment: Moment) -> Sequence[Sample]:
        """A proxy that has ended gives `reachable` 0."""
        if moment is Moment.DURING:
            return []
        try:
            series = self._admin.metrics(_NAMES)
        except MeshwiseError:
            return [Sample(time.monotonic_ns(), self._source, "reachable", "", 0.0)]
        now_ns = time.monotonic_ns()
        found = [
            Sample(now_ns, self._source, metric, labels, total(series, name, **wanted))
            for metric, labels, name, wanted in READ
        ]
        return [*found, Sample(now_ns, self._source, "reachable", "", 1.0)]
