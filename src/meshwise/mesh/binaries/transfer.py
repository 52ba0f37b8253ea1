"""HTTP for downloads: streamed to a file, hashed on the way, resumed where a connection broke.

urllib on purpose: it honours HTTPS_PROXY and NO_PROXY, follows redirects, and adds no dependency. The OCI
clients on PyPI were considered; none hashes while it streams and resumes with a range request.

Rules: nothing is trusted before its SHA-256 matched; a file appears under its name only after that; every
answer has a size limit, and all of them together a deadline that holds within one read too; credentials go
only to the host that asked for them; no redirect leads from https to anything else.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from meshwise.core import messages
from meshwise.mesh.binaries.limits import DOCUMENT_BYTES, LAYER_BYTES, Deadline, parse_json

T = TypeVar("T")

ATTEMPTS = 5
CHUNK_BYTES = 1 << 18

Progress = Callable[[int, int | None], None]
"""`progress(received_bytes, total_bytes or None)`."""


# --- urllib, with a deadline -----------------------------------------------------------------------


class _UntilDeadline(io.RawIOBase):
    """The reading side of a socket. urllib's time-out is of each read, so a server that sends byte by byte
    never reaches it."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, deadline: Deadline, where: str) -> None:
        self._raw, self._connection, self._deadline, self._where = raw, connection, deadline, where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(self._deadline.wait_s(self._where))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *words: Any, deadline: Deadline, where: str, **more: Any) -> None:
        super().__init__(sock, *words, **more)
        self.fp = io.BufferedReader(_UntilDeadline(self.fp.detach(), sock, deadline, where))


class _Http(urllib.request.HTTPHandler):
    """Both schemes, with answers that are read until the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connection, http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connection, http.client.HTTPSConnection), req)

    https_request = urllib.request.HTTPHandler.http_request

    def _connection(self, kind: type[http.client.HTTPConnection], host: str, **options: Any) -> Any:
        made: Any = kind(host, **options)
        made.response_class = partial(_Answer, deadline=self._deadline, where=host)
        return made


class _NoCredentialsAcrossHosts(urllib.request.HTTPRedirectHandler):
    """Registries redirect blobs to a storage host, which must not see the registry's token."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        refuse_downgrade(req.full_url, newurl)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and _origin(newurl) != _origin(req.full_url):
            following.remove_header("Authorization")
        return following


def refuse_downgrade(asked: str, led_to: str) -> None:
    """Raises MW803 where an https address leads to another scheme, or any to one that is not http(s)."""
    before, after = urllib.parse.urlsplit(asked).scheme, urllib.parse.urlsplit(led_to).scheme
    if after not in ("http", "https") or (before == "https" and after != "https"):
        raise messages.DOWNLOAD_REFUSED.error(
            where=asked or led_to, status=f"it leads to {after or 'nothing with a scheme'}"
        )


def _opener(deadline: Deadline) -> urllib.request.OpenerDirector:
    """Only what a download needs: no ftp, no files."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(deadline),
        _NoCredentialsAcrossHosts(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


# --- a session -------------------------------------------------------------------------------------


@dataclass
class Session:
    """Requests to one registry or release host; remembers the anonymous token that it was given."""

    pause_s: float = 1.0
    """First pause between attempts; doubles each time."""
    deadline: Deadline = field(default_factory=Deadline)
    answers_challenges: bool = True
    """The request for a token is sent without one."""
    token: str | None = None

    def document(self, url: str, accept: str, limit_bytes: int = DOCUMENT_BYTES) -> tuple[bytes, str]:
        """A small answer and its content type. Raises MW803 to MW805, MW815."""

        def read() -> tuple[bytes, str]:
            with self._open(url, {"Accept": accept}) as answer:
                body = bytearray()
                for chunk in _chunks(answer):
                    body += chunk
                    if len(body) > limit_bytes:
                        raise messages.DOWNLOAD_TOO_LARGE.error(where=url, limit=limit_bytes)
                return bytes(body), answer.headers.get_content_type()

        return self._persist(url, read)

    def file(self, url: str, target: Path, digest: str, size_bytes: int | None, progress: Progress) -> None:
        """Stream `url` to `target`, whose SHA-256 must be `digest` (`sha256:<hex>`).

        A broken connection resumes where it ended. Raises MW803 to MW806, MW815, MW816; `target` then does
        not exist.
        """
        if size_bytes is not None and size_bytes > LAYER_BYTES:
            raise messages.DOWNLOAD_TOO_LARGE.error(where=url, limit=LAYER_BYTES)
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
            total = size_bytes if answer.length is None else have + answer.length
            limit = LAYER_BYTES if size_bytes is None else size_bytes
            if total is not None and total > limit:
                raise messages.DOWNLOAD_TOO_LARGE.error(where=url, limit=limit)
            with own_files(partial):
                out = partial.open("ab" if resumed else "wb", buffering=0)
            with out:
                for chunk in _chunks(answer):
                    have += len(chunk)
                    if have > limit:
                        raise messages.DOWNLOAD_TOO_LARGE.error(where=url, limit=limit)
                    with own_files(partial):
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
                    raise messages.DOWNLOAD_REFUSED.error(where=url, status=_words(error)) from error
                reason: Exception = error
            except http.client.InvalidURL as error:
                raise messages.DOWNLOAD_REFUSED.error(where=url, status=error) from error
            except (OSError, http.client.HTTPException) as error:
                reason = error
            except ValueError as error:  # an address with a port or a host that is none
                raise messages.DOWNLOAD_REFUSED.error(where=url, status=error) from error
            if number + 1 < ATTEMPTS:
                self.deadline.pause(pause_s, url)
                pause_s *= 2
        raise messages.DOWNLOAD_UNREACHABLE.error(
            where=url, reason=str(reason), attempts=ATTEMPTS
        ) from reason

    def _open(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        refuse_downgrade("", url)
        authorization = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        request = urllib.request.Request(url, headers={**headers, **authorization})
        try:
            answer = _opener(self.deadline).open(request, timeout=self.deadline.wait_s(url))
        except urllib.error.HTTPError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            asks = error.code == http.HTTPStatus.UNAUTHORIZED and challenge.startswith("Bearer ")
            error.close()
            if not asks or self.token or not self.answers_challenges:
                raise
            self.token = self._anonymous_token(url, challenge)
            return self._open(url, headers)
        if not isinstance(answer, http.client.HTTPResponse):
            raise messages.DOWNLOAD_REFUSED.error(where=url, status="no HTTP answer")
        return answer

    def _anonymous_token(self, url: str, challenge: str) -> str:
        """The token flow of distribution/distribution (docs/spec/auth/token.md), without credentials."""
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = fields.pop("realm", "")
        refuse_downgrade(url, realm)
        query = urllib.parse.urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
        session = Session(self.pause_s, self.deadline, answers_challenges=False)
        body, _ = session.document(f"{realm}?{query}", "application/json")
        try:
            answer = parse_json(body, "its answer")
        except ValueError as error:
            raise messages.DOWNLOAD_REFUSED.error(where=realm, status=error) from error
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise messages.DOWNLOAD_REFUSED.error(where=realm, status="it gave no token")
        return token


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes, to the length that was said: the other side may leave the connection open.

    `read1`, because `read` of a chunked body accepts a negative chunk size and reads without bound.
    """
    left = answer.length
    while left is None or left > 0:
        chunk = answer.read1(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
        if not chunk:
            return
        yield chunk
        left = None if left is None else left - len(chunk)


@contextmanager
def own_files(place: Path) -> Iterator[None]:
    """Around what is done to files of the cache, so that a full disk is not taken for a broken network."""
    try:
        yield
    except OSError as error:
        raise messages.CACHE_UNWRITABLE.error(where=str(place), reason=error.strerror or error) from error


def _words(error: urllib.error.HTTPError) -> str:
    """urllib says of a redirection that it does not follow what it is, on several lines."""
    redirected = error.code in range(300, 400)
    return f"{error.code}, a redirection that leads in a circle or nowhere" if redirected else str(error.code)


def sha256_of(path: Path) -> str:
    """`sha256:<hex>` of a file."""
    with path.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def sha256_of_bytes(content: bytes) -> str:
    """`sha256:<hex>` of bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
