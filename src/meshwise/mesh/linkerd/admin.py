"""A proxy's administration port, asked from inside its pod, and its metrics, read as values.

Paths and metrics: linkerd2-proxy `linkerd/app/admin/src/server.rs`, `linkerd/http/metrics`,
`linkerd/transport-metrics`, `linkerd/app/inbound/src/metrics/authz.rs`. The text is Prometheus' own format.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from meshwise.core import messages
from meshwise.mesh.linkerd.names import ADMIN_PORT
from meshwise.mesh.seam import Dial

_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True)
class Series:
    """One line of metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


class Admin:
    """One kept connection to one proxy; a context manager. Raises MW406 when the proxy does not answer."""

    def __init__(self, pod: str, dial: Dial) -> None:
        self.pod = pod
        self._dial = dial
        self._client: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def metrics(self, names: Collection[str]) -> tuple[Series, ...]:
        """The series of these names."""
        return parse(self.get("/metrics"), names)

    def get(self, path: str) -> str:
        """The body of a 200 answer."""
        try:
            status, body = self._ask(path)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise messages.ADMIN_SILENT.error(pod=self.pod, reason=str(error) or repr(error)) from error
        if status != 200:
            self.close()
            raise messages.ADMIN_SILENT.error(pod=self.pod, reason=f"{path} answered {status}")
        return body

    def _ask(self, path: str) -> tuple[int, str]:
        """A kept connection may have been closed since: then a fresh one is tried, once."""
        if self._client is not None:
            try:
                return _exchange(self._client, path)
            except (OSError, http.client.HTTPException):
                self.close()
        self._client = http.client.HTTPConnection("localhost", ADMIN_PORT)
        self._client.sock = self._dial(self.pod, "127.0.0.1", ADMIN_PORT)
        return _exchange(self._client, path)


def _exchange(client: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    client.request("GET", path)
    response = client.getresponse()
    return response.status, response.read().decode()


def parse(text: str, names: Collection[str]) -> tuple[Series, ...]:
    """The series of these names in Prometheus' text format; anything else is passed over unread."""
    found = []
    for line in text.splitlines():
        end = line.find("{")
        name = line[:end] if end >= 0 else line.partition(" ")[0]
        if name not in names:
            continue
        labels, _, value = line[end:].rpartition(" ") if end >= 0 else ("", "", line.rpartition(" ")[2])
        found.append(Series(name, dict(_labels(labels)), float(value)))
    return tuple(found)


def _labels(text: str) -> Iterable[tuple[str, str]]:
    for name, value in _LABEL.findall(text):
        yield name, re.sub(r'\\[\\"n]', lambda match: _ESCAPED[match[0]], value) if "\\" in value else value


def total(series: Iterable[Series], name: str, **labels: str) -> float:
    """The sum of all series of this name with these labels (and any others)."""
    return sum(each.value for each in series if each.name == name and labels.items() <= each.labels.items())


def grown(before: Iterable[Series], after: Iterable[Series]) -> tuple[Series, ...]:
    """What was counted between two readings; only what moved."""
    former = {_key(each): each.value for each in before}
    return tuple(
        Series(each.name, each.labels, each.value - former.get(_key(each), 0.0))
        for each in after
        if each.value != former.get(_key(each), 0.0)
    )


def _key(series: Series) -> tuple[str, frozenset[tuple[str, str]]]:
    return series.name, frozenset(series.labels.items())
