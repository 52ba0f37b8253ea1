"""Pulling from a hostile registry, adding files that are no binaries: it ends, says why, leaves nothing."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.registry import Registry, digest_of, layer, serving

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.binaries import limits, store
from meshwise.mesh.binaries.known import parse_wanted
from meshwise.mesh.binaries.limits import Deadline
from meshwise.mesh.binaries.oci import DigestChain
from meshwise.mesh.binaries.pull import add, pull
from meshwise.mesh.binaries.store import BinaryStore
from meshwise.mesh.binaries.tar import NotTar, members

PATH = "usr/lib/linkerd/linkerd2-proxy"
TAG = "edge-26.8.3"
WANTED = parse_wanted(f"linkerd@{TAG}")
BINARY = b"\x7fELF\x02\x01\x01" + bytes(11) + struct.pack("<H", 62) + bytes(range(256)) * 40
MANIFEST = f"/v2/linkerd/proxy/manifests/{TAG}"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving(Registry()) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> BinaryStore:
    return BinaryStore(tmp_path / "cache", tmp_path / "config" / "proxies.lock.json")


def fetch(url: str, cache: BinaryStore, allowed_s: float = 60.0, silence_s: float = 30.0) -> store.Stored:
    deadline = Deadline(allowed_s, silence_s)
    return pull(WANTED, cache, "amd64", registry=url, pause_s=0, deadline=deadline)


def refused(code: str) -> pytest.RaisesExc[MeshwiseError]:
    return pytest.raises(MeshwiseError, match=code)


def left(cache: BinaryStore) -> list[Path]:
    return [path for path in cache.directory.rglob("*") if path.name not in ("index.json",)]


# --- what is said over the wire --------------------------------------------------------------------


@contextmanager
def talking(say: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads a request's first part and then does as it likes; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                say(connection)
                ended.wait(20)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def drip(first: bytes, again: bytes) -> Callable[[socket.socket], None]:
    def say(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(again)
            threading.Event().wait(0.02)

    return say


@pytest.mark.parametrize(
    "say",
    [
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        drip(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        drip(b"HTTP/1.1 ", b"2"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: x\r\n"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "header", "status", "trailers", "continue"],
)
def test_a_server_that_drips_is_left_at_the_deadline(
    say: Callable[[socket.socket], None], cache: BinaryStore
) -> None:
    """Each read gets a byte, so no time-out of a read is ever met."""
    with talking(say) as url, refused("MW815"):
        fetch(url, cache, allowed_s=0.3)
    assert left(cache) == []


def test_a_server_that_says_nothing_is_asked_again_and_then_given_up(cache: BinaryStore) -> None:
    with talking(lambda connection: None) as url, refused("MW804.*|timed out"):
        fetch(url, cache, silence_s=0.05)


@pytest.mark.parametrize("length", ["-1", "-5", "100000000000", "1e3", "²", "", "0x10"])
@pytest.mark.parametrize("chunked", [False, True])
def test_odd_lengths_are_no_traceback_and_no_flood(length: str, chunked: bool, cache: BinaryStore) -> None:
    """`-1` as the size of a chunk once meant: read everything into memory."""
    framing = (
        f"Transfer-Encoding: chunked\r\n\r\n{length}\r\n" if chunked else f"Content-Length: {length}\r\n\r\n"
    )
    body = b'{"layers": []}'

    def say(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n" + framing.encode("latin-1") + body)
        for _ in range(64):
            connection.sendall(b" " * (1 << 17))
        connection.shutdown(socket.SHUT_RDWR)

    with talking(say) as url, refused("MW80[457]"):
        fetch(url, cache)
    assert left(cache) == []


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (MANIFEST, "leads in a circle"),
        ("ftp://127.0.0.1:1/x", "leads to ftp"),
        ("file:///etc/passwd", "circle or nowhere"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://127.0.0.1:port/x", "MW803"),
    ],
)
def test_redirections_end(registry: Registry, cache: BinaryStore, location: str, said: str) -> None:
    registry.redirects[MANIFEST] = location
    with refused("MW803") as caught:
        fetch(registry.url, cache)
    assert said in str(caught.value)


def test_nobody_is_led_from_https_to_http() -> None:
    from meshwise.mesh.binaries.transfer import refuse_downgrade

    refuse_downgrade("https://a/", "https://b/")
    refuse_downgrade("http://a/", "https://b/")
    with refused("MW803"):
        refuse_downgrade("https://a/", "http://a/")


def test_a_token_server_that_asks_for_a_token_is_not_asked_for_ever(
    registry: Registry, cache: BinaryStore
) -> None:
    registry.token = "s3cret"
    registry.token_needs_token = True
    with refused("MW803"):
        fetch(registry.url, cache)
    assert len(registry.requests) < 5


@pytest.mark.parametrize("token", ["a\r\nX-More: 1", "ü", 7, {"a": 1}, ""])
def test_a_token_that_is_none(registry: Registry, cache: BinaryStore, token: object) -> None:
    registry.token = "s3cret"
    registry.gives = token
    with refused("MW803.*|it gave no token"):
        fetch(registry.url, cache)


# --- what it decodes to ----------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000, b'{"layers": ' + b"[" * 200_000])
def test_deep_json_is_named(registry: Registry, cache: BinaryStore, body: bytes) -> None:
    registry.documents[MANIFEST] = (body, "application/json")
    with refused("MW807") as caught:
        fetch(registry.url, cache)
    assert "nested too deep" in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "code"),
    [([1 << 31, 1 << 31, 1 << 31], "MW805"), ([True], "MW807"), ([1.5], "MW807"), ([-1], "MW807")],
)
def test_sizes_that_are_promised(
    registry: Registry, cache: BinaryStore, sizes: list[object], code: str
) -> None:
    layers = [{"digest": digest_of(str(size).encode()), "size": size} for size in sizes]
    registry.documents[MANIFEST] = (json.dumps({"layers": layers}).encode(), "application/json")
    with refused(code):
        fetch(registry.url, cache)


def test_a_platform_list_is_not_printed_whole(registry: Registry, cache: BinaryStore) -> None:
    entries = [{"platform": {"os": "x" * 1000, "architecture": str(number)}} for number in range(1000)]
    registry.documents[MANIFEST] = (json.dumps({"manifests": entries}).encode(), "application/json")
    with refused("MW808") as caught:
        fetch(registry.url, cache)
    assert len(str(caught.value)) < 2000


def header(name: str, size: int, kind: bytes = b"0", **more: object) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def gzip_of_zeros(first: bytes, zeros: int) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as stream:
        stream.write(first)
        for _ in range(zeros >> 20):
            stream.write(bytes(1 << 20))
    return out.getvalue()


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_header_of_600_mebibytes_is_not_read(registry: Registry, cache: BinaryStore, kind: bytes) -> None:
    registry.image("linkerd/proxy", TAG, [gzip_of_zeros(header("a", 600 << 20, kind), 600 << 20)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refused("MW807") as caught:
        fetch(registry.url, cache)
    assert "a header is larger than" in str(caught.value)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 100_000
    assert left(cache) == []


def test_what_an_archive_unpacks_to_is_bounded(
    registry: Registry, cache: BinaryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshwise.mesh.binaries.tarball.UNPACKED_BYTES", 1 << 20)
    registry.image("linkerd/proxy", TAG, [gzip_of_zeros(header("a", 64 << 20), 64 << 20)])
    with refused("MW805"):
        fetch(registry.url, cache)
    assert left(cache) == []


def read_all(archive: bytes) -> list[tuple[str, bytes]]:
    return [(member.name, member.read(1 << 20)) for member in members(io.BytesIO(archive))]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("name", ["short", "a/" * 40 + "long", "d/" * 90 + "f", "ünïcode/" + "x" * 80])
def test_names_and_contents_are_those_of_the_standard_library(form: int, name: str) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        for index, content in enumerate((b"", b"x" * 511, b"y" * 513)):
            entry = tarfile.TarInfo(f"{name}-{index}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    raw.seek(0)
    with tarfile.open(fileobj=raw) as archive:
        wanted = [(entry.name, archive.extractfile(entry).read()) for entry in archive]  # type: ignore[union-attr]
    assert read_all(raw.getvalue()) == wanted


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (header("a", 5)[:300], "ends within a header"),
        (header("a", 5) + b"12", "before its member does"),
        (b"\x01" + header("a", 0)[1:], "checksum"),
        (header("a", 0, b"S"), "sparse"),
        (header("a", 8, b"x") + padded(b"99 a=b\n"), "pax header is broken"),
        (header("a", 12, b"x") + padded(b"12 size=-9x\n") + header("b", 1), "size is not a number"),
        (header("a", 24, b"x") + padded(b"24 GNU.sparse.map=0,1,1\n"), "sparse"),
    ],
)
def test_broken_archives_are_named(archive: bytes, said: str) -> None:
    with pytest.raises(NotTar, match=said):
        read_all(archive)


def test_a_chain_of_headers_takes_no_stack() -> None:
    chain = (header("a", 5, b"L") + padded(b"name\0")) * 5000
    assert read_all(chain + header("b", 1) + padded(b"x")) == [("name", b"x")]


# --- what it leaves --------------------------------------------------------------------------------


def test_the_lock_file_vouches_for_nothing_that_was_not_kept(registry: Registry, cache: BinaryStore) -> None:
    registry.image("linkerd/proxy", TAG, [layer({PATH: b"#!/bin/sh\n"})])
    with refused("MW814"):
        fetch(registry.url, cache)
    assert not cache.lock.exists()
    registry.image("linkerd/proxy", TAG, [layer({PATH: BINARY})])
    stored = fetch(registry.url, cache)
    assert list(json.loads(cache.lock.read_text())) == [f"linkerd@{TAG}/linux-amd64"]
    assert cache.path_of(stored.digest).read_bytes() == BINARY


def test_leftovers_of_a_killed_pull_are_found_by_the_next(registry: Registry, cache: BinaryStore) -> None:
    code = (
        "import os, sys; from pathlib import Path; from meshwise.mesh.binaries.store import BinaryStore\n"
        "with BinaryStore(Path(sys.argv[1]), Path('x')).scratch() as folder:\n"
        "    (folder / 'layer').write_bytes(b'x' * 1000); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(cache.directory)], check=False)
    [folder] = cache.directory.iterdir()
    assert (folder / "layer").exists()
    with cache.scratch() as at_work:
        assert not folder.exists()
        registry.image("linkerd/proxy", TAG, [layer({PATH: BINARY})])
        fetch(registry.url, cache)
        assert at_work.exists(), "another pull's folder is not a leftover"
    assert {path.name for path in left(cache)} == {"proxy", next(cache.directory.glob("sha256-*")).name}


def test_a_folder_that_another_pull_removes_before_it_is_locked_is_made_anew(
    cache: BinaryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = tempfile.mkdtemp, list[str]()

    def removed_once(**where: Any) -> str:
        made.append(make(**where))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", removed_once)
    with cache.scratch() as folder:
        assert folder == Path(made[1])


def test_two_pulls_at_the_same_time_are_both_listed(cache: BinaryStore, tmp_path: Path) -> None:
    def one(number: int) -> None:
        mine = tmp_path / f"mine-{number}"
        mine.write_bytes(BINARY + bytes([number]))
        add(mine, parse_wanted(f"linkerd@v{number}"), cache, "amd64")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.version for entry in cache.entries()) == [f"v{number}" for number in range(8)]


ENTRY = dict.fromkeys((field.name for field in dataclasses.fields(store.Stored)), "x")


@pytest.mark.parametrize(
    "content",
    [
        "not json", "[]", "[" * 100_000,
        '{"proxies": 3}', '{"proxies": [3]}', '{"proxies": [{"proxy": "a"}]}',
        json.dumps({"proxies": [{**ENTRY, "digest": "sha256:../../../../etc"}]}),
        json.dumps({"proxies": [{**ENTRY, "digest": digest_of(b""), "more": "x"}]}),
        json.dumps({"proxies": [{**ENTRY, "digest": digest_of(b""), "source": 3}]}),
    ],
)  # fmt: skip
def test_a_damaged_index_names_itself_before_anything_is_downloaded(
    registry: Registry, cache: BinaryStore, content: str
) -> None:
    cache.directory.mkdir(parents=True)
    (cache.directory / "index.json").write_text(content)
    for action in (cache.entries, lambda: fetch(registry.url, cache), lambda: cache.find("linkerd")):
        with refused("MW812") as caught:
            action()
        assert caught.value.where == str(cache.directory / "index.json")
    assert registry.requests == []


def test_a_list_that_is_no_file_is_named_and_waited_for_by_nobody(cache: BinaryStore) -> None:
    chain = DigestChain(index="", manifest="", layer="", file="")
    for path, action in (
        (cache.index, cache.entries),
        (cache.lock, lambda: cache.check_lock(WANTED, "amd64", chain)),
    ):
        path.parent.mkdir(parents=True)
        os.mkfifo(path)
        with refused("MW812") as caught:
            action()
        assert (caught.value.where, "not a regular file" in caught.value.what) == (str(path), True)


@pytest.mark.parametrize("aside", [".index.json.new", "index.json.aside"])
def test_lists_are_written_through_no_link_that_waits(cache: BinaryStore, tmp_path: Path, aside: str) -> None:
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / "proxy").write_bytes(BINARY)
    cache.directory.mkdir(parents=True)
    (cache.directory / aside).symlink_to(tmp_path / "theirs")
    add(tmp_path / "proxy", WANTED, cache, "amd64")
    assert (tmp_path / "theirs").read_text() == "precious"
    assert not cache.index.is_symlink()
    assert [entry.version for entry in cache.entries()] == [TAG]


def test_a_folder_that_waits_for_a_binary_and_leads_elsewhere_is_refused(
    cache: BinaryStore, tmp_path: Path
) -> None:
    (tmp_path / "proxy").write_bytes(BINARY)
    (tmp_path / "theirs").mkdir()
    cache.directory.mkdir(parents=True)
    cache.path_of(digest_of(BINARY)).parent.symlink_to(tmp_path / "theirs")
    with refused("MW816"):
        add(tmp_path / "proxy", WANTED, cache, "amd64")
    assert list((tmp_path / "theirs").iterdir()) == []


def _flipped(place: Path) -> None:
    place.write_bytes(BINARY[:-1] + b"?")


def _linked(place: Path) -> None:
    place.rename(place.with_name("elsewhere"))
    place.symlink_to("elsewhere")


def _fifo(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


@pytest.mark.parametrize("change", [_flipped, _linked, _fifo])
def test_a_binary_that_is_not_what_was_kept_is_not_used(
    cache: BinaryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (tmp_path / "proxy").write_bytes(BINARY)
    stored = add(tmp_path / "proxy", WANTED, cache, "amd64")
    assert cache.find("linkerd") == cache.path_of(stored.digest)
    change(cache.path_of(stored.digest))
    with refused("MW817") as caught:
        cache.find("linkerd")
    assert f"{cache.path_of(stored.digest)} is not what was kept as linkerd@{TAG}" in caught.value.what
    add(tmp_path / "proxy", WANTED, cache, "amd64")  # the remedy
    assert cache.find("linkerd") == cache.path_of(stored.digest)
    change(cache.path_of(stored.digest))
    assert [intact for _, intact in cache.verify()] == [False]


def test_what_is_no_binary_is_not_added(
    cache: BinaryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    huge = tmp_path / "huge"
    huge.write_bytes(BINARY)
    os.truncate(huge, limits.BINARY_BYTES + 1)
    (tmp_path / "text").write_text("#!/bin/sh\n")
    for name, said in {
        "fifo": "it is not a regular file",
        "directory": "it is not a regular file",
        "huge": f"it has {limits.BINARY_BYTES + 1} bytes",
        "text": "it is not an ELF file",
        "absent": "No such file",
    }.items():
        with refused("MW814") as caught:
            add(tmp_path / name, WANTED, cache, "amd64")
        assert said in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)
    with refused("MW814"):
        add(Path("/dev/zero"), WANTED, cache, "amd64")
    assert left(cache) == []


def test_a_cache_that_cannot_be_written_is_not_taken_for_a_broken_network(
    registry: Registry, cache: BinaryStore
) -> None:
    cache.directory.parent.mkdir(exist_ok=True)
    cache.directory.write_text("a file where the cache should be")
    with refused("MW816"):
        pull(WANTED, BinaryStore(cache.directory / "below", cache.lock), "amd64", registry=registry.url)
    assert registry.requests == []


def test_a_layer_that_is_longer_than_the_manifest_says(registry: Registry, cache: BinaryStore) -> None:
    content = layer({PATH: BINARY})
    entry = {"digest": digest_of(content), "size": len(content) - 1}
    registry.documents[MANIFEST] = (json.dumps({"layers": [entry]}).encode(), "application/json")
    registry.documents[f"/v2/linkerd/proxy/blobs/{entry['digest']}"] = (content, "a/b")
    with refused("MW805"):
        fetch(registry.url, cache)
    assert left(cache) == []
