"""Against servers that others wrote: the standard library's, nghttpd, grpcio; with and without TLS."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from tests.support.hostile import hostile
from tests.support.loads import MS, load_spec, run_here
from tests.support.pki import Pki, make_pki

from meshwise.load.spec import LoadSpec, TlsSpec
from meshwise.study.model import Protocol

NGHTTPD = shutil.which("nghttpd")
needs_nghttpd = pytest.mark.skipif(NGHTTPD is None, reason="no nghttpd; apt-get install nghttp2-server")


# --- the standard library's HTTP/1.1 server --------------------------------------------------------


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/chunked":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
            return
        if self.path == "/close":
            self.close_connection = True
            self._answer(200, b"bye", ("connection", "close"))
            return
        if self.path == "/no-length":
            self.close_connection = True
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"until the end")
            return
        if self.path == "/big":
            self._answer(200, b"x" * 300_000)
            return
        self._answer(404 if self.path == "/missing" else 200, b"ok")

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        self.send_response_only(100)
        self.end_headers()
        self._answer(200, b"%d" % len(self.rfile.read(size)))

    def do_HEAD(self) -> None:
        self._answer(200, b"not sent", body=False)

    def _answer(self, status: int, text: bytes, *headers: tuple[str, str], body: bool = True) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:  # without the look-up of the host's name
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def handle_error(self, *_: object) -> None:
        """A client that goes away is not reported."""


@contextlib.contextmanager
def http_server(context: ssl.SSLContext | None = None) -> Iterator[int]:
    with _HttpServer(("127.0.0.1", 0), _Handler) as server:
        if context:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "size"),
    [
        ("GET", "/", 0, 200, 2), ("GET", "/missing", 0, 404, 2), ("GET", "/chunked", 0, 200, 11),
        ("GET", "/close", 0, 200, 3), ("GET", "/no-length", 0, 200, 13), ("GET", "/big", 0, 200, 300_000),
        ("POST", "/", 1000, 200, 4), ("POST", "/", 2_000_000, 200, 7), ("HEAD", "/", 0, 200, 0),
    ],
)  # fmt: skip
def test_http_server(method: str, path: str, body: int, status: int, size: int, tmp_path: Path) -> None:
    with http_server() as port:
        spec = load_spec(port, method=method, path=path, body_bytes=body, rate_rps=40, timeout_ns=5000 * MS)
        ran = run_here(spec, tmp_path)
    assert set(ran.errors()) == ({"http_status"} if status >= 400 else {""})
    assert ran.table["status"].to_pylist() == [status] * 20
    assert ran.table["bytes"].to_pylist() == [size] * 20
    assert ran.table["done_ns"].null_count == 0


# --- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


def server_context(pki: Pki, *, demand_client: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_cert, pki.server_key)
    if demand_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pki.ca)
    return context


def with_tls(spec: LoadSpec, pki: Pki, *, client: bool, name: str = "localhost", ca: str = "") -> LoadSpec:

    cert, key = (pki.client_cert, pki.client_key) if client else (None, None)
    return replace(spec, tls=TlsSpec(name, ca or pki.ca, cert, key))


def test_mutual_tls(pki: Pki, tmp_path: Path) -> None:
    with http_server(server_context(pki, demand_client=True)) as port:
        spec = load_spec(port, path="/big", rate_rps=40, timeout_ns=5000 * MS)
        ran = run_here(with_tls(spec, pki, client=True), tmp_path)
    assert set(ran.errors()) == {""}
    assert set(ran.table["bytes"].to_pylist()) == {300_000}
    assert ran.report.tls.startswith("TLSv1.3")
    assert ran.report.tls_us.p50 is not None
    assert ran.report.connect_us.p50 is not None


@contextlib.contextmanager
def ends_by_closing(context: ssl.SSLContext, *, notify: bool) -> Iterator[int]:
    """A server whose body lasts until TLS ends; with close_notify it keeps TCP open as long as the client."""

    def answer(sock: socket.socket) -> None:
        tls = context.wrap_socket(sock, server_side=True)
        tls.recv(4096)
        tls.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if notify:
            tls.unwrap()  # waits for the client's
        socket.socket(fileno=tls.detach()).close()

    with hostile(answer) as port:
        yield port


@pytest.mark.parametrize(("notify", "error"), [(True, ""), (False, "protocol")])
def test_a_body_until_the_end_of_tls_needs_its_close_notify(
    notify: bool, error: str, pki: Pki, tmp_path: Path
) -> None:
    with ends_by_closing(server_context(pki, demand_client=False), notify=notify) as port:
        ran = run_here(with_tls(load_spec(port, duration_ns=200 * MS), pki, client=False), tmp_path)
    assert set(ran.errors()) == {error}
    assert set(ran.table["status"].to_pylist()) == {200}
    assert set(ran.table["bytes"].to_pylist()) == {5}


@pytest.mark.parametrize("what", ["no client certificate", "another name", "another authority"])
def test_tls_refusals_are_errors_of_kind_tls(what: str, pki: Pki, tmp_path: Path) -> None:
    with http_server(server_context(pki, demand_client=True)) as port:
        spec = load_spec(port, duration_ns=200 * MS)
        if what == "no client certificate":
            spec = with_tls(spec, pki, client=False)
        elif what == "another name":
            spec = with_tls(spec, pki, client=True, name="other.invalid")
        else:
            spec = with_tls(spec, pki, client=True, ca=pki.client_cert)
        ran = run_here(spec, tmp_path)
    assert "" not in ran.errors()
    assert "tls" in ran.report.errors
    word = "certificate required" if what == "no client certificate" else "certificate verify failed"
    assert any(word in reason for reason in ran.report.reasons), ran.report.reasons


def test_tls_to_a_server_without_it(pki: Pki, tmp_path: Path) -> None:
    with http_server() as port:
        ran = run_here(with_tls(load_spec(port, duration_ns=100 * MS), pki, client=False), tmp_path)
    assert set(ran.errors()) <= {"tls", "timeout"}


# --- nghttpd ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def nghttpd(root: Path, pki: Pki | None = None) -> Iterator[int]:
    (root / "small").write_bytes(b"hello")
    (root / "big").write_bytes(b"x" * 3_000_000)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert NGHTTPD is not None
    argv = [NGHTTPD, "-d", str(root), "-a", "127.0.0.1", "--echo-upload", str(port)]
    argv += [pki.server_key, pki.server_cert] if pki else ["--no-tls"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)


@needs_nghttpd
@pytest.mark.parametrize(
    ("path", "body", "size"), [("/small", 0, 5), ("/big", 0, 3_000_000), ("/", 200_000, 200_000)]
)
@pytest.mark.parametrize("secure", [False, True])
def test_nghttpd(path: str, body: int, size: int, secure: bool, pki: Pki, tmp_path: Path) -> None:
    with nghttpd(tmp_path, pki if secure else None) as port:
        spec = load_spec(port, Protocol.HTTP2, path=path, body_bytes=body, method="POST" if body else "GET")
        spec = with_tls(spec, pki, client=False) if secure else spec

        ran = run_here(replace(spec, rate_rps=60, streams=4, connections=2, timeout_ns=5000 * MS), tmp_path)
    assert set(ran.errors()) == {""}
    assert set(ran.table["status"].to_pylist()) == {200}
    assert set(ran.table["bytes"].to_pylist()) == {size}
    assert ran.report.tls == ("TLSv1.3 h2" if secure else "")


def test_http2_to_a_tls_server_that_speaks_only_http1(pki: Pki, tmp_path: Path) -> None:
    with http_server(server_context(pki, demand_client=False)) as port:
        spec = load_spec(port, Protocol.HTTP2, duration_ns=100 * MS)
        ran = run_here(with_tls(spec, pki, client=False), tmp_path)
    assert set(ran.errors()) == {"tls"}


# --- grpcio ----------------------------------------------------------------------------------------


def _say(request: bytes, context: grpc.ServicerContext) -> bytes:
    return b"answer to " + request


def _fail(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
    raise AssertionError("abort raises")


@contextlib.contextmanager
def grpc_server() -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    handlers = {
        "Say": grpc.unary_unary_rpc_method_handler(_say),
        "Fail": grpc.unary_unary_rpc_method_handler(_fail),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield int(port)
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [("/t.Echo/Say", 1000, ""), ("/t.Echo/Fail", 1007, "grpc_status"), ("/t.Echo/None", 1012, "grpc_status")],
)
def test_grpcio(path: str, status: int, error: str, tmp_path: Path) -> None:
    with grpc_server() as port:
        spec = load_spec(
            port, Protocol.GRPC, path=path, grpc_message=b"me", connections=2, streams=4, rate_rps=100,
            timeout_ns=5000 * MS,
        )  # fmt: skip
        ran = run_here(spec, tmp_path)
    assert set(ran.errors()) == {error}
    assert set(ran.table["status"].to_pylist()) == {status}
    assert set(ran.table["bytes"].to_pylist()) == {17 if not error else 0}


def test_grpcio_with_a_message_longer_than_its_window(tmp_path: Path) -> None:
    with grpc_server() as port:
        spec = load_spec(
            port, Protocol.GRPC, path="/t.Echo/Say", grpc_message=b"m" * 1_000_000, connections=1, streams=2,
            rate_rps=20, timeout_ns=5000 * MS,
        )  # fmt: skip
        ran = run_here(spec, tmp_path)
    assert set(ran.errors()) == {""}
    assert set(ran.table["bytes"].to_pylist()) == {1_000_015}
