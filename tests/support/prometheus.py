"""A real Prometheus on loopback, with a store of its own, for one block."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WITHOUT = "no Prometheus here: `apt-get install prometheus` (it brings promtool)"
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None, reason=WITHOUT
)
CONFIGURATION = "global: {scrape_interval: 1h}\nscrape_configs: []\n"


@dataclass(frozen=True)
class Prometheus:
    url: str

    def ask(self, path: str, **words: str) -> Any:
        query = urllib.parse.urlencode(words)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def instant(self, query: str, at_s: float) -> list[tuple[Mapping[str, str], float]]:
        found = self.ask("query", query=query, time=f"{at_s:.3f}")["result"]
        return [(entry["metric"], float(entry["value"][1])) for entry in found]

    def number(self, query: str, at_s: float) -> float:
        ((_, value),) = self.instant(query, at_s)
        return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prometheus(place: Path, configuration: str = CONFIGURATION) -> Iterator[Prometheus]:
    """`place`: an empty or absent directory, or one with `data/`, blocks that it begins with."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "prometheus.yml").write_text(configuration)
    port = free_port()
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data",
                f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver",
                "--storage.tsdb.retention.time=100y",
            ],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _wait(f"http://127.0.0.1:{port}/-/ready", process, place / "log")
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"Prometheus is not ready: {log.read_text()[-2000:]}")
