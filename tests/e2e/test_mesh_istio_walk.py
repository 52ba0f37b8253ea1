"""The walk (`simulate`, `rbac_walk`) and a real Envoy judge the same requests alike."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.support.envoy import running
from tests.support.mesh_samples import view

from meshwise.mesh.istio import connection_manager, simulate
from meshwise.mesh.istio.simulate import HttpRequest, InboundConnection, Reached
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import Options, View
from meshwise.mesh.tokens import ISSUER, tokens

CLUSTER = "inbound|8080||"
HEAD = "apiVersion: security.istio.io/v1\nkind: {}\nmetadata: {{name: one, namespace: backend{}}}\nspec: "


class Yes(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def policy(action: str, rule: str, annotation: str = "") -> str:
    return HEAD.format("AuthorizationPolicy", annotation) + f"{{action: {action}, rules: [{rule}]}}\n"


def get(path: str = "/", **headers: str) -> HttpRequest:
    return HttpRequest(
        "GET", path, "node-1", {name.replace("_", "-"): value for name, value in headers.items()}
    )


PATHS = (
    *(f"/v1/a{each}b/info" for each in "!\"$&'()*+,-.:;<=>@[]\\^_`{|}~"),
    "/v1/./7/info", "/v1/%37/info", "/x/../v1/7/info", "/x/%2e%2e/v1/7/info", "/v1/7%2finfo", "/files/../v1",
    "/", "/v1/7/info", "/v1//info", "/v1/7/8/info", "/v1/7/info/", "/v1/7/info?x=/", "/v1/a%20b/info",
    "/files", "/..", "/v1/7/info/.", "/v1/%zz/info",
    "/files/", "/files/a", "/files/a/b?c", "/files/a|b", "/v1/{*}/info", "/filesystem",
)  # fmt: skip
TOKEN_RULE = (
    HEAD.format("RequestAuthentication", "")
    + f"{{jwtRules: [{{issuer: {ISSUER}, jwks: 'JWKS', fromHeaders: [{{name: x-token, prefix: 'Token '}}],"
    + " fromParams: [token], fromCookies: [session]}]}\n---\n"
    + policy("ALLOW", "{from: [{source: {requestPrincipals: ['*']}}]}")
)


def tokens_everywhere() -> list[HttpRequest]:
    made = tokens()
    found = [get()]
    for token in (made.valid, made.forged, made.expired):
        found += [
            get(x_token=f"Token {token}"),
            get(x_token=token),
            get(f"/?token={token}"),
            get(cookie=f"a=b; session={token}"),
            get(authorization=f"Bearer {token}"),
            get(f"/?token={made.valid}", x_token=f"Token {token}"),
        ]
    return found


CASES: dict[str, tuple[str, list[HttpRequest]]] = {
    "templates": (
        policy("DENY", "{to: [{operation: {paths: ['/v1/{*}/info', '/files/{**}']}}]}"),
        [get(path) for path in PATHS],
    ),
    "remote-addresses": (
        policy("ALLOW", "{from: [{source: {remoteIpBlocks: [10.0.0.0/8, '2001:db8::1']}}]}"),
        [
            get(), get(x_forwarded_for="10.1.2.3"), get(x_forwarded_for="10.1.2.3, 192.168.1.1"),
            get(x_forwarded_for="192.168.1.1, 10.1.2.3"), get(x_forwarded_for="2001:db8::1"),
            get(x_forwarded_for="2001:db8::2"),
        ],
    ),
    "addresses": (
        policy("ALLOW", "{from: [{source: {ipBlocks: [127.0.0.0/8]}}], when: [WHEN]}").replace(
            "WHEN", "{key: destination.ip, values: [127.0.0.1]}"
        ),
        [get(), get(x_forwarded_for="10.1.2.3")],
    ),
    "names": (
        policy("DENY", "{when: [{key: 'request.headers[X-Tenant]', values: [blue*], notValues: [bluest]}]}"),
        [get(), get(x_tenant="blue"), get(x_tenant="bluest"), get(x_tenant="a blue"), get(x_tenant="BLUE")],
    ),
    "dry-run": (policy("DENY", "{}", ', annotations: {istio.io/dry-run: "true"}'), [get()]),
    "tokens": (TOKEN_RULE, tokens_everywhere()),
}  # fmt: skip


@pytest.fixture
def upstream() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Yes) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def walked(here: View, request: HttpRequest) -> int:
    arriving = InboundConnection(
        8080, tls=False, alpn=("http/1.1",), source_ip="127.0.0.1", destination_ip="127.0.0.1"
    )
    end = simulate.arrive(translate(here, "node-1"), arriving, request, "", time.time())
    if isinstance(end, Reached):
        return 200
    return {simulate.DENIED: 403, simulate.BAD_TOKEN: 401}[end.reason]


def asked(port: int, request: HttpRequest) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(request.method, request.path, headers={"host": "node-1", **request.headers})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("name", CASES)
def test_envoy_and_the_walk_agree(name: str, upstream: int, tmp_path: Path) -> None:
    text, requests = CASES[name]
    here = view(text.replace("JWKS", tokens().jwks), options=Options(telemetry=False))
    node = here.service("node-1")
    security = connection_manager.security_filters(here, node)
    manager = connection_manager.inbound(here, node, 8080, CLUSTER, security)
    with running(manager, [CLUSTER], upstream, tmp_path) as port:
        found = {str(index): asked(port, request) for index, request in enumerate(requests)}
    assert found == {str(index): walked(here, request) for index, request in enumerate(requests)}
    if name != "dry-run":
        assert len(set(found.values())) > 1 or name == "addresses"
