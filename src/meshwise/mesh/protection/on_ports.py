"""Attempts past the sidecar: on the pod's address, on the proxy's own ports, at its administration."""

from __future__ import annotations

from collections.abc import Mapping

from meshwise.mesh.istio import bootstrap
from meshwise.mesh.linkerd import names
from meshwise.mesh.protection.attempt import (
    ALWAYS,
    BY_CALLER,
    NEVER,
    NO_PROXY,
    NO_TLS_IN_ISTIO_PLAINTEXT,
    STRICT,
    Attempt,
    Documented,
    Inapplicable,
    both,
)
from meshwise.mesh.protection.credentials import Credential
from meshwise.mesh.protection.ports import AskPage, AtDoor, ByPodAddress, Door, NamedPort, Page, Relayed
from meshwise.study.model import MeshName

_OUTSIDER = "a pod outside the mesh"
_NO_ANSWER = "no answer of the service"
_PORTS = "istio.io/latest/docs/ops/deployment/application-requirements/#ports-used-by-istio"
_INBOUND = "github.com/istio/istio pilot/pkg/networking/core/listener_inbound.go (virtualInbound-blackhole)"
_PASSTHROUGH = "istio.io/latest/docs/reference/config/security/peer_authentication/ (mode STRICT)"
_ADMIN = "github.com/linkerd/linkerd2-proxy linkerd/app/admin/src/server.rs"
_DIRECT = "github.com/linkerd/linkerd2-proxy linkerd/app/inbound/src/direct.rs"
_LINKERD_PORTS = "linkerd.io/2-edge/reference/proxy-configuration/"

_CONFIGURATION: Mapping[MeshName, Page] = {
    MeshName.ISTIO: Page(bootstrap.ADMIN_PORT, "/config_dump", b"envoy.admin.v3"),
    MeshName.LINKERD: Page(names.ADMIN_PORT, "/env.json", b"LINKERD2_PROXY_"),
}
_METRICS: Mapping[MeshName, Page] = {
    MeshName.ISTIO: Page(bootstrap.METRICS_PORT, "/stats/prometheus", b"# TYPE envoy_"),
    MeshName.LINKERD: Page(names.ADMIN_PORT, "/metrics", b"# TYPE "),
}
_SHUTDOWN: Mapping[MeshName, Page] = {
    MeshName.ISTIO: Page(bootstrap.ADMIN_PORT, "/quitquitquit", b"OK", "POST"),
    MeshName.LINKERD: Page(names.ADMIN_PORT, "/shutdown", b"shutdown", "POST"),
}
_LOCAL_ONLY: Mapping[MeshName, Page] = {
    MeshName.ISTIO: Page(bootstrap.ADMIN_PORT, "/server_info", b"command_line_options"),
    MeshName.LINKERD: Page(names.ADMIN_PORT, "/proxy-log-level", b"linkerd="),
}

ATTEMPTS = (
    Attempt(
        "pod-address",
        "the allowed client",
        "through its sidecar",
        "dials the pod's address instead of its service",
        _NO_ANSWER,
        ByPodAddress(),
        both(
            Documented(STRICT | BY_CALLER, _PASSTHROUGH),
            Documented(NEVER, "linkerd.io/2-edge/features/automatic-mtls/"),
        ),
        (
            Inapplicable(
                "the small control plane of this testbed describes services only, no pods",
                frozenset({MeshName.LINKERD}),
            ),
        ),
    ),
    Attempt(
        "inbound-port",
        _OUTSIDER,
        "in plaintext on the proxy's inbound port",
        "asks what the client may ask",
        _NO_ANSWER,
        AtDoor(Door.INBOUND),
        both(Documented(ALWAYS, _INBOUND), Documented(ALWAYS, _DIRECT)),
        (NO_PROXY,),
    ),
    Attempt(
        "inbound-port-named",
        _OUTSIDER,
        "in mesh TLS on the proxy's inbound port",
        "names the service's port, with certificate and key of another service",
        _NO_ANSWER,
        NamedPort(Credential.OTHER_SERVICE),
        both(Documented(NEVER, _PORTS), Documented(BY_CALLER, _DIRECT)),
        (
            NO_PROXY,
            Inapplicable("a connection to its proxy names no port", frozenset({MeshName.ISTIO})),
        ),
    ),
    Attempt(
        "outbound-port",
        _OUTSIDER,
        "in plaintext on the proxy's outbound port",
        "asks for another service, which the proxy would call in its own name",
        "no answer of the other service",
        Relayed(),
        both(Documented(ALWAYS, _PORTS), Documented(ALWAYS, _LINKERD_PORTS)),
        (NO_PROXY,),
    ),
    Attempt(
        "tunnel-port",
        _OUTSIDER,
        "in mesh TLS on the proxy's tunnel port (15008)",
        "asks what the client may ask, with certificate and key of another service",
        _NO_ANSWER,
        AtDoor(Door.TUNNEL, Credential.OTHER_SERVICE),
        both(Documented(ALWAYS, _PORTS), Documented(NEVER, _LINKERD_PORTS)),
        (NO_PROXY, Inapplicable("its proxy has no such port", frozenset({MeshName.LINKERD}))),
    ),
    Attempt(
        "admin-configuration",
        _OUTSIDER,
        "in plaintext on the proxy's administration port",
        "reads the proxy's configuration",
        "no configuration",
        AskPage(_CONFIGURATION),
        both(Documented(ALWAYS, _PORTS), Documented(NEVER, f"{_ADMIN} (/env.json)")),
        (NO_PROXY,),
    ),
    Attempt(
        "admin-shutdown",
        _OUTSIDER,
        "in plaintext on the proxy's administration port",
        "tells the proxy to end",
        "the proxy lives",
        AskPage(_SHUTDOWN),
        both(Documented(ALWAYS, _PORTS), Documented(ALWAYS, f"{_ADMIN} (/shutdown)")),
        (NO_PROXY,),
    ),
    Attempt(
        "admin-through-proxy",
        _OUTSIDER,
        "in mesh TLS, with certificate and key of another service",
        "has the proxy itself ask its administration for what it tells its own pod only",
        "no such answer",
        AskPage(_LOCAL_ONLY, Credential.OTHER_SERVICE),
        both(Documented(ALWAYS, _PORTS), Documented(ALWAYS, f"{_ADMIN} (/proxy-log-level)")),
        (NO_PROXY, NO_TLS_IN_ISTIO_PLAINTEXT),
    ),
    Attempt(
        "metrics-port",
        _OUTSIDER,
        "in plaintext on the proxy's port for metrics",
        "reads who calls whom how often",
        "no metrics",
        AskPage(_METRICS),
        both(
            Documented(NEVER, _PORTS),
            Documented(NEVER, "linkerd.io/2-edge/tasks/exporting-metrics/"),
        ),
        (NO_PROXY,),
    ),
)
