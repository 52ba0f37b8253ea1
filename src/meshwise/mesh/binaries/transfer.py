"""HTTP for downloads: streamed to a file, hashed on the way, resumed where a connection broke.

urllib on purpose: it honours HTTPS_PROXY and NO_PROXY, follows redirects, and adds no dependency. The OCI
clients on PyPI were considered; none hashes while it streams and resumes with a range request.

Laws: nothing is trusted before its SHA-256 matched; a file appears under its name only after that; every
answer has a size limit; credentials go only to the host that asked for them.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from meshwise.core import messages

T = TypeVar("T")

ATTEMPTS = 5
CHUNK_BYTES = 1 << 18
MANIFEST_LIMIT_BYTES = 4 << 20
LAYER_LIMIT_BYTES = 2 << 30
TIMEOUT_S = 30.0

Progress = Callable[[int, int | None], None]
"""`progress(received_bytes, total_bytes or None)`."""


class _NoCredentialsAcrossHosts(urllib.request.HTTPRedirectHandler):
    """Registries redirect blobs to a storage host, which must not see the registry's token."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and _origin(newurl) != _origin(req.full_url):
            following.remove_header("Authorization")
        return following


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


@dataclass
class Session:
    """Requests to one registry or release host; remembers the anonymous token that it was given."""

    pause_s: float = 1.0
    """First pause between attempts; doubles each time."""
    token: str | None = None

    def document(self, url: str, accept: str, limit_bytes: int = MANIFEST_LIMIT_BYTES) -> tuple[bytes, str]:
        """A small answer and its content type. Raises MW803 to MW805."""

        def read() -> tuple[bytes, str]:
            with self._open(url, {"Accept": accept}) as answer:
                body: bytes = answer.read(limit_bytes + 1)
                if len(body) > limit_bytes:
                    raise messages.DOWNLOAD_TOO_LARGE.error(where=url, limit=limit_bytes)
                return body, answer.headers.get_content_type()

        return self._persist(url, read)

    def file(self, url: str, target: Path, digest: str, size_bytes: int | None, progress: Progress) -> None:
        """Stream `url` to `target`, whose SHA-256 must be `digest` (`sha256:<hex>`).

        A broken connection resumes where it ended. Raises MW803 to MW806; `target` then does not exist.
        """
        if size_bytes is not None and size_bytes > LAYER_LIMIT_BYTES:
            raise messages.DOWNLOAD_TOO_LARGE.error(where=url, limit=LAYER_LIMIT_BYTES)
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            self._persist(url, lambda: self._append(url, partial, size_bytes, progress))
            found = sha256_of(partial)
            if found != digest:
                raise messages.DIGEST_MISMATCH.error(where=url, expected=digest, found=found)
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)

    def _append(self, url: str, partial: Path, size_bytes: int | None, progress: Progress) -> None:
        have = partial.stat().st_size if partial.exists() else 0
        if size_bytes is not None and have >= size_bytes:
            return
        with self._open(url, {"Range": f"bytes={have}-"} if have else {}) as answer:
            resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
            if not resumed:
                have = 0
            expected = answer.headers.get("Content-Length")
            total = have + int(expected) if expected and expected.isdigit() else size_bytes
            limit = min(total or LAYER_LIMIT_BYTES, LAYER_LIMIT_BYTES)
            with partial.open("ab" if resumed else "wb") as out:
                while chunk := answer.read(CHUNK_BYTES):
                    have += len(chunk)
                    if have > limit:
                        raise messages.DOWNLOAD_TOO_LARGE.error(where=url, limit=limit)
                    out.write(chunk)
                    progress(have, total)
        if total is not None and have < total:
            raise ConnectionError(f"the answer ended after {have} of {total} bytes")

    def _persist(self, url: str, attempt: Callable[[], T]) -> T:
        pause_s = self.pause_s
        for number in range(ATTEMPTS):
            try:
                return attempt()
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
                    raise messages.DOWNLOAD_REFUSED.error(where=url, status=error.code) from error
                reason: Exception = error
            except (OSError, http.client.HTTPException) as error:
                reason = error
            if number + 1 < ATTEMPTS:
                time.sleep(pause_s)
                pause_s *= 2
        raise messages.DOWNLOAD_UNREACHABLE.error(
            where=url, reason=str(reason), attempts=ATTEMPTS
        ) from reason

    def _open(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise messages.DOWNLOAD_REFUSED.error(where=url, status="not an http(s) address")
        opener = urllib.request.build_opener(_NoCredentialsAcrossHosts)
        authorization = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            answer = opener.open(
                urllib.request.Request(url, headers={**headers, **authorization}), timeout=TIMEOUT_S
            )
        except urllib.error.HTTPError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            if (
                error.code != http.HTTPStatus.UNAUTHORIZED
                or self.token
                or not challenge.startswith("Bearer ")
            ):
                raise
            self.token = self._anonymous_token(challenge)
            return self._open(url, headers)
        if not isinstance(answer, http.client.HTTPResponse):
            raise messages.DOWNLOAD_REFUSED.error(where=url, status="no HTTP answer")
        return answer

    def _anonymous_token(self, challenge: str) -> str:
        """The token flow of distribution/distribution (docs/spec/auth/token.md), without credentials."""
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = fields.pop("realm", "")
        query = urllib.parse.urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
        body, _ = Session(self.pause_s).document(f"{realm}?{query}", "application/json")
        try:
            answer = json.loads(body)
            return str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise messages.DOWNLOAD_REFUSED.error(where=realm, status="it gave no token") from error


def sha256_of(path: Path) -> str:
    """`sha256:<hex>` of a file."""
    with path.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def sha256_of_bytes(content: bytes) -> str:
    """`sha256:<hex>` of bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
