"""What a client's sidecar offers in TLS where one of two services is reached over HTTP/2: on a real Envoy."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.envoy import running
from tests.support.mesh_samples import view
from tests.support.pki import make_pki

from meshwise.mesh.istio import connection_manager, routes
from meshwise.mesh.istio.view import Options

ONE_RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: upgrade, namespace: backend}
spec: {host: node-1, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
"""


@contextmanager
def negotiating(directory: Path) -> Iterator[tuple[int, list[str | None]]]:
    """A TLS server that takes either name of HTTP between sidecars and notes which; its port and notes."""
    pki = make_pki(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_cert, pki.server_key)
    context.set_alpn_protocols(["istio-http/1.1", "istio-h2"])
    seen: list[str | None] = []

    def serve(server: socket.socket) -> None:
        while True:
            try:
                accepted, _ = server.accept()
            except OSError:
                return  # the test is over
            with context.wrap_socket(accepted, server_side=True) as connection:
                seen.append(connection.selected_alpn_protocol())

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1], seen
        server.shutdown(socket.SHUT_RDWR)


def test_each_service_is_offered_what_it_is_reached_by(tmp_path: Path) -> None:
    here = view(ONE_RULE, options=Options(telemetry=False))
    client = here.service("client")
    manager = connection_manager.outbound(here, client, 8080)
    del manager["typed_config"]["rds"]
    table = routes.outbound(here, client, 8080)
    for host in table["virtual_hosts"]:
        host["routes"][0]["route"].pop("retry_policy", None)
    manager["typed_config"]["route_config"] = table
    hosts = [f"{name}.backend.svc.cluster.local" for name in ("node-1", "node-2")]
    clusters = [f"outbound|8080||{host}" for host in hosts]
    found = {}
    with (
        negotiating(tmp_path) as (upstream, seen),
        running(manager, clusters, upstream, tmp_path, tls=True) as port,
    ):
        for host in hosts:
            caller = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            caller.request("GET", "/", headers={"host": host})
            assert caller.getresponse().status == 503, "the server says nothing after the handshake"
            caller.close()
            found[host] = seen.pop()
    assert found == dict(zip(hosts, ("istio-h2", "istio-http/1.1"), strict=True))
