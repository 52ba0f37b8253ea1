"""Leads from a pod's loopback to the controller's Unix socket: `python -I -S relay.py PORT SOCKET WAIT_S`.

A program of its own that imports nothing of meshwise and little of Python (about 9 MB and 15 ms), because
every pod has one. It passes bytes on and knows nothing about them. While the controller is not running it
holds new connections, because a proxy whose first Certify fails waits 10 s before the next. Two threads per
connection, all blocked while nothing happens; a proxy has three connections.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

_CHUNK_BYTES = 65536
_RETRY_S = 0.02


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Until either side ends; then end both, so that the other direction ends as well."""
    with contextlib.suppress(OSError):  # either side has gone; the next lines tell the other
        while data := source.recv(_CHUNK_BYTES):
            sink.sendall(data)
    for side in (source, sink):
        with contextlib.suppress(OSError):  # it is closed already
            side.shutdown(socket.SHUT_RDWR)


def _serve(client: socket.socket, path: str, patience_s: float) -> None:
    with client, socket.socket(socket.AF_UNIX) as controller:
        if not _connected(controller, path, patience_s):
            return
        back = threading.Thread(target=_pump, args=(controller, client), daemon=True)
        back.start()
        _pump(client, controller)
        back.join()


def _connected(controller: socket.socket, path: str, patience_s: float) -> bool:
    """False when the controller does not come (back) in time."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            controller.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(_RETRY_S)
        else:
            return True
    return False


def main() -> None:
    port, path, patience_s = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_serve, args=(client, path, patience_s), daemon=True).start()


if __name__ == "__main__":
    main()
