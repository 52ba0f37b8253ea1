"""A stand-in for the Kubernetes API over HTTP: enough of list, watch, get and put for istiod's informers.

Since Istio 1.30 istiod does not start without an API server. This one streams changes to its watchers, also
in the way of newer informers (`sendInitialEvents`). It checks no schema and admits everything: what the
resources of a posture may be is judged elsewhere.

Rules of this file:
- It listens on loopback only, and answers only below a path that cannot be guessed: another user of this
  machine can reach the port, and must not change what istiod is told.
- What comes in is foreign: so many connections, so many bytes, so long. What is not a request that it
  knows is answered with a Status, as Kubernetes has it, and fails alone.
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from meshwise.mesh.istio.istiod.store import (
    Json,
    ObjectPlace,
    ObjectStore,
    StoreFull,
    VersionGone,
    key_of,
    plural,
)

MOST_CONNECTIONS = 256
"""istiod has one per kind that it watches, some thirty."""
MOST_BODY_BYTES = 3 << 20
"""Kubernetes' own limit."""
SILENCE_S = 120.0
"""A client that sends no request for so long is disconnected."""
_PARTIAL = "as=PartialObjectMetadata"
_VERSION = {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}


@contextmanager
def served(store: ObjectStore) -> Iterator[str]:
    """The API on a port of loopback; yields its address."""
    prefix = f"/{secrets.token_urlsafe(24)}"

    class Handler(_ApiHandler):
        objects, secret = store, prefix

    server = _ApiServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        store.close()
        server.shutdown()
        server.server_close()
        thread.join()


class _ApiServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    """istiod opens all of its watches at once."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without the look-up of this machine's name that an HTTPServer makes: where there is no resolver, it
        takes seconds."""
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread was begun
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away while it was read or answered; anything else is a defect, and is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _RefusedRequest(Exception):
    """A request that is answered with a Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.code = code
        self.status = {
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": reason, "message": message, "code": code,
        }  # fmt: skip


class _ApiHandler(BaseHTTPRequestHandler):
    objects: ObjectStore
    secret: str
    protocol_version = "HTTP/1.1"
    timeout = SILENCE_S
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._do(self._read_objects)

    def do_POST(self) -> None:
        self._do(lambda: self._write(201))

    def do_PUT(self) -> None:
        self._do(lambda: self._write(200))

    def do_PATCH(self) -> None:
        self._do(self._patch)

    def _do(self, what: Callable[[], None]) -> None:
        try:
            what()
        except _RefusedRequest as refused:
            self._answer(refused.status, refused.code)

    # --- what is asked ---------------------------------------------------------------------------

    def _asked(self) -> tuple[str, Mapping[str, str]]:
        """Path below the secret one, and the query."""
        try:
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query, max_num_fields=64).items()}
        except ValueError:
            raise _RefusedRequest(400, "BadRequest", "this is not a path with a query") from None
        secret, path = url.path[: len(self.secret)], url.path[len(self.secret) :]
        if not (secrets.compare_digest(secret.encode(), self.secret.encode()) and path.startswith("/")):
            raise _RefusedRequest(404, "NotFound", "nothing is here")
        return path, query

    def _read_objects(self) -> None:
        path, query = self._asked()
        if path == "/version":
            self._answer(_VERSION)
            return
        place = _place(path)
        if place is None:
            self._answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
        elif query.get("watch") in ("true", "1"):
            self._watch(place, query)
        elif place.name:
            self._answer(self._known(place))
        else:
            items, version = self.objects.list(place)
            self._answer(
                {
                    "kind": "PartialObjectMetadataList" if self._partial else "List",
                    "apiVersion": "meta.k8s.io/v1" if self._partial else place.api,
                    "metadata": {"resourceVersion": str(version)},
                    "items": [self._shown(each) for each in items if _selected(each, query)],
                }
            )

    def _write(self, status: int) -> None:
        path, _ = self._asked()
        place, value = _place(path), self._body()
        if place is None or not _is_object(value):
            raise _RefusedRequest(422, "Invalid", "this is not an object")
        if place.namespace:
            value["metadata"].setdefault("namespace", place.namespace)
        if key_of(value)[:3] != (place.api, place.resource, place.namespace):
            raise _RefusedRequest(422, "Invalid", "this is not an object of this collection")
        if place.name and value["metadata"]["name"] != place.name:
            raise _RefusedRequest(422, "Invalid", "the object has another name than its path")
        try:
            self._answer(self.objects.put(value), status)
        except StoreFull:
            raise _RefusedRequest(429, "TooManyRequests", "there are too many objects") from None

    def _patch(self) -> None:
        """Of a status, which nothing here reads."""
        path, _ = self._asked()
        self._body()
        place = _place(path.removesuffix("/status"))
        if place is None:
            raise _RefusedRequest(404, "NotFound", "nothing is here")
        self._answer(self._known(place))

    def _known(self, place: ObjectPlace) -> Json:
        found = self.objects.get(place)
        if found is None:
            raise _RefusedRequest(404, "NotFound", f"{place.resource} {place.name!r} is not here")
        return found

    def _body(self) -> Any:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if length < 0:
            self.close_connection = True  # where the next request begins is not known
            raise _RefusedRequest(411, "BadRequest", "the length of the body has to be said")
        if length > MOST_BODY_BYTES:
            self.close_connection = True
            raise _RefusedRequest(413, "RequestEntityTooLarge", f"a body has at most {MOST_BODY_BYTES} bytes")
        try:
            return json.loads(self.rfile.read(length))
        except (ValueError, RecursionError):
            raise _RefusedRequest(400, "BadRequest", "the body is not JSON") from None

    # --- a watch ---------------------------------------------------------------------------------

    def _watch(self, place: ObjectPlace, query: Mapping[str, str]) -> None:
        try:
            after = int(query.get("resourceVersion") or 0)
        except ValueError:
            raise _RefusedRequest(400, "BadRequest", "resourceVersion is a number here") from None
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            if query.get("sendInitialEvents") == "true" or not after:
                items, after = self.objects.list(place)
                for each in items:
                    if _selected(each, query):
                        self._event("ADDED", self._shown(each))
                if query.get("sendInitialEvents") == "true":
                    self._event("BOOKMARK", self._bookmark(place, after))
            self._follow(place, after, query)
            self._chunk(b"")
        except OSError:
            self.close_connection = True  # the watcher has gone

    def _follow(self, place: ObjectPlace, after: int, query: Mapping[str, str]) -> None:
        try:
            for change in self.objects.changes(place, after):
                if change is None:
                    self._chunk(b"\n")
                elif _selected(change.value, query):
                    self._event(change.kind, self._shown(change.value))
        except VersionGone:
            self._event("ERROR", _RefusedRequest(410, "Expired", "list again").status)

    def _bookmark(self, place: ObjectPlace, version: int) -> Json:
        kind = "PartialObjectMetadata" if self._partial else _kind(self.objects, place)
        metadata = {
            "resourceVersion": str(version),
            "creationTimestamp": None,
            "annotations": {"k8s.io/initial-events-end": "true"},
        }
        api = "meta.k8s.io/v1" if self._partial else place.api
        return {"kind": kind, "apiVersion": api, "metadata": metadata}

    # --- what is answered ------------------------------------------------------------------------

    @property
    def _partial(self) -> bool:
        return _PARTIAL in self.headers.get("Accept", "")

    def _shown(self, value: Json) -> Json:
        if not self._partial:
            return value
        return {
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]
        }  # fmt: skip

    def _answer(self, value: Mapping[str, Any], status: int = 200) -> None:
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


def _place(path: str) -> ObjectPlace | None:
    """`/api/v1/...` or `/apis/GROUP/VERSION/...`; None for a question about the API itself."""
    parts = path.strip("/").split("/")
    api, rest = (parts[1:2], parts[2:]) if parts[0] == "api" else (parts[1:3], parts[3:])
    if not rest:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return ObjectPlace("/".join(api), rest[0], namespace, rest[1] if len(rest) > 1 else "")


def _is_object(value: Any) -> bool:
    """Whether it names itself."""
    if not isinstance(value, dict) or not isinstance(metadata := value.get("metadata"), dict):
        return False
    words = (value.get("apiVersion"), value.get("kind"), metadata.get("name"), metadata.get("namespace", ""))
    return all(isinstance(word, str) for word in words) and bool(value["kind"] and metadata["name"])


def _kind(store: ObjectStore, place: ObjectPlace) -> str:
    known, _ = store.list(ObjectPlace(place.api, place.resource))
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
