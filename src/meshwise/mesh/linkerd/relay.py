"""Leads from a pod's loopback to the controller's Unix socket: `python -I -S relay.py PORT SOCKET`.

A program of its own that imports nothing of meshwise and little of Python (about 9 MB and 15 ms), because
every pod has one. It passes bytes on and knows nothing about them. When the controller is away it closes
the connection, and the proxy tries again by its own rules. Two threads per connection, all blocked while
nothing happens; a proxy has three connections.
"""

from __future__ import annotations

import socket
import sys
import threading

_CHUNK_BYTES = 65536


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Until either side ends; then end both, so that the other direction ends as well."""
    try:
        while data := source.recv(_CHUNK_BYTES):
            sink.sendall(data)
    except OSError:
        pass  # either side has gone; the next lines tell the other
    for side in (source, sink):
        try:
            side.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already


def _serve(client: socket.socket, path: str) -> None:
    with client, socket.socket(socket.AF_UNIX) as controller:
        try:
            controller.connect(path)
        except OSError:
            return  # not there (yet, or any more): the proxy sees its connection close
        back = threading.Thread(target=_pump, args=(controller, client), daemon=True)
        back.start()
        _pump(client, controller)
        back.join()


def main() -> None:
    port, path = int(sys.argv[1]), sys.argv[2]
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_serve, args=(client, path), daemon=True).start()


if __name__ == "__main__":
    main()
