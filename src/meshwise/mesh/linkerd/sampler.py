"""A sidecar's own statistics as samples: requests, TLS, authorization, connections, certificate, memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.linkerd.admin import Admin, total
from meshwise.mesh.seam import Dial, Placement
from meshwise.telemetry.seam import Moment, Sample

_IN, _OUT = {"direction": "inbound"}, {"direction": "outbound"}

READ: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
    ("requests_total", "side=inbound", "request_total", _IN),
    ("requests_total", "side=outbound", "request_total", _OUT),
    ("connections_total", "side=inbound", "tcp_open_total", {**_IN, "peer": "src"}),
    ("connections_total", "side=outbound", "tcp_open_total", {**_OUT, "peer": "dst"}),
    ("connections_active", "side=inbound", "tcp_open_connections", {**_IN, "peer": "src"}),
    ("connections_active", "side=outbound", "tcp_open_connections", {**_OUT, "peer": "dst"}),
    ("tls_handshakes_total", "side=server", "tcp_open_total", {**_IN, "peer": "src", "tls": "true"}),
    ("tls_handshakes_total", "side=client", "tcp_open_total", {**_OUT, "peer": "dst", "tls": "true"}),
    ("authorization_allowed_total", "", "inbound_http_authz_allow_total", {}),
    ("authorization_denied_total", "", "inbound_http_authz_deny_total", {}),
    ("route_not_found_total", "", "inbound_http_route_not_found_total", {}),
    ("errors_total", "side=inbound", "inbound_http_errors_total", {}),
    ("errors_total", "side=outbound", "outbound_http_errors_total", {}),
    ("transport_header_connections_total", "", "inbound_tcp_transport_header_connections_total", {}),
    ("certificate_refreshes_total", "result=ok", "control_identity_cert_refreshes_total", {"result": "ok"}),
    (
        "certificate_refreshes_total", "result=error",
        "control_identity_cert_refreshes_total", {"result": "error"},
    ),
    ("certificate_expiry_unix_s", "", "control_identity_cert_expiration_timestamp_seconds", {}),
    ("certificate_refreshed_unix_s", "", "control_identity_cert_refresh_timestamp_seconds", {}),
    ("memory_resident_bytes", "", "process_resident_memory_bytes", {}),
    ("workers", "", "tokio_rt_workers", {}),
)  # fmt: skip
"""(metric, labels, the proxy's name, the labels that are summed up)"""

_NAMES = frozenset(name for _, _, name, _ in READ)


class ProxySampler:
    """One sidecar. A proxy that has ended gives no samples.

    A new mesh TLS connection is a full handshake, because a proxy's client resumes no session: so the
    connections with TLS are the handshakes.
    """

    def __init__(self, placement: Placement, workload: str, dial: Dial) -> None:
        self._source = f"{placement.mesh}/{placement.process_set}/{workload}/proxy"
        self._admin = Admin(workload, dial)

    @property
    def name(self) -> str:
        return self._source

    def sample(self, moment: Moment) -> Sequence[Sample]:
        try:
            now_ns = time.monotonic_ns()
            series = self._admin.metrics(_NAMES)
        except MeshwiseError:
            return []  # the testbed notices the end of a process by itself
        finally:
            if moment is Moment.END:
                self._admin.close()
        return [
            Sample(now_ns, self._source, metric, labels, total(series, name, **wanted))
            for metric, labels, name, wanted in READ
        ]
