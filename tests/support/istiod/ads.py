"""Sidecars as istiod sees them: one stream each of the aggregated discovery service, every answer accepted.

What they are sent is read elsewhere, from istiod's debug pages, where it is JSON; a stream is what makes
istiod know a proxy and what it subscribes to.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, struct_pb2

from meshwise.mesh.istio.telemetry import node_id
from meshwise.mesh.istio.view import Service
from tests.support.istiod.objects import pod_name
from tests.support.istiod.process import CLUSTER, Istiod

_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
_TYPES = "type.googleapis.com/envoy.config"
CLUSTERS, LISTENERS, ENDPOINTS, ROUTES = (
    f"{_TYPES}.{name}"
    for name in (
        "cluster.v3.Cluster", "listener.v3.Listener", "endpoint.v3.ClusterLoadAssignment",
        "route.v3.RouteConfiguration",
    )
)  # fmt: skip

_PACKAGE = "meshwise.test.xds"
_STRING, _MESSAGE = 9, 11
_FIELDS: dict[str, list[tuple[str, int, int, str, bool]]] = {
    "Node": [
        ("id", 1, _STRING, "", False),
        ("cluster", 2, _STRING, "", False),
        ("metadata", 3, _MESSAGE, ".google.protobuf.Struct", False),
    ],
    "Request": [
        ("version_info", 1, _STRING, "", False),
        ("node", 2, _MESSAGE, f".{_PACKAGE}.Node", False),
        ("resource_names", 3, _STRING, "", True),
        ("type_url", 4, _STRING, "", False),
        ("response_nonce", 5, _STRING, "", False),
    ],
    "Response": [
        ("version_info", 1, _STRING, "", False),
        ("type_url", 4, _STRING, "", False),
        ("nonce", 5, _STRING, "", False),
    ],
}
"""The fields that are used of envoy.config.core.v3.Node, DiscoveryRequest and DiscoveryResponse: name,
number, type, type's name, repeated."""


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="meshwise_test_xds.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/struct.proto"],
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, kind_name, repeated in fields:
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            added.type = kind  # type: ignore[assignment]
            if kind_name:
                added.type_name = kind_name
    pool = descriptor_pool.DescriptorPool()
    struct = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(struct)
    pool.Add(struct)  # type: ignore[no-untyped-call]
    pool.Add(file)  # type: ignore[no-untyped-call]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


_MADE = _messages()


@contextmanager
def connected(
    istiod: Istiod, service: Service, trust_domain: str, endpoints: Sequence[str], routes: Sequence[str]
) -> Iterator[None]:
    """The service's sidecar, subscribed to everything of its own, these endpoints and these routes; once each
    has been answered."""
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    waiting = {CLUSTERS, LISTENERS, *([ENDPOINTS] if endpoints else []), *([ROUTES] if routes else [])}
    answered = threading.Event()
    names = {CLUSTERS: [], LISTENERS: [], ENDPOINTS: list(endpoints), ROUTES: list(routes)}

    def request(kind: str, version: str = "", nonce: str = "") -> Any:
        return _MADE["Request"](
            node=_node(service, trust_domain), type_url=kind, resource_names=names[kind],
            version_info=version, response_nonce=nonce,
        )  # fmt: skip

    def accept(stream: Any) -> None:
        try:
            for response in stream:
                waiting.discard(response.type_url)
                if not waiting:
                    answered.set()
                asked.put(request(response.type_url, response.version_info, response.nonce))
        except grpc.RpcError:
            return  # the stream was ended, here or by istiod

    with grpc.insecure_channel(istiod.xds, options=[("grpc.max_receive_message_length", -1)]) as channel:
        method = channel.stream_stream(
            _METHOD,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=_MADE["Response"].FromString,
        )
        stream = method(iter(asked.get, None))
        reader = threading.Thread(target=accept, args=(stream,), daemon=True)
        reader.start()
        for kind in sorted(waiting):
            asked.put(request(kind))
        try:
            assert answered.wait(30), f"istiod has not answered {service.name}: {sorted(waiting)}"
            yield
        finally:
            asked.put(None)
            stream.cancel()
            reader.join()


def _node(service: Service, trust_domain: str) -> Any:
    metadata = {
        "NAME": pod_name(service),
        "NAMESPACE": service.namespace,
        "LABELS": dict(service.labels),
        "SERVICE_ACCOUNT": service.service_account,
        "CLUSTER_ID": CLUSTER,
        "MESH_ID": trust_domain,
        "ISTIO_VERSION": "1.32.0",
        "INTERCEPTION_MODE": "REDIRECT",
        "INSTANCE_IPS": service.pod_ip,
    }
    own_id = node_id(service).split("~")
    own_id[2] = f"{pod_name(service)}.{service.namespace}"
    node = _MADE["Node"](id="~".join(own_id), cluster=f"{service.name}.{service.namespace}")
    json_format.ParseDict(metadata, node.metadata)
    return node
