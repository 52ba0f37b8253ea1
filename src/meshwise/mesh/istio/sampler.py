"""A sidecar's own statistics as samples: TLS, authorization, connections, requests, memory, certificates."""

from __future__ import annotations

import time
from collections.abc import Sequence

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.admin import Admin, Stats, total
from meshwise.mesh.seam import Dial, Placement
from meshwise.telemetry.seam import Moment, Sample

_SERVER_TLS = r"listener\.0\.0\.0\.0_15006\.ssl\."
_CLIENT_TLS = r"cluster\.outbound\|.*;\.ssl\."

COUNTED: tuple[tuple[str, str, str], ...] = (
    ("tls_handshakes_total", "side=server", _SERVER_TLS + "handshake"),
    ("tls_handshakes_total", "side=client", _CLIENT_TLS + "handshake"),
    ("tls_resumptions_total", "side=server", _SERVER_TLS + "session_reused"),
    ("tls_resumptions_total", "side=client", _CLIENT_TLS + "session_reused"),
    ("tls_errors_total", "side=server", _SERVER_TLS + "(connection_error|fail_verify_.*)"),
    ("tls_errors_total", "side=client", _CLIENT_TLS + "(connection_error|fail_verify_.*)"),
    ("rbac_allowed_total", "", r"http\.inbound_.*\.rbac\.allowed"),
    ("rbac_denied_total", "", r"http\.inbound_.*\.rbac\.denied"),
    ("jwt_allowed_total", "", r"http\.inbound_.*\.jwt_authn\.allowed"),
    ("jwt_denied_total", "", r"http\.inbound_.*\.jwt_authn\.denied"),
    ("requests_total", "side=inbound", r"http\.inbound_.*\.downstream_rq_total"),
    ("requests_total", "side=outbound", r"http\.outbound_.*\.downstream_rq_total"),
    ("retries_total", "side=outbound", r"cluster\.outbound\|.*\.upstream_rq_retry"),
    ("connections_total", "side=inbound", r"http\.inbound_.*\.downstream_cx_total"),
    ("connections_total", "side=outbound", r"cluster\.outbound\|.*\.upstream_cx_total"),
    ("connections_active", "side=inbound", r"http\.inbound_.*\.downstream_cx_active"),
    ("connections_active", "side=outbound", r"cluster\.outbound\|.*\.upstream_cx_active"),
    ("refused_connections_total", "", r"listener\.0\.0\.0\.0_15006\.no_filter_chain_match"),
)
"""(metric, labels, the proxy's names that are summed up)"""

_READ = (
    r"^(http\..*\.(rbac|jwt_authn)\..*|http\..*\.downstream_(rq|cx)_.*|cluster\.outbound.*upstream_.*"
    r"|(cluster\.outbound.*|listener\.0\.0\.0\.0_15006)\.(ssl\..*|no_filter_chain_match))$"
)


class ProxySampler:
    """One sidecar. A proxy that has ended gives no samples."""

    def __init__(self, placement: Placement, workload: str, dial: Dial) -> None:
        self._source = f"{placement.mesh}/{placement.process_set}/{workload}/proxy"
        self._admin = Admin(workload, dial)

    @property
    def name(self) -> str:
        return self._source

    def sample(self, moment: Moment) -> Sequence[Sample]:
        try:
            now_ns = time.monotonic_ns()
            values = self._values(moment)
        except MeshwiseError:
            return []  # the testbed notices the end of a process by itself
        finally:
            if moment is Moment.END:
                self._admin.close()
        return [Sample(now_ns, self._source, metric, labels, value) for metric, labels, value in values]

    def _values(self, moment: Moment) -> list[tuple[str, str, float]]:
        stats = self._admin.stats(_READ)
        values = [(metric, labels, float(total(stats, names))) for metric, labels, names in COUNTED]
        memory = self._admin.json("/memory")
        values.append(("memory_allocated_bytes", "", float(memory["allocated"])))
        values.append(("memory_heap_bytes", "", float(memory["heap_size"])))
        if moment is not Moment.DURING and (expiry := _expiry_s(stats)):
            values.append(("certificate_expiry_unix_s", "", expiry))
        return values


def _expiry_s(stats: Stats) -> float:
    """The first certificate that ends, seconds since the epoch; 0 when none is in use."""
    found = [
        float(value)
        for name, value in stats.items()
        if name.endswith("expiration_unix_time_seconds") and isinstance(value, int) and value
    ]
    return min(found, default=0.0)
