"""Writes `src/meshwise/mesh/delivery/messages.binpb`: descriptors of the xDS messages that are sent and read.

    python -m venv /tmp/xds && /tmp/xds/bin/pip install xds-protos
    /tmp/xds/bin/python scripts/xds_messages.py

The package `xds-protos` (generated from envoyproxy/data-plane-api) is needed here only, in an environment of
its own: it brings older copies of `opentelemetry.proto` and `google.rpc`, which other dependencies have too.
A type that is missing in the result is sent as a TypedStruct; to have it as a message, name it in `WANTED`.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

TARGET = Path(__file__).parent.parent / "src/meshwise/mesh/delivery/messages.binpb"
_FILTERS = "envoy.extensions.filters"
WANTED = (
    "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.trace.v3.OpenTelemetryConfig",
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.stats.v3.Config",
    f"{_FILTERS}.common.set_filter_state.v3.FilterStateValue",
    f"{_FILTERS}.http.cors.v3.Cors",
    f"{_FILTERS}.http.fault.v3.HTTPFault",
    f"{_FILTERS}.http.grpc_stats.v3.FilterConfig",
    f"{_FILTERS}.http.header_to_metadata.v3.Config",
    f"{_FILTERS}.http.jwt_authn.v3.JwtAuthentication",
    f"{_FILTERS}.http.rbac.v3.RBAC",
    f"{_FILTERS}.http.router.v3.Router",
    f"{_FILTERS}.http.set_filter_state.v3.Config",
    f"{_FILTERS}.listener.http_inspector.v3.HttpInspector",
    f"{_FILTERS}.listener.original_dst.v3.OriginalDst",
    f"{_FILTERS}.listener.tls_inspector.v3.TlsInspector",
    f"{_FILTERS}.network.connection_limit.v3.ConnectionLimit",
    f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
    f"{_FILTERS}.network.rbac.v3.RBAC",
    f"{_FILTERS}.network.set_filter_state.v3.Config",
    f"{_FILTERS}.network.tcp_proxy.v3.TcpProxy",
    "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
    "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.EnvironmentResourceDetectorConfig",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "udpa.type.v1.TypedStruct",
    "xds.type.v3.TypedStruct",
)


def file_of(name: str) -> FileDescriptor:
    """Of the message with this full name; its module is imported."""
    package = name.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{module.name}")
    return descriptor_pool.Default().FindMessageTypeByName(name).file


def main() -> None:
    found = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for each in file.dependencies:
            add(each)
        file.CopyToProto(found.file.add())

    for name in WANTED:
        add(file_of(name))
    TARGET.write_bytes(found.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
