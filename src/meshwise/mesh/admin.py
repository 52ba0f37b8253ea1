"""A proxy's administration interface: one kept HTTP connection, dialled inside the proxy's pod."""

from __future__ import annotations

import http.client
from types import TracebackType
from typing import Self

from meshwise.core import messages
from meshwise.mesh.seam import Dial

_PATIENCE_S = 10.0
"""The thread that answers may be the one that takes up a configuration; a long one keeps it busy."""


class AdminConnection:
    """One kept connection to one proxy; a context manager. Raises MW406 when the proxy does not answer."""

    def __init__(self, pod: str, dial: Dial, port: int) -> None:
        self.pod = pod
        self._dial = dial
        self._port = port
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
            self._client = http.client.HTTPConnection("localhost", self._port)
            self._client.sock = self._dial(self.pod, "127.0.0.1", self._port)
            self._client.sock.settimeout(_PATIENCE_S)
        self._client.request("GET", path)
        response = self._client.getresponse()
        return response.status, response.read()
