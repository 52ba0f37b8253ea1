"""The stand-in for the Kubernetes API, over real sockets: list, watch, write, and what is no request."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from meshwise.mesh.istio.istiod import api, store
from meshwise.mesh.istio.istiod.api import served
from meshwise.mesh.istio.istiod.store import ObjectPlace, ObjectStore, VersionGone

PODS = "/api/v1/pods"
RULES = "/apis/networking.istio.io/v1/destinationrules"


def pod(name: str, namespace: str = "backend", **spec: object) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture
def objects() -> ObjectStore:
    found = ObjectStore()
    found.replace_all([pod("a"), pod("b", "other")])
    return found


class Api:
    def __init__(self, address: str) -> None:
        url = urlsplit(address)
        self.host, self.port, self.prefix = str(url.hostname), url.port, url.path

    @contextmanager
    def asked(self, method: str, path: str, body: Any = None, **headers: str) -> Iterator[Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, data, headers)
        try:
            yield connection.getresponse()
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        with self.asked(method, self.prefix + path, body, **headers) as answer:
            return answer.status, json.loads(answer.read())

    @contextmanager
    def watched(self, path: str, **headers: str) -> Iterator[Iterator[Any]]:
        """Events, without the empty lines that keep a watch alive."""
        with self.asked("GET", self.prefix + path, **headers) as answer:
            assert answer.status == 200
            yield (json.loads(line) for line in iter(answer.readline, b"") if line.strip())


@pytest.fixture
def here(objects: ObjectStore) -> Iterator[Api]:
    with served(objects) as address:
        yield Api(address)


def names(events: list[Any]) -> list[tuple[str, str]]:
    return [(each["type"], each["object"]["metadata"].get("name", "")) for each in events]


def test_it_listens_on_loopback_only(here: Api) -> None:
    assert here.host == "127.0.0.1"


def test_lists_are_of_all_or_of_one_namespace(here: Api) -> None:
    status, found = here.ask("GET", PODS)
    assert (status, found["kind"]) == (200, "List")
    assert [each["metadata"]["name"] for each in found["items"]] == ["a", "b"]
    assert found["metadata"]["resourceVersion"] == "3", "two changes, counted from 2 on"
    assert [
        each["metadata"]["name"] for each in here.ask("GET", "/api/v1/namespaces/other/pods")[1]["items"]
    ] == ["b"]
    assert (
        here.ask("GET", f"{PODS}?fieldSelector=metadata.name%3Da")[1]["items"][0]["metadata"]["name"] == "a"
    )
    assert here.ask("GET", RULES)[1]["items"] == []


def test_one_object_and_none(here: Api) -> None:
    status, found = here.ask("GET", "/api/v1/namespaces/backend/pods/a")
    assert (status, found["metadata"]["uid"]) == (200, "v1.pods.backend.a")
    status, found = here.ask("GET", "/api/v1/namespaces/backend/pods/c")
    assert (status, found["kind"], found["reason"]) == (404, "Status", "NotFound")


def test_only_the_metadata_where_that_is_asked_for(here: Api) -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    found = here.ask("GET", PODS, Accept=accept)[1]
    assert found["kind"] == "PartialObjectMetadataList"
    assert {key for each in found["items"] for key in each} == {"kind", "apiVersion", "metadata"}


def test_a_watch_begins_with_what_is_there_and_goes_on_with_changes(here: Api, objects: ObjectStore) -> None:
    with here.watched(
        f"{PODS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    ) as events:
        first = [next(events) for _ in range(3)]
        assert names(first) == [("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", "")]
        mark = first[2]["object"]
        assert mark["kind"] == "Pod"
        assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        objects.replace_all([pod("a", x=1), pod("c")])
        later = [next(events) for _ in range(3)]
        assert names(later) == [("DELETED", "b"), ("MODIFIED", "a"), ("ADDED", "c")]
        versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in later]
        assert versions == [4, 5, 6]


def test_a_watch_from_a_version_has_what_came_after_it(here: Api, objects: ObjectStore) -> None:
    objects.put(pod("c"))
    with here.watched(f"{PODS}?watch=true&resourceVersion=3") as events:
        assert names([next(events)]) == [("ADDED", "c")]


def test_what_is_as_it_was_is_no_change(objects: ObjectStore) -> None:
    before = objects.list(ObjectPlace("v1", "pods"))
    objects.replace_all([pod("a"), pod("b", "other")])
    assert objects.list(ObjectPlace("v1", "pods")) == before


def test_what_istiod_wrote_itself_is_not_taken_away(here: Api, objects: ObjectStore) -> None:
    given = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "roots"}}
    assert here.ask("POST", "/api/v1/namespaces/backend/configmaps", given)[0] == 201
    objects.replace_all([])
    assert here.ask("GET", PODS)[1]["items"] == []
    assert here.ask("GET", "/api/v1/namespaces/backend/configmaps/roots")[0] == 200


def test_a_watcher_that_is_too_far_behind_has_to_list_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "KEPT_CHANGES", 10)
    objects = ObjectStore()
    for number in range(15):
        objects.put(pod("a", number=number))
    with pytest.raises(VersionGone):
        next(objects.changes(ObjectPlace("v1", "pods"), 2))
    with served(objects) as address, Api(address).watched(f"{PODS}?watch=true&resourceVersion=2") as events:
        (event,) = events
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


def test_no_more_objects_than_there_may_be(monkeypatch: pytest.MonkeyPatch, here: Api) -> None:
    monkeypatch.setattr(store, "MOST_OBJECTS", 2)
    assert here.ask("POST", "/api/v1/namespaces/backend/pods", pod("c"))[0] == 429
    assert here.ask("PUT", "/api/v1/namespaces/backend/pods/a", pod("a", x=2))[0] == 200


def test_nothing_is_told_without_the_secret_path(here: Api) -> None:
    for path in (PODS, f"/{'x' * 32}{PODS}", "/", f"{here.prefix}x{PODS}"):
        for method in ("GET", "POST", "PUT", "PATCH"):
            with here.asked(method, path, b"{}") as answer:
                assert answer.status == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b'"pod"', 422),
        (b"{}", 422),
        (b'{"apiVersion": "v1", "kind": "Pod", "metadata": []}', 422),
        (b'{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 1}}', 422),
        (b'{"apiVersion": "v1", "kind": "", "metadata": {"name": "a"}}', 422),
        (b'{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}', 422),
        (b'{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "elsewhere"}}', 422),
    ],
)
def test_what_is_no_object_is_refused_and_the_next_is_taken(here: Api, body: bytes, status: int) -> None:
    path = "/api/v1/namespaces/backend/pods"
    found, told = here.ask("POST", path, body)
    assert (found, told["kind"]) == (status, "Status")
    assert here.ask("POST", path, pod("next"))[0] == 201


def test_bodies_have_a_length_and_a_bound(here: Api) -> None:
    path = f"{here.prefix}/api/v1/namespaces/backend/pods"
    for length, status in (("-1", 411), ("x", 411), (str(api.MOST_BODY_BYTES + 1), 413)):
        with socket.create_connection((here.host, here.port)) as connection:
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
            )
            with connection.makefile("rb") as answer:
                assert f" {status} ".encode() in answer.readline()
    assert here.ask("GET", f"{PODS}?watch=true&resourceVersion=x")[0] == 400


def test_no_more_connections_than_there_may_be(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_CONNECTIONS", 3)
    with served(objects) as address, ExitStack() as held:
        here = Api(address)
        for _ in range(3):
            one = held.enter_context(socket.create_connection((here.host, here.port)))
            one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert one.recv(12) == b"HTTP/1.1 404"
        with socket.create_connection((here.host, here.port)) as further:
            assert further.recv(1) == b"", "closed without a word"


def test_watches_end_with_the_api(objects: ObjectStore) -> None:
    with served(objects) as address:
        here = Api(address)
        with here.watched(f"{PODS}?watch=true&sendInitialEvents=true") as events:
            for _ in range(3):
                next(events)
            ended = threading.Event()
            threading.Thread(target=lambda: (list(events), ended.set()), daemon=True).start()
            objects.close()
            assert ended.wait(10)
