"""A proxy's administration interface, asked from inside its pod (Envoy docs: operations/admin)."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.bootstrap import ADMIN_PORT
from meshwise.mesh.seam import Dial
from meshwise.telemetry.envoy import Fetch

Stats = Mapping[str, int | str]
"""Counter, gauge or text by full name."""


_PATIENCE_S = 10.0
"""The main thread that answers is the one that takes up a configuration; a long one keeps it busy."""


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

    def get(self, path: str) -> bytes:
        """The body of a 200 answer. A kept connection that has gone is dialled anew, once: a question changes
        nothing, so it may be asked again."""
        kept = self._client is not None
        try:
            try:
                status, body = self._ask(path)
            except (ConnectionError, http.client.BadStatusLine):
                if not kept:
                    raise
                self.close()
                status, body = self._ask(path)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise messages.ADMIN_SILENT.error(pod=self.pod, reason=str(error) or repr(error)) from error
        if status != 200:
            self.close()
            raise messages.ADMIN_SILENT.error(pod=self.pod, reason=f"{path} answered {status}")
        return body

    def _ask(self, path: str) -> tuple[int, bytes]:
        if self._client is None:
            self._client = http.client.HTTPConnection("localhost", ADMIN_PORT)
            self._client.sock = self._dial(self.pod, "127.0.0.1", ADMIN_PORT)
            self._client.sock.settimeout(_PATIENCE_S)
        self._client.request("GET", path)
        response = self._client.getresponse()
        return response.status, response.read()

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def stats(self, pattern: str) -> Stats:
        """Counters, gauges and texts whose name matches the regular expression; histograms are left out."""
        found: dict[str, int | str] = {}
        for entry in self.json(f"/stats?format=json&filter={quote(pattern)}")["stats"]:
            if "name" in entry and "value" in entry:
                found[entry["name"]] = entry["value"]
        return found


def fetch_from(pod: str, dial: Dial) -> Fetch:
    """For a sampler: one connection per question, so that nothing stays open between trials."""

    def fetch(path: str) -> bytes:
        try:
            with Admin(pod, dial) as admin:
                return admin.get(path)
        except MeshwiseError as error:
            raise OSError(str(error)) from error

    return fetch


def total(stats: Stats, pattern: str) -> int:
    """The sum of the numbers whose name matches the whole of `pattern`."""
    compiled = re.compile(pattern)
    return sum(value for name, value in stats.items() if isinstance(value, int) and compiled.fullmatch(name))


def grown(before: Stats, after: Stats) -> Stats:
    """What was counted between two readings; only what moved."""
    moved: dict[str, int | str] = {}
    for name, value in after.items():
        former = before.get(name, 0)
        if isinstance(value, int) and isinstance(former, int) and value != former:
            moved[name] = value - former
    return moved
