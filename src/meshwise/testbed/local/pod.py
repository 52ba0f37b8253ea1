"""A pod: a network namespace without a name, held open by a descriptor, and what may be done inside it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from meshwise.core import linux, messages
from meshwise.core.patience import USUAL, Patience
from meshwise.core.process import LaunchPlan, OwnedProcess


@dataclass(frozen=True)
class Pod:
    """The namespace lives until `close` and the end of the last process in it."""

    name: str
    """`istio/a/node-1`: mesh, process set, workload."""
    ip: str
    network_fd: int
    patience: Patience = USUAL

    def open_socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this pod; it stays in the pod wherever it is used."""
        return linux.in_network(self.network_fd, lambda: socket.socket(family, kind))

    def dial(self, address: str, port: int) -> socket.socket:
        """A TCP connection made from inside, with `Patience.dial_s` set. Raises OSError as connect does."""
        connection = self.open_socket()
        connection.settimeout(self.patience.dial_s)
        try:
            connection.connect((address, port))
        except OSError:
            connection.close()
            raise
        return connection

    def tell(self, port: int, path: str) -> None:
        """POST to a port of the pod's loopback. Raises MW921 when it is not obeyed."""
        begun = time.monotonic()
        try:
            with self.dial("127.0.0.1", port) as connection:
                connection.settimeout(self.patience.control_s)
                connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                said = connection.recv(64)
        except OSError as error:
            raise messages.SERVICE_SILENT.error(
                name=self.name, asked=path, reason=f"{error} after {time.monotonic() - begun:.1f} s"
            ) from error
        if not said.startswith(b"HTTP/1.1 200 "):
            raise messages.SERVICE_SILENT.error(name=self.name, asked=path, reason=f"it answered {said!r}")

    def start(
        self,
        role: str,
        argv: tuple[str, ...],
        environment: Mapping[str, str],
        log: Path,
        *,
        uid: int | None = None,
        directory: Path | None = None,
        cpus: tuple[int, ...] = (),
        open_files: int | None = None,
        descriptors: tuple[int, ...] = (),
        file_bytes: int | None = None,
        pipe_stdout: bool = False,
        under: Callable[[LaunchPlan], LaunchPlan] | None = None,
    ) -> OwnedProcess:
        """Start a process inside; the caller owns it. `uid` is its gid as well, as in the meshes' images.
        `under`: how it is started instead, under another program."""
        plan = LaunchPlan(
            name=f"{self.name}/{role}",
            argv=argv,
            environment=environment,
            log=log,
            directory=directory,
            network_fd=self.network_fd,
            uid=uid,
            gid=uid,
            cpus=cpus,
            open_files=open_files,
            descriptors=descriptors,
            file_bytes=file_bytes,
            stop_s=self.patience.stop_s,
        )
        return OwnedProcess(under(plan) if under else plan, pipe_stdout=pipe_stdout)

    def close(self) -> None:
        os.close(self.network_fd)
