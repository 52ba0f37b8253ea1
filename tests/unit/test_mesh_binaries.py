"""Pulling proxies: the whole digest chain against a registry on loopback, correct, broken and hostile."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.registry import Registry, layer, serving

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.binaries.known import LATEST_KNOWN, image_of, parse_wanted, release_of
from meshwise.mesh.binaries.pull import add, pull
from meshwise.mesh.binaries.store import BinaryStore, Stored, locate

REPOSITORY = "linkerd/proxy"
PATH = "usr/lib/linkerd/linkerd2-proxy"
TAG = "edge-26.8.3"
ELF_AMD64 = b"\x7fELF\x02\x01\x01" + bytes(11) + struct.pack("<H", 62)
BINARY = ELF_AMD64 + bytes(range(256)) * 400


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving(Registry()) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> BinaryStore:
    return BinaryStore(tmp_path / "cache", tmp_path / "config" / "proxies.lock.json")


def fetch(
    registry: Registry, store: BinaryStore, digest: str | None = None, name: str = f"linkerd@{TAG}"
) -> Stored:
    return pull(parse_wanted(name), store, "amd64", digest=digest, registry=registry.url, pause_s=0)


def refused(code: str) -> pytest.RaisesExc[MeshwiseError]:
    return pytest.raises(MeshwiseError, match=code)


def nothing_left(store: BinaryStore) -> bool:
    return not any(path.is_file() for path in store.directory.rglob("*"))


def test_pull_stores_the_file_of_the_image_and_writes_the_lock(
    registry: Registry, store: BinaryStore
) -> None:
    index = registry.image(
        REPOSITORY, TAG, [layer({"etc/os": b"x"}), layer({PATH: BINARY}), layer({"a": b"b"})]
    )
    stored = fetch(registry, store, digest=index)
    place = store.path_of(stored.digest)
    assert place.read_bytes() == BINARY
    assert place.stat().st_mode & 0o777 == 0o755
    pin = json.loads(store.lock.read_text())[f"linkerd@{TAG}/linux-amd64"]
    assert pin["index"] == index
    assert pin["file"] == f"sha256:{hashlib.sha256(BINARY).hexdigest()}"
    assert [entry.version for entry in store.entries()] == [TAG]
    assert all(intact for _, intact in store.verify())


def test_an_image_without_an_index_and_a_token_flow(registry: Registry, store: BinaryStore) -> None:
    registry.token = "s3cret"
    registry.image(REPOSITORY, TAG, [layer({PATH: BINARY})], index=False)
    assert store.path_of(fetch(registry, store).digest).read_bytes() == BINARY


def test_a_mirror_prefix_is_part_of_the_repository(registry: Registry, store: BinaryStore) -> None:
    registry.image(f"mirror/{REPOSITORY}", TAG, [layer({PATH: BINARY})])
    stored = pull(
        parse_wanted(f"linkerd@{TAG}"), store, "amd64", registry=f"{registry.url}/mirror", pause_s=0
    )
    assert stored.source == f"{registry.url}/mirror/{REPOSITORY}:{TAG}"


def test_a_broken_connection_resumes_where_it_ended(registry: Registry, store: BinaryStore) -> None:
    registry.image(REPOSITORY, TAG, [layer({PATH: BINARY})])
    registry.cut_after_bytes = 100
    registry.fail_first = 2
    assert store.path_of(fetch(registry, store).digest).read_bytes() == BINARY
    assert sum("/blobs/" in path for path in registry.requests) == 2


def test_a_truncated_layer_is_refused(registry: Registry, store: BinaryStore) -> None:
    registry.image(REPOSITORY, TAG, [layer({PATH: BINARY})])
    blob = next(path for path in registry.documents if "/blobs/" in path)
    registry.documents[blob] = (registry.documents[blob][0][:-20], "application/octet-stream")
    with refused("MW806"):
        fetch(registry, store)
    assert nothing_left(store)


@pytest.mark.parametrize("kind", ["/blobs/", "/manifests/sha256"])
def test_altered_content_is_refused(registry: Registry, store: BinaryStore, kind: str) -> None:
    registry.image(REPOSITORY, TAG, [layer({PATH: BINARY})])
    for path, (content, media_type) in list(registry.documents.items()):
        if kind in path:
            registry.documents[path] = (content + b" ", media_type)
    with refused("MW80[56]"):
        fetch(registry, store)
    assert nothing_left(store)


def test_a_digest_of_the_user_that_the_registry_does_not_serve(
    registry: Registry, store: BinaryStore
) -> None:
    registry.image(REPOSITORY, TAG, [layer({PATH: BINARY})])
    other = "sha256:" + "0" * 64
    registry.documents[f"/v2/{REPOSITORY}/manifests/{other}"] = registry.documents[
        f"/v2/{REPOSITORY}/manifests/{TAG}"
    ]
    with refused("MW806"):
        fetch(registry, store, digest=other)
    with refused("MW813"):
        fetch(registry, store, digest="sha256:short")


def test_a_moved_tag_is_refused_by_the_lock(registry: Registry, store: BinaryStore) -> None:
    registry.image(REPOSITORY, TAG, [layer({PATH: BINARY})])
    fetch(registry, store)
    registry.image(REPOSITORY, TAG, [layer({PATH: BINARY + b"evil"})])
    with refused("MW809"):
        fetch(registry, store)
    assert [path.read_bytes() for path in store.directory.rglob("proxy")] == [BINARY]


def test_hostile_members_write_nothing_outside(
    registry: Registry, store: BinaryStore, tmp_path: Path
) -> None:
    hostile = layer({f"../../../../{tmp_path}/evil": b"x", "/etc/evil": b"x"}, links={PATH: "/etc/passwd"})
    registry.image(REPOSITORY, TAG, [hostile])
    with refused("MW802"):
        fetch(registry, store)
    assert not (tmp_path / "evil").exists()
    assert nothing_left(store)


def test_a_whiteout_hides_the_layers_below(registry: Registry, store: BinaryStore) -> None:
    registry.image(REPOSITORY, TAG, [layer({PATH: BINARY}), layer({"usr/lib/.wh.linkerd": b""})])
    with refused("MW802"):
        fetch(registry, store)


def test_a_binary_for_another_machine_is_refused(registry: Registry, store: BinaryStore) -> None:
    registry.image(REPOSITORY, TAG, [layer({PATH: ELF_AMD64[:18] + struct.pack("<H", 183) + bytes(40)})])
    with refused("MW810.*|aarch64"):
        fetch(registry, store)
    registry.image(REPOSITORY, TAG, [layer({PATH: b"#!/bin/sh\necho no proxy\n"})])
    assert not store.lock.exists()
    with refused("MW814"):
        fetch(registry, store)


@pytest.mark.parametrize(
    "body",
    [b"not json", b"[]", b"{}", b'{"manifests": 3}', b'{"layers": []}', b'{"layers": [{"digest": "md5:1"}]}'],
)
def test_junk_manifests_are_named(registry: Registry, store: BinaryStore, body: bytes) -> None:
    registry.documents[f"/v2/{REPOSITORY}/manifests/{TAG}"] = (body, "application/json")
    with refused("MW80[78]"):
        fetch(registry, store)


def test_absent_platform_names_those_there(registry: Registry, store: BinaryStore) -> None:
    registry.image(REPOSITORY, TAG, [layer({PATH: BINARY})], architecture="s390x")
    with pytest.raises(MeshwiseError, match="linux/s390x"):
        fetch(registry, store)


def test_unknown_tag_and_unreachable_registry(registry: Registry, store: BinaryStore) -> None:
    with refused("MW803"):
        fetch(registry, store)
    with refused("MW804"):
        pull(parse_wanted("linkerd"), store, "amd64", registry="http://127.0.0.1:1", pause_s=0)


def _release(registry: Registry, version: str, archive: bytes, checksum: str) -> None:
    base = f"/release%2F{version}/linkerd2-proxy-{version}-linux-amd64"
    registry.documents[f"{base}.tar.gz"] = (archive, "application/gzip")
    registry.documents[f"{base}.txt"] = (f"{checksum}  file\n".encode(), "text/plain")


def test_a_release_archive_is_checked_by_its_own_checksum(registry: Registry, store: BinaryStore) -> None:
    archive = layer({"linkerd2-proxy-v2.366.0-linux-amd64/linkerd2-proxy": BINARY})
    _release(registry, "v2.366.0", archive, hashlib.sha256(archive).hexdigest())
    wanted = parse_wanted("linkerd@v2.366.0")
    stored = pull(wanted, store, "amd64", release_base=registry.url, pause_s=0)
    assert store.path_of(stored.digest).read_bytes() == BINARY
    _release(registry, "v2.366.1", archive, "0" * 64)
    with refused("MW806"):
        pull(parse_wanted("linkerd@v2.366.1"), store, "amd64", release_base=registry.url, pause_s=0)


def test_an_uncompressed_layer_is_read(registry: Registry, store: BinaryStore) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        entry = tarfile.TarInfo(f"./{PATH}")
        entry.size = len(BINARY)
        archive.addfile(entry, io.BytesIO(BINARY))
    registry.image(REPOSITORY, TAG, [raw.getvalue()])
    assert store.path_of(fetch(registry, store).digest).read_bytes() == BINARY


def test_add_keeps_a_binary_and_verify_sees_a_change(store: BinaryStore, tmp_path: Path) -> None:
    mine = tmp_path / "linkerd2-proxy"
    mine.write_bytes(BINARY)
    stored = add(mine, parse_wanted("linkerd@mine"), store, "amd64")
    store.path_of(stored.digest).write_bytes(b"changed")
    assert [intact for _, intact in store.verify()] == [False]


def test_locate_prefers_the_environment(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "MESHWISE_LINKERD_PROXY": "/somewhere/linkerd2-proxy"}
    assert locate("linkerd", environment) == Path("/somewhere/linkerd2-proxy")
    assert locate("linkerd", {"HOME": str(tmp_path)}) is None


def test_locate_takes_the_version_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    environment = {"HOME": str(tmp_path)}
    store = BinaryStore.of_user(environment)
    mine = tmp_path / "envoy"
    places = {}
    for version in ("1.29.6", "1.30.3"):
        mine.write_bytes(BINARY + version.encode())
        stored = store.keep(mine, parse_wanted(f"istio@{version}"), "amd64", "a test")
        places[version] = store.path_of(stored.digest)
    assert locate("istio", environment) == places["1.30.3"]
    assert locate("istio", {**environment, "MESHWISE_ENVOY": "istio@1.29.6"}) == places["1.29.6"]
    assert locate("istio", {**environment, "MESHWISE_ENVOY": "istio@1.28.0"}) is None


def test_a_control_plane_is_in_an_image_of_its_own() -> None:
    """Sources: pilot/docker/Dockerfile.pilot and Dockerfile.proxyv2 of Istio."""
    images = [image_of(parse_wanted(f"{name}@1.30.3"), None) for name in ("istio", "istiod")]
    assert [(each.repository, each.tag, each.path) for each in images] == [
        ("istio/proxyv2", "1.30.3", "usr/local/bin/envoy"),
        ("istio/pilot", "1.30.3", "usr/local/bin/pilot-discovery"),
    ]
    assert release_of(parse_wanted("istiod@1.30.3"), "amd64", None) is None


def test_names() -> None:
    assert (
        parse_wanted("istio").version == parse_wanted("istio@latest-known").version == LATEST_KNOWN["istio"]
    )
    for text in ("nginx@1", "linkerd@", "linkerd@../../etc", "linkerd@a b"):
        with refused("MW801"):
            parse_wanted(text)
