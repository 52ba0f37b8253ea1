"""An HTTP server on loopback that answers as it is told, and remembers what came."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


@contextmanager
def server(*statuses: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> Iterator[Any]:
    """Answers with one status after the other, the last one for ever; `.seen`: what came."""
    seen: list[tuple[str, str, dict[str, str], bytes]] = []
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            seen.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = handle_one

        def log_message(self, *words: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    http.seen = seen  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield http
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def url_of(http: Any, path: str = "") -> str:
    return f"http://127.0.0.1:{http.server_port}{path}"
