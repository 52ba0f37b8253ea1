"""A sidecar as istiod sees it: one stream of the aggregated discovery service, every answer accepted.

The stream makes istiod know a proxy, what it is and what it subscribes to; what istiod has generated for it
is then read from the debug page of that connection, where it is JSON whatever the message (istio.io's own are
in no package of Python).

Source: envoy/service/discovery/v3/discovery.proto; pkg/model/proxy.go, pilot/pkg/model/context.go of Istio.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, struct_pb2

from meshwise.mesh.istio.istiod.objects import pod_name
from meshwise.mesh.istio.istiod.process import Istiod
from meshwise.mesh.istio.telemetry import node_id
from meshwise.mesh.istio.tracing import CLUSTER_ID
from meshwise.mesh.istio.view import Service

PROXY_VERSION = "1.32.0"
"""What the proxy says to be; no istiod that was tried makes another configuration for 1.28 or later."""
MOST_MESSAGE_BYTES = 256 << 20
_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
_TYPES = "type.googleapis.com/envoy.config"
CLUSTERS, LISTENERS, ENDPOINTS, ROUTES = (
    f"{_TYPES}.{name}"
    for name in (
        "cluster.v3.Cluster", "listener.v3.Listener", "endpoint.v3.ClusterLoadAssignment",
        "route.v3.RouteConfiguration",
    )
)  # fmt: skip

_PACKAGE = "meshwise.istiod.xds"
_STRING, _MESSAGE = 9, 11
_FIELDS: Mapping[str, Sequence[tuple[str, int, int, str, bool]]] = {
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
        name="meshwise_istiod_xds.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/struct.proto"],
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind, kind_name, repeated in fields:
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            added.type = kind  # type: ignore[assignment]  # stubs have an enum
            if kind_name:
                added.type_name = kind_name
    pool = descriptor_pool.DescriptorPool()
    struct = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(struct)
    pool.Add(struct)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


_MADE = _messages()

Subscribe = Callable[[Mapping[str, Sequence[str]]], None]
"""Asks for resources, names by type (none: all of the type), and waits until each type has been answered.
Raises MW441."""


@contextmanager
def connected(istiod: Istiod, service: Service, trust_domain: str) -> Iterator[Subscribe]:
    """The stream of the service's sidecar. Raises MW441 when it ends before it is left."""
    node = _node(service, trust_domain)
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    wanted: dict[str, Sequence[str]] = {}
    waiting: set[str] = set()
    changed = threading.Condition()
    ended: list[str] = []

    def request(kind: str, version: str = "", nonce: str = "") -> Any:
        return _MADE["Request"](
            node=node, type_url=kind, resource_names=wanted[kind], version_info=version, response_nonce=nonce
        )

    def accept(stream: Any) -> None:
        why = "the stream was ended"
        try:
            for response in stream:
                with changed:
                    known = response.type_url in wanted
                    waiting.discard(response.type_url)
                    changed.notify_all()
                if known:
                    asked.put(request(response.type_url, response.version_info, response.nonce))
        except grpc.RpcError as error:
            why = str(error.details())
        with changed:
            ended.append(why)
            changed.notify_all()

    def subscribe(names: Mapping[str, Sequence[str]]) -> None:
        with changed:
            wanted.update(names)
            waiting.update(names)
        for kind in names:
            asked.put(request(kind))
        with changed:
            answered = changed.wait_for(lambda: ended or not waiting, istiod.patience.settle_s)
            if ended or not answered:
                reason = ended[0] if ended else f"no answer within {istiod.patience.settle_s:g} s"
                raise istiod.failed(f"configure {service.name}", reason)

    limit = [("grpc.max_receive_message_length", MOST_MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(istiod.xds, options=limit) as channel:
        method = channel.stream_stream(
            _METHOD,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=_MADE["Response"].FromString,
        )
        stream = method(iter(asked.get, None))
        reader = threading.Thread(target=accept, args=(stream,), daemon=True)
        reader.start()
        try:
            yield subscribe
        finally:
            asked.put(None)
            stream.cancel()
            reader.join()


def _node(service: Service, trust_domain: str) -> Any:
    """As pilot-agent makes it; istiod finds its pod by the address."""
    metadata = {
        "NAME": pod_name(service),
        "NAMESPACE": service.namespace,
        "LABELS": dict(service.labels),
        "SERVICE_ACCOUNT": service.service_account,
        "CLUSTER_ID": CLUSTER_ID,
        "MESH_ID": trust_domain,
        "ISTIO_VERSION": PROXY_VERSION,
        "INTERCEPTION_MODE": "REDIRECT",
        "INSTANCE_IPS": service.pod_ip,
    }
    own_id = node_id(service).split("~")
    own_id[2] = f"{pod_name(service)}.{service.namespace}"
    node = _MADE["Node"](id="~".join(own_id), cluster=f"{service.name}.{service.namespace}")
    json_format.ParseDict(metadata, node.metadata)
    return node
