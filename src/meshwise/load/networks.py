"""In which network namespace a socket is made. It stays in that one, wherever its process goes.

The thread that makes sockets moves to the namespace of the next one if it is not there already: a call of
a few microseconds, where a thread for each socket (`core.linux.in_network`) would take a hundred, and a run
with a connection per request makes thousands.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from meshwise.core import messages
from meshwise.core.linux import CLONE_NEWNET, setns

_OWN = "/proc/thread-self/ns/net"


class Networks:
    """The namespaces at these paths, and the thread's own (an empty path). `close` returns to that."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Raises MW315 for one that cannot be entered."""
        self._descriptors: dict[str, int] = {}
        self._here = ""
        for path in sorted({each for each in paths if each}):
            try:
                if not self._descriptors:
                    self._descriptors[""] = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
                self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self.enter(path)
            except OSError as error:
                self.close()
                raise messages.CANNOT_ENTER_NETWORK.error(where=path, why=error.strerror or error) from error
        self.enter("")

    def enter(self, path: str) -> None:
        """The thread makes its sockets there from now on. Raises OSError."""
        if path != self._here:
            setns(self._descriptors[path], CLONE_NEWNET)
            self._here = path

    def close(self) -> None:
        self.enter("")
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
