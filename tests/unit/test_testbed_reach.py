"""The conformance suite of `Reach` on a fake and on the local one, with plain sockets of the loopback."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest
from tests.support.fake_mesh import NotesReach
from tests.support.reach_conformance import ReachConformance

from meshwise.mesh.reach import Reach
from meshwise.testbed.local.reach import LocalReach


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/echo" else 404)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class TestLocalReach(ReachConformance):
    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.port = server.server_address[1]
        with socket.socket() as bound:  # bound, and nothing listens
            bound.bind(("127.0.0.1", 0))
            self.closed_port = bound.getsockname()[1]
            with LocalReach(lambda pod, host, port: socket.create_connection((host, port), 2)) as self.local:
                yield
        server.shutdown()
        server.server_close()

    def reach(self) -> Reach:
        return self.local


class TestNotesReach(ReachConformance):
    port, closed_port = 8080, 8081

    def reach(self) -> Reach:
        return NotesReach({("node-1", self.port, "/echo"): b"ok"})
