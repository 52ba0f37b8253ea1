"""Requests and responses of xDS: from protobuf to the values of `subscriptions` and back; secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshwise.mesh.delivery.messages import message_class
from meshwise.mesh.delivery.resources import Resource, SecretFiles, XdsKind, secret_version
from meshwise.mesh.delivery.subscriptions import DeltaRequest, Response, WorldRequest

_DISCOVERY = "envoy.service.discovery.v3"


def parse_delta(data: bytes) -> Any:
    return message_class(f"{_DISCOVERY}.DeltaDiscoveryRequest").FromString(data)


def parse_world(data: bytes) -> Any:
    return message_class(f"{_DISCOVERY}.DiscoveryRequest").FromString(data)


_KINDS = {str(kind): kind for kind in XdsKind}


def delta_request(message: Any) -> DeltaRequest | None:
    """None for a type that is not served."""
    kind = _kind(message)
    return (
        None
        if kind is None
        else DeltaRequest(
            kind,
            tuple(message.resource_names_subscribe),
            tuple(message.resource_names_unsubscribe),
            dict(message.initial_resource_versions),
            message.response_nonce,
            _error(message),
        )
    )


def world_request(message: Any) -> WorldRequest | None:
    """None for a type that is not served."""
    kind = _kind(message)
    return (
        None
        if kind is None
        else WorldRequest(kind, tuple(message.resource_names), message.response_nonce, _error(message))
    )


def delta_response(response: Response) -> bytes:
    message = message_class(f"{_DISCOVERY}.DeltaDiscoveryResponse")(
        system_version_info=response.version,
        type_url=response.kind,
        nonce=response.nonce,
        removed_resources=response.removed,
    )
    for each in response.resources:
        added = message.resources.add(name=each.name, version=each.version)
        added.resource.type_url, added.resource.value = response.kind, each.body
    return bytes(message.SerializeToString())


def world_response(response: Response) -> bytes:
    message = message_class(f"{_DISCOVERY}.DiscoveryResponse")(
        version_info=response.version, type_url=response.kind, nonce=response.nonce
    )
    for each in response.resources:
        message.resources.add(type_url=response.kind, value=each.body)
    return bytes(message.SerializeToString())


def secret(name: str, files: SecretFiles) -> Resource:
    """Read from its files; as Istio's agent sends it, with the bytes inline. Raises OSError."""
    parts: Mapping[str, bytes] = files.read()
    message = message_class(XdsKind.SECRETS.removeprefix("type.googleapis.com/"))(name=name)
    if files.root is not None:
        message.validation_context.trusted_ca.inline_bytes = parts["root"]
        if files.crl is not None:
            message.validation_context.crl.inline_bytes = parts["crl"]
    else:
        message.tls_certificate.certificate_chain.inline_bytes = parts["chain"]
        message.tls_certificate.private_key.inline_bytes = parts["key"]
    return Resource(name, secret_version(parts), message.SerializeToString())


def _kind(message: Any) -> XdsKind | None:
    return _KINDS.get(message.type_url)


def _error(message: Any) -> str | None:
    return message.error_detail.message if message.HasField("error_detail") else None
