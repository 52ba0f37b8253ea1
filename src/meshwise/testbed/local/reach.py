"""`Reach` on this machine: sockets made inside pods' network namespaces, and kept connections to proxies.

A connection to a proxy's administration is kept while the reach is open, because a proof asks a proxy several
times; leaving the `with` block closes them all, so that nothing stays open between trials.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable, Iterator
from typing import Self

from meshwise.core import messages
from meshwise.core.patience import USUAL, Patience
from meshwise.mesh import exchange, hello
from meshwise.mesh.hello import Choice
from meshwise.mesh.overheard import Overheard
from meshwise.mesh.probe import Ask, ProbeAnswer, TlsAs
from meshwise.mesh.protection.socket_line import SocketLine, open_line
from meshwise.testbed.local.listening import heard

Dial = Callable[[str, str, int], socket.socket]
"""`dial(pod, address, port)`: a connected TCP socket made inside that pod's network namespace (with
`Patience.dial_s` set). Raises OSError as connect does."""
Listen = Callable[[str], socket.socket]
"""`listen(pod)`: a packet socket on the pod's link (`listening`)."""

_LOOPBACK = "127.0.0.1"


class LocalReach:
    """See `meshwise.mesh.reach.Reach`. A context manager."""

    def __init__(self, dial: Dial, patience: Patience = USUAL, listen: Listen | None = None) -> None:
        """`listen`: None where no one has to overhear anything."""
        self._dial, self._listen = dial, listen
        self._admin_s = patience.admin_s
        self._kept: dict[tuple[str, int], http.client.HTTPConnection] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._kept:
            self._kept.popitem()[1].close()

    def call(self, pod: str, address: str, port: int, request: Ask, tls: TlsAs | None = None) -> ProbeAnswer:
        return exchange.ask(lambda: self._dial(pod, address, port), request, tls)

    def line(self, pod: str, address: str, port: int, tls: TlsAs | None = None) -> SocketLine:
        return open_line(lambda: self._dial(pod, address, port), tls)

    def choice(self, pod: str, address: str, port: int, server_name: str) -> Choice | str:
        return hello.choice_of(lambda: self._dial(pod, address, port), server_name)

    def listens(self, pod: str, port: int) -> bool:
        with contextlib.suppress(OSError):
            self._dial(pod, _LOOPBACK, port).close()
            return True
        return False

    def get(self, pod: str, port: int, path: str) -> bytes:
        """A kept connection that has gone is dialled anew, once: a question changes nothing, so it may be
        asked again."""
        kept = (pod, port) in self._kept
        try:
            try:
                status, body = self._ask(pod, port, path)
            except (ConnectionError, http.client.BadStatusLine):
                if not kept:
                    raise
                self._forget(pod, port)
                status, body = self._ask(pod, port, path)
        except (OSError, http.client.HTTPException) as error:
            self._forget(pod, port)
            raise messages.ADMIN_SILENT.error(pod=pod, reason=str(error) or repr(error)) from error
        if status != 200:
            self._forget(pod, port)
            raise messages.ADMIN_SILENT.error(pod=pod, reason=f"{path} answered {status}")
        return body

    @contextlib.contextmanager
    def overhear(self, pod: str) -> Iterator[Callable[[], Overheard]]:
        assert self._listen is not None, "made without a way to listen"
        with self._listen(pod) as link:
            frames: list[bytes] = []
            yield lambda: heard(link, frames)

    def _ask(self, pod: str, port: int, path: str) -> tuple[int, bytes]:
        if (pod, port) not in self._kept:
            client = http.client.HTTPConnection("localhost", port)
            client.sock = self._dial(pod, _LOOPBACK, port)
            client.sock.settimeout(self._admin_s)
            self._kept[pod, port] = client
        client = self._kept[pod, port]
        client.request("GET", path)
        response = client.getresponse()
        return response.status, response.read()

    def _forget(self, pod: str, port: int) -> None:
        if (client := self._kept.pop((pod, port), None)) is not None:
            client.close()
