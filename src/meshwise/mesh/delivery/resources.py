"""What a control plane has for its proxies: encoded resources by proxy and type, in one immutable snapshot.

The snapshot is one file, which the side that makes configuration writes and the control plane reads:

    8 bytes, big-endian: length of the index · index (JSON) · the resources' bytes, one after the other

    index: {"number": N,
            "blobs": {digest: [offset, length]},
            "sets": {digest: {resource's name: digest}},
            "proxies": {node: {"sds": socket, "secrets": {name: {part: file}},
                               "types": {type: [version, set]}}}}

Proxies share what is the same for several of them. Keys are not in it: a secret is named by its files (0600),
which the control plane reads when it reads the snapshot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from meshwise.mesh.files import write_private

_PREFIX = "type.googleapis.com/envoy."
_LENGTH_BYTES = 8


class XdsKind(StrEnum):
    """Types of resources, by type URL, in the order in which a change is sent: what is referred to comes
    before what refers to it (xDS protocol, "Eventual consistency considerations")."""

    CLUSTERS = f"{_PREFIX}config.cluster.v3.Cluster"
    ENDPOINTS = f"{_PREFIX}config.endpoint.v3.ClusterLoadAssignment"
    LISTENERS = f"{_PREFIX}config.listener.v3.Listener"
    ROUTES = f"{_PREFIX}config.route.v3.RouteConfiguration"
    SECRETS = f"{_PREFIX}extensions.transport_sockets.tls.v3.Secret"

    @property
    def short(self) -> str:
        """`Cluster`, `Listener`, ..."""
        return self.rpartition(".")[2]


@dataclass(frozen=True)
class Resource:
    name: str
    version: str
    """A digest of `body`: equal versions are equal resources."""
    body: bytes
    """The encoded message of its type."""

    def __repr__(self) -> str:  # a secret's body must not reach a log by way of a repr
        return f"Resource({self.name}, {self.version})"


@dataclass(frozen=True)
class KindResources:
    """All resources of one type that one proxy may have."""

    version: str
    """Of the push that last changed any of them."""
    by_name: Mapping[str, Resource]


ProxyResources = Mapping[XdsKind, KindResources]
NOTHING: KindResources = KindResources("", {})


@dataclass(frozen=True)
class SecretFiles:
    """Where a secret is: a certificate with its key, or what peers are verified with."""

    chain: Path | None = None
    key: Path | None = None
    root: Path | None = None
    crl: Path | None = None
    """Lists of revoked certificates, which come with the root."""

    def parts(self) -> dict[str, str]:
        found = {"chain": self.chain, "key": self.key, "root": self.root, "crl": self.crl}
        return {name: str(path) for name, path in found.items() if path is not None}

    def read(self) -> dict[str, bytes]:
        """Raises OSError."""
        return {name: Path(path).read_bytes() for name, path in self.parts().items()}

    def version(self) -> str:
        """Differs when anything in the files differs. Raises OSError."""
        return secret_version(self.read())


@dataclass(frozen=True)
class ProxyEntry:
    """What a snapshot says of one proxy."""

    sds: str
    """The socket of its agent, where its secrets are served; empty: nowhere."""
    secrets: Mapping[str, SecretFiles]
    types: Mapping[XdsKind, tuple[str, Mapping[str, str]]]
    """Version, and each resource's digest by name."""


@dataclass(frozen=True)
class Snapshot:
    number: int
    """Counts the pushes of its directory."""
    proxies: Mapping[str, ProxyEntry]
    """By node id."""
    blobs: Mapping[str, bytes]
    """By digest."""

    def resources(self) -> Mapping[str, ProxyResources]:
        """Of every proxy, without secrets; what proxies share is the same value."""
        made: dict[int, Mapping[str, Resource]] = {}

        def named(names: Mapping[str, str]) -> Mapping[str, Resource]:
            if id(names) not in made:
                made[id(names)] = {
                    name: Resource(name, digest, self.blobs[digest]) for name, digest in names.items()
                }
            return made[id(names)]

        return {
            node: {
                kind: KindResources(version, named(names)) for kind, (version, names) in entry.types.items()
            }
            for node, entry in self.proxies.items()
        }


EMPTY = Snapshot(0, {}, {})


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def secret_version(parts: Mapping[str, bytes]) -> str:
    """Of what `SecretFiles.read` gives: differs when anything in it differs."""
    return digest_of(b"\0".join(name.encode() + b"\0" + parts[name] for name in sorted(parts)))


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Replaces the file as a whole, mode 0600."""
    sets: dict[str, Mapping[str, str]] = {}
    set_of: dict[int, str] = {}

    def shared(names: Mapping[str, str]) -> str:
        if id(names) not in set_of:
            key = digest_of(repr(sorted(names.items())).encode())
            set_of[id(names)] = key
            sets[key] = names
        return set_of[id(names)]

    proxies = {
        node: {
            "sds": entry.sds,
            "secrets": {name: files.parts() for name, files in entry.secrets.items()},
            "types": {kind: [version, shared(names)] for kind, (version, names) in entry.types.items()},
        }
        for node, entry in snapshot.proxies.items()
    }
    blobs, offset = {}, 0
    for digest, data in snapshot.blobs.items():
        blobs[digest] = [offset, len(data)]
        offset += len(data)
    index = _json({"number": snapshot.number, "blobs": blobs, "sets": sets, "proxies": proxies})
    header = len(index).to_bytes(_LENGTH_BYTES, "big")
    write_private(path, b"".join((header, index, *snapshot.blobs.values())))


def read_snapshot(path: Path) -> Snapshot:
    """Raises OSError where there is none, ValueError or KeyError for a file that is no snapshot."""
    data = path.read_bytes()
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
    index: dict[str, Any] = json.loads(data[_LENGTH_BYTES:end])
    blobs = {
        digest: data[end + offset : end + offset + length]
        for digest, (offset, length) in index["blobs"].items()
    }
    sets: dict[str, dict[str, str]] = index["sets"]
    return Snapshot(
        index["number"],
        {
            node: ProxyEntry(
                entry["sds"],
                {
                    name: SecretFiles(**{part: Path(file) for part, file in parts.items()})
                    for name, parts in entry["secrets"].items()
                },
                {XdsKind(kind): (version, sets[key]) for kind, (version, key) in entry["types"].items()},
            )
            for node, entry in index["proxies"].items()
        },
        blobs,
    )


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), check_circular=False).encode()
