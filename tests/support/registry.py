"""A registry that speaks the distribution API on loopback, and misbehaves on request."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OCI = "application/vnd.oci.image"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A gzip layer with regular files and symbolic links, names taken as they are."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return gzip.compress(raw.getvalue(), mtime=0)


@dataclass
class Registry:
    """Contents by path below the host, and what to do wrong."""

    documents: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    cut_after_bytes: int | None = None
    """Break every blob's connection once after this many bytes."""
    token: str | None = None
    """Demand this bearer token, given out at /token."""
    gives: object = None
    """What /token gives out instead."""
    token_needs_token: bool = False
    """/token asks for a token as well."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Path -> Location."""
    fail_first: int = 0
    """Answer 503 this many times."""
    requests: list[str] = field(default_factory=list)
    url: str = ""
    _cut: set[str] = field(default_factory=set)

    def image(
        self, repository: str, tag: str, layers: list[bytes], architecture: str = "amd64", index: bool = True
    ) -> str:
        """Publish an image; the digest of what the tag names."""
        entries = []
        for content in layers:
            digest = digest_of(content)
            self.documents[f"/v2/{repository}/blobs/{digest}"] = (content, "application/octet-stream")
            entries.append({"mediaType": f"{OCI}.layer.v1.tar+gzip", "digest": digest, "size": len(content)})
        manifest = self._publish(
            repository, {"layers": entries}, f"{OCI}.manifest.v1+json", None if index else tag
        )
        if not index:
            return manifest[0]
        platform = {"os": "linux", "architecture": architecture}
        entry = {"digest": manifest[0], "size": manifest[1], "platform": platform}
        return self._publish(repository, {"manifests": [entry]}, f"{OCI}.index.v1+json", tag)[0]

    def _publish(
        self, repository: str, body: dict[str, Any], media_type: str, tag: str | None
    ) -> tuple[str, int]:
        content = json.dumps({"schemaVersion": 2, "mediaType": media_type, **body}).encode()
        digest = digest_of(content)
        for name in filter(None, (tag, digest)):
            self.documents[f"/v2/{repository}/manifests/{name}"] = (content, media_type)
        return digest, len(content)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path)
        if handler.path in self.redirects:
            return _send(handler, 302, b"", "text/plain", {"Location": self.redirects[handler.path]})
        if handler.path.startswith("/token") and not self.token_needs_token:
            given = self.token if self.gives is None else self.gives
            return _send(handler, 200, json.dumps({"token": given}).encode(), "application/json")
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="{self.url}/token",service="test",scope="pull"'
            return _send(handler, 401, b"", "text/plain", {"WWW-Authenticate": challenge})
        if self.fail_first:
            self.fail_first -= 1
            return _send(handler, 503, b"", "text/plain")
        if handler.path not in self.documents:
            return _send(handler, 404, b"", "text/plain")
        content, media_type = self.documents[handler.path]
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        if self.cut_after_bytes is not None and "/blobs/" in handler.path and handler.path not in self._cut:
            self._cut.add(handler.path)
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[: self.cut_after_bytes])
            handler.close_connection = True
            return None
        return _send(handler, 206 if start else 200, content[start:], media_type)


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    media_type: str,
    headers: dict[str, str] | None = None,
) -> None:
    handler.send_response(status)
    for name, value in {
        "Content-Type": media_type,
        "Content-Length": str(len(body)),
        **(headers or {}),
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def serving(registry: Registry) -> Iterator[Registry]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
