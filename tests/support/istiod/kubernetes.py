"""A Kubernetes API in memory: enough of list, watch, get and put for istiod's informers.

Since Istio 1.30 istiod does not start without an API server. This one holds plain objects, gives each change
a version, and streams changes to its watchers (also with `sendInitialEvents`, the way of newer informers).
It checks nothing: authorization, schemas and admission are the real one's business.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

_PARTIAL = "as=PartialObjectMetadata"
_CREATED = "2026-01-01T00:00:00Z"
"""For what is applied without a time: one time for all, so that istiod goes by name."""
_WATCH_POLL_S = 0.5


def plural(kind: str) -> str:
    """The resource of a kind, as in its path."""
    word = kind.lower()
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x")) else f"{word}s"


@dataclass(frozen=True)
class _Place:
    """A collection, or one object of it, as a path names it."""

    api: str
    resource: str
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True)
class _Event:
    version: int
    kind: str
    resource: tuple[str, str]
    value: Json


class Kubernetes:
    """The objects, and the changes that were made to them."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str, str], Json] = {}
        self._events: list[_Event] = []
        self._changed = threading.Condition()
        self.closed = False

    def replace_all(self, values: Iterable[Json]) -> None:
        """These and no others; those that are as they were are left alone."""
        wanted = {_key(value): value for value in values}
        with self._changed:
            for key in [key for key in self._objects if key not in wanted and _ours(key)]:
                self._record("DELETED", key, self._objects.pop(key))
            for key, value in wanted.items():
                self._put(key, value)
            self._changed.notify_all()

    def put(self, value: Json) -> Json:
        with self._changed:
            found = self._put(_key(value), value)
            self._changed.notify_all()
            return found

    def _put(self, key: tuple[str, str, str, str], value: Json) -> Json:
        known = self._objects.get(key)
        if known and _without_version(known) == _without_version(_stamped(value, "")):
            return known
        stored = _stamped(value, str(len(self._events) + 2))
        self._objects[key] = stored
        self._record("MODIFIED" if known else "ADDED", key, stored)
        return stored

    def _record(self, kind: str, key: tuple[str, str, str, str], value: Json) -> None:
        version = len(self._events) + 2
        changed = {**value, "metadata": {**value["metadata"], "resourceVersion": str(version)}}
        self._events.append(_Event(version, kind, key[:2], changed))

    def get(self, place: _Place) -> Json | None:
        with self._changed:
            return self._objects.get((place.api, place.resource, place.namespace, place.name))

    def list(self, place: _Place) -> tuple[list[Json], int]:
        """What is in the collection, and as of which version."""
        with self._changed:
            found = [
                value
                for (api, resource, namespace, _), value in self._objects.items()
                if (api, resource) == (place.api, place.resource) and place.namespace in ("", namespace)
            ]
            return found, len(self._events) + 1

    def changes(self, place: _Place, after: int) -> Iterator[_Event | None]:
        """Every later change; None now and then, so that a watch sees that its reader has gone."""
        while not self.closed:
            with self._changed:
                if len(self._events) + 1 <= after:
                    self._changed.wait(_WATCH_POLL_S)
                later = self._events[max(after - 1, 0) :]
            if not later:
                yield None
            for event in later:
                after = event.version
                namespace = event.value["metadata"].get("namespace", "")
                if event.resource == (place.api, place.resource) and place.namespace in ("", namespace):
                    yield event


def _ours(key: tuple[str, str, str, str]) -> bool:
    """Not what istiod has written itself (its lease, its roots)."""
    return key[1] not in ("leases", "configmaps")


def _key(value: Json) -> tuple[str, str, str, str]:
    metadata = value["metadata"]
    return value["apiVersion"], plural(value["kind"]), metadata.get("namespace", ""), metadata["name"]


def _stamped(value: Json, version: str) -> Json:
    metadata = {
        "uid": ".".join(_key(value)),
        **value["metadata"],
        "creationTimestamp": value["metadata"].get("creationTimestamp") or _CREATED,
        "resourceVersion": version,
    }
    return {**value, "metadata": metadata}


def _without_version(value: Json) -> Json:
    return {**value, "metadata": {**value["metadata"], "resourceVersion": ""}}


# --- over HTTP -------------------------------------------------------------------------------------


@contextmanager
def served(kubernetes: Kubernetes) -> Iterator[str]:
    """The API on a port of loopback; yields its address."""

    class Handler(_Handler):
        store = kubernetes

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        kubernetes.closed = True
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    store: Kubernetes
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == "/version":
            self._answer({"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
            return
        place = _place(url.path)
        if place is None:
            self._answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
        elif query.get("watch") in ("true", "1"):
            self._watch(place, query)
        elif place.name:
            found = self.store.get(place)
            self._answer(found or _missing(place), 200 if found else 404)
        else:
            items, version = self.store.list(place)
            self._answer(
                {
                    "kind": "PartialObjectMetadataList" if self._partial else "List",
                    "apiVersion": "meta.k8s.io/v1" if self._partial else place.api,
                    "metadata": {"resourceVersion": str(version)},
                    "items": [self._shown(each) for each in items if _selected(each, query)],
                }
            )

    def do_POST(self) -> None:
        self._answer(self.store.put(self._read()), 201)

    def do_PUT(self) -> None:
        self._answer(self.store.put(self._read()))

    def do_PATCH(self) -> None:
        """Of a status, which is not read here."""
        self._read()
        place = _place(urlsplit(self.path).path.removesuffix("/status"))
        found = self.store.get(place) if place else None
        self._answer(found or _missing(place), 200 if found else 404)

    def _watch(self, place: _Place, query: Mapping[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        after = int(query.get("resourceVersion") or 0)
        try:
            if query.get("sendInitialEvents") == "true":
                items, after = self.store.list(place)
                for each in items:
                    if _selected(each, query):
                        self._event("ADDED", self._shown(each))
                self._event("BOOKMARK", self._bookmark(place, after))
            for event in self.store.changes(place, after):
                if event is None:
                    self._chunk(b"\n")
                elif _selected(event.value, query):
                    self._event(event.kind, self._shown(event.value))
            self._chunk(b"")
        except OSError:
            self.close_connection = True  # the watcher has gone

    def _bookmark(self, place: _Place, version: int) -> Json:
        kind = "PartialObjectMetadata" if self._partial else _kind(self.store, place)
        metadata = {
            "resourceVersion": str(version),
            "creationTimestamp": None,
            "annotations": {"k8s.io/initial-events-end": "true"},
        }
        api = "meta.k8s.io/v1" if self._partial else place.api
        return {"kind": kind, "apiVersion": api, "metadata": metadata}

    @property
    def _partial(self) -> bool:
        return _PARTIAL in self.headers.get("Accept", "")

    def _shown(self, value: Json) -> Json:
        if not self._partial:
            return value
        return {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": value["metadata"],
        }

    def _read(self) -> Json:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found: Json = json.loads(body) if body else {}
        return found

    def _answer(self, value: Json, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _event(self, kind: str, value: Json) -> None:
        self._chunk(json.dumps({"type": kind, "object": value}).encode() + b"\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def _place(path: str) -> _Place | None:
    """`/api/v1/...` or `/apis/GROUP/VERSION/...`; None for a question about the API itself."""
    parts = path.strip("/").split("/")
    api, rest = (parts[1:2], parts[2:]) if parts[0] == "api" else (parts[1:3], parts[3:])
    if not rest:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return _Place("/".join(api), rest[0], namespace, rest[1] if len(rest) > 1 else "")


def _kind(store: Kubernetes, place: _Place) -> str:
    known, _ = store.list(_Place(place.api, place.resource))
    return str(known[0]["kind"]) if known else _SINGULAR.get(place.resource, place.resource)


_SINGULAR = {
    plural(kind): kind
    for kind in (
        "Namespace", "Node", "Service", "Pod", "EndpointSlice", "Secret", "ConfigMap", "Ingress",
        "IngressClass", "CustomResourceDefinition", "ServiceAccount", "Lease",
        "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "AuthorizationPolicy",
        "PeerAuthentication", "RequestAuthentication", "DestinationRule", "Sidecar",
    )
}  # fmt: skip


def _selected(value: Json, query: Mapping[str, str]) -> bool:
    """By the fields of `fieldSelector` that name an object."""
    for demand in filter(None, query.get("fieldSelector", "").split(",")):
        field, _, wanted = demand.partition("=")
        known = value["metadata"].get(field.removeprefix("metadata."), "")
        if field in ("metadata.name", "metadata.namespace") and known != wanted.lstrip("="):
            return False
    return True


def _missing(place: _Place | None) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "NotFound",
        "message": f"{place} is not here",
        "code": 404,
    }
