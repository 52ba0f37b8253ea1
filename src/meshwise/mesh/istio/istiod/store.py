"""Objects of a Kubernetes API in memory: what is there, as of which version, and every change.

Rules of this file:
- Each change has a version of its own, counted from 2 on, and versions of an object never repeat: istiod keys
  its caches by them.
- Nothing grows without end: so many objects, and so many changes that a watcher may be behind. One that is
  further behind is told to list again, as Kubernetes does (410).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

Json = dict[str, Any]
ObjectKey = tuple[str, str, str, str]
"""API, resource, namespace, name."""

MOST_OBJECTS = 20_000
KEPT_CHANGES = 20_000
_FIRST_VERSION = 2
_CREATED = "2026-01-01T00:00:00Z"
"""For what is applied without a time: one time for all, so that istiod goes by name."""
_WATCH_S = 30.0
"""A watch looks so often whether its reader is still there."""
_OF_ISTIOD = ("leases", "configmaps")
"""What istiod writes itself."""


class StoreFull(Exception):
    """There are `MOST_OBJECTS`."""


class VersionGone(Exception):
    """Changes after this version are not kept any more."""


@dataclass(frozen=True)
class ObjectPlace:
    """A collection, or one object of it, as a path names it."""

    api: str
    resource: str
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True)
class ObjectChange:
    version: int
    kind: str
    """ADDED, MODIFIED or DELETED."""
    resource: tuple[str, str]
    value: Json


class ObjectStore:
    """The objects, and the last changes that were made to them. Safe for several threads."""

    def __init__(self) -> None:
        self._objects: dict[ObjectKey, Json] = {}
        self._changes: deque[ObjectChange] = deque(maxlen=KEPT_CHANGES)
        self._version = _FIRST_VERSION - 1
        self._changed = threading.Condition()
        self._closed = False

    def close(self) -> None:
        """Every watch ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def replace_all(self, values: Iterable[Json]) -> None:
        """These and no others, in this order; what is as it was is left alone. Raises StoreFull."""
        wanted = {key_of(value): value for value in values}
        with self._changed:
            known = [key for key in self._objects if key[1] not in _OF_ISTIOD]
            for key in known:
                if key not in wanted:
                    self._record("DELETED", key, self._objects.pop(key))
            for key, value in wanted.items():
                self._put(key, value)
            self._changed.notify_all()

    def put(self, value: Json) -> Json:
        """As it is stored. Raises StoreFull."""
        with self._changed:
            found = self._put(key_of(value), value)
            self._changed.notify_all()
            return found

    def get(self, place: ObjectPlace) -> Json | None:
        with self._changed:
            return self._objects.get((place.api, place.resource, place.namespace, place.name))

    def list(self, place: ObjectPlace) -> tuple[list[Json], int]:
        """What is in the collection, and as of which version."""
        with self._changed:
            found = [
                value
                for (api, resource, namespace, _), value in self._objects.items()
                if (api, resource) == (place.api, place.resource) and place.namespace in ("", namespace)
            ]
            return found, self._version

    def changes(self, place: ObjectPlace, after: int) -> Iterator[ObjectChange | None]:
        """Every change of the collection after that version, until the store is closed; None now and then, so
        that a watch sees that its reader has gone. Raises VersionGone."""
        while True:
            with self._changed:
                if self._version <= after and not self._closed:
                    self._changed.wait(_WATCH_S)
                if self._closed:
                    return
                kept = self._version - len(self._changes)
                if after < kept:
                    raise VersionGone(after)
                later = list(islice(self._changes, after - kept, None))
            if not later:
                yield None
            for change in later:
                after = change.version
                namespace = change.value["metadata"].get("namespace", "")
                if change.resource == (place.api, place.resource) and place.namespace in ("", namespace):
                    yield change

    def _put(self, key: ObjectKey, value: Json) -> Json:
        known = self._objects.get(key)
        if known and _without_version(known) == _without_version(_stamped(value, "")):
            return known
        if known is None and len(self._objects) >= MOST_OBJECTS:
            raise StoreFull
        stored = _stamped(value, str(self._version + 1))
        self._objects[key] = stored
        self._record("MODIFIED" if known else "ADDED", key, stored)
        return stored

    def _record(self, kind: str, key: ObjectKey, value: Json) -> None:
        self._version += 1
        changed = {**value, "metadata": {**value["metadata"], "resourceVersion": str(self._version)}}
        self._changes.append(ObjectChange(self._version, kind, key[:2], changed))


def key_of(value: Json) -> ObjectKey:
    metadata = value["metadata"]
    return value["apiVersion"], plural(value["kind"]), metadata.get("namespace", ""), metadata["name"]


def plural(kind: str) -> str:
    """The resource of a kind, as in its path."""
    word = kind.lower()
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x")) else f"{word}s"


def _stamped(value: Json, version: str) -> Json:
    metadata = {
        "uid": ".".join(key_of(value)),
        **value["metadata"],
        "creationTimestamp": value["metadata"].get("creationTimestamp") or _CREATED,
        "resourceVersion": version,
    }
    return {**value, "metadata": metadata}


def _without_version(value: Json) -> Json:
    return {**value, "metadata": {**value["metadata"], "resourceVersion": ""}}
