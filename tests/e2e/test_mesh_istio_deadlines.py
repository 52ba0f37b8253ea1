"""A gRPC caller's deadline, kept by the client's sidecar as istiod's routes make it: on a real Envoy."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.envoy import STARTS_WITHIN_S, running
from tests.support.mesh_samples import view

from meshwise.mesh.istio import connection_manager, routes
from meshwise.mesh.istio.view import Json, Options

HOST = "node-1.backend.svc.cluster.local"


class Slow(BaseHTTPRequestHandler):
    """Answers after the caller has gone."""

    seen: dict[str, str]
    gone: threading.Event

    def do_POST(self) -> None:
        type(self).seen = dict(self.headers)
        self.gone.wait(STARTS_WITHIN_S)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def manager() -> Json:
    """The client's, of port 8080, with its table in it."""
    here = view("", options=Options(telemetry=False))
    client = here.service("client")
    made = connection_manager.outbound(here, client, 8080)
    del made["typed_config"]["rds"]
    made["typed_config"]["route_config"] = routes.outbound(here, client, 8080)
    return made


def test_a_grpc_deadline_is_told_to_the_server_and_ends_as_unavailable(tmp_path: Path) -> None:
    """istiod gives its outbound routes `max_grpc_timeout: 0s`: the caller's deadline is the upstream's
    time-out. (`max_stream_duration` would end the call as DEADLINE_EXCEEDED, 4, and tell the server
    nothing.)"""
    Slow.gone = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            upstream = server.server_address[1]
            with running(manager(), [f"outbound|8080||{HOST}"], upstream, tmp_path) as port:
                caller = http.client.HTTPConnection("127.0.0.1", port, timeout=STARTS_WITHIN_S)
                headers = {"host": f"{HOST}:8080", "content-type": "application/grpc", "grpc-timeout": "200m"}
                caller.request("POST", "/echo.Echo/Call", b"", headers)
                answer = caller.getresponse()
                assert answer.status == 200
                assert answer.getheader("grpc-status") == "14"
                assert answer.getheader("grpc-message") == "upstream request timeout"
                caller.close()
        finally:
            Slow.gone.set()
            server.shutdown()
    assert Slow.seen["x-envoy-expected-rq-timeout-ms"] == "200"
