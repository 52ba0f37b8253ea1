"""Istio's own resources, read from YAML: the subset that a security posture needs.

Rules of this file and its readers (`read_policies`, `read_traffic`):
- What is read is what kubectl would apply, and what `kubectl get -o yaml` prints; names and defaults are
  Istio's (istio.io/docs/reference).
- What is accepted means what istiod makes of it. What is not understood is refused with file and line, never
  ignored: a posture that silently lost a field would be measured under a wrong name. Which fields are
  understood is a table (`reading`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from meshwise.mesh.istio import read_policies, read_traffic
from meshwise.mesh.istio.kinds import IstioResources, ObjectMeta
from meshwise.mesh.reading import METADATA, SET_BY_SERVER, DocumentNode, objects

_SECURITY = ("security.istio.io/v1", "security.istio.io/v1beta1")
_NETWORKING = ("networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3")

_DRY_RUN = "istio.io/dry-run"
_REVISION = "istio.io/rev"

_Reader = Callable[[ObjectMeta, DocumentNode, DocumentNode | None], object]


def _without_dry_run(read: Callable[[ObjectMeta, DocumentNode], object]) -> _Reader:
    def reader(meta: ObjectMeta, spec: DocumentNode, dry_run: DocumentNode | None) -> object:
        if dry_run is not None:
            raise dry_run.refused("only an AuthorizationPolicy has a dry run", "remove the annotation")
        return read(meta, spec)

    return reader


_KINDS: Mapping[str, tuple[tuple[str, ...], _Reader, str]] = {
    "PeerAuthentication": (
        _SECURITY, _without_dry_run(read_traffic.peer_authentication), "peer_authentications",
    ),
    "AuthorizationPolicy": (_SECURITY, read_policies.authorization_policy, "authorization_policies"),
    "RequestAuthentication": (
        _SECURITY, _without_dry_run(read_policies.request_authentication), "request_authentications",
    ),
    "DestinationRule": (_NETWORKING, _without_dry_run(read_traffic.destination_rule), "destination_rules"),
    "Sidecar": (_NETWORKING, _without_dry_run(read_traffic.sidecar), "sidecars"),
}  # fmt: skip


def parse(text: str, file: str = "resources.yaml") -> IstioResources:
    """Multi-document YAML, or a List of kubectl. Of two documents with one kind, namespace and name the later
    stands, as with `kubectl apply`. Raises MW401 (not readable), MW402 (beyond the subset) and MW407
    (istiod would refuse it), with file:line."""
    found: dict[str, dict[tuple[str, str], tuple[ObjectMeta, object]]] = {kind: {} for kind in _KINDS}
    for document in objects(text, file):
        document.only("apiVersion", "kind", "metadata", "spec", "status")
        kind = document.need("kind").text()
        if kind not in _KINDS:
            raise document.need("kind").beyond(kind, "not one of the resources of a posture", _KINDS)
        versions, read, _ = _KINDS[kind]
        document.need("apiVersion").one_of({name: name for name in versions})
        meta, dry_run = _meta(document)
        value = read(meta, document.get("spec") or document.empty("spec"), dry_run)
        found[kind][meta.namespace, meta.name] = (meta, value)
    by_age: dict[str, tuple[Any, ...]] = {
        name: tuple(value for _, value in sorted(found[kind].values(), key=lambda each: each[0].age))
        for kind, (_, _, name) in _KINDS.items()
    }
    return IstioResources(**by_age)


def _meta(document: DocumentNode) -> tuple[ObjectMeta, DocumentNode | None]:
    """Who it is, and its annotation for a dry run. Of what the server has set only the time of creation means
    something to istiod, and annotations of others mean nothing."""
    metadata = document.need("metadata")
    metadata.only(*METADATA, *SET_BY_SERVER)
    annotations = metadata.get("annotations") or metadata.empty()
    known = annotations.fields()
    for name, node in known.items():
        if name != _DRY_RUN and "istio.io" in name.partition("/")[0]:
            raise node.beyond(name, "this annotation of Istio's is not translated", [_DRY_RUN])
    labels = (metadata.get("labels") or metadata.empty()).fields()
    if (revision := labels.get(_REVISION)) and revision.text() != "default":
        raise revision.beyond(_REVISION, "there is one istiod here, the default revision", ("default",))
    namespace, created = metadata.get("namespace"), metadata.get("creationTimestamp")
    meta = ObjectMeta(
        metadata.need("name").text(),
        namespace.text() if namespace else "default",
        created.text() if created and not created.is_null() else "",
    )
    return meta, known.get(_DRY_RUN)
