"""The conformance suite of `Reach` on a fake and on the local one, with plain sockets of the loopback."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest
from tests.support.reach_conformance import ReachConformance

from meshwise.mesh.reach import Reach
from meshwise.testbed.fake_reach import FakeReach
from meshwise.testbed.local.listening import listening_on
from meshwise.testbed.local.reach import LocalReach


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200 if self.path == "/echo" else 404)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def dial(_pod: str, host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), 2)


def listen(_pod: str) -> socket.socket:
    try:
        return listening_on("lo", socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM))
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW to listen on the loopback: run the tests as root")


class TestLocalReach(ReachConformance):
    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.port = server.server_address[1]
        with socket.socket() as bound:  # bound, and nothing listens
            bound.bind(("127.0.0.1", 0))
            self.closed_port = bound.getsockname()[1]
            with LocalReach(dial, listen=listen) as self.local:
                yield
        server.shutdown()
        server.server_close()

    def reach(self) -> Reach:
        return self.local


class TestFakeReach(ReachConformance):
    port, closed_port = 8080, 8081

    def reach(self) -> Reach:
        return FakeReach({("node-1", self.port, "/echo"): b"ok"})
