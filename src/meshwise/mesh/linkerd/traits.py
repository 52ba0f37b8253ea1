"""What Linkerd's sidecars do, for the fairness card: read off what the proxies are given. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from meshwise.mesh.linkerd import destinations, sidecar
from meshwise.mesh.linkerd.authority import LEAF_LIFE
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.names import DETECT_TIMEOUT_S


def traits(transport: Transport, tls_library: str) -> Mapping[str, str]:
    helm = sidecar.HELM
    windows = [name for name in helm if "WINDOW_SIZE" in name]
    return {
        "worker_model": "tokio threads that share connections",
        "http1_transport": "http2" if transport.http2_upgrade else "http1",
        "protocol_detection": f"from the first bytes, within {DETECT_TIMEOUT_S:g} s; tcp is declared opaque",
        "tls_library": tls_library,
        "crl": "none",  # the verifier of linkerd/meshtls is given none
        "san_match": "exact",
        "chain_depth": "1",
        "certificate_life": f"{LEAF_LIFE.total_seconds():g} s",
        "request_telemetry": "on: the proxy's own metrics",
        "access_log": "written" if helm.get("ACCESS_LOG") else "none",
        "authorization": "per request (per connection for tcp)",
        "retries": "none",  # by annotation of a Service or route only, and none is delivered
        "balancing": f"peak EWMA of two choices, decay {destinations.EWMA_DECAY_S} s",
        "pool": "one pool per peer, shared by the workers",
        "http2_windows": ", ".join(helm[name] for name in windows) or "linkerd2-proxy's own default",
        "keepalive": f"TCP {_seconds(helm['OUTBOUND_CONNECT_KEEPALIVE'])}, "
        f"HTTP/2 ping each {destinations.KEEP_ALIVE_INTERVAL_S}s",
        "connect_timeout": _seconds(helm["OUTBOUND_CONNECT_TIMEOUT"]),
        "queue": f"{destinations.QUEUE_CAPACITY}, refused after {destinations.FAILFAST_S} s",
    }


def _seconds(text: str) -> str:
    """`1s` for `1000ms`."""
    return f"{int(text.removesuffix('ms')) / 1000:g}s"
