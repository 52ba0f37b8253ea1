"""Runs istiod on loopback against a Kubernetes API of ours, and asks it.

istiod is named, not found: `MESHWISE_ISTIOD` is the path of a `pilot-discovery`, of the commit that
docs/fidelity.md names or near it. Istio's own source makes it (`go build ./pilot/cmd/pilot-discovery`).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.istiod.kubernetes import Kubernetes, served

VARIABLE = "MESHWISE_ISTIOD"
CLUSTER = "Kubernetes"
ROOT_NAMESPACE = "istio-system"
_READY_TIMEOUT_S = 60.0
_POLL_S = 0.02


def named_istiod() -> Path:
    """Skips the test where none is named, with the remedy."""
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(
            f"set {VARIABLE} to a pilot-discovery: in a checkout of istio/istio, "
            "`go build ./pilot/cmd/pilot-discovery` makes one (docs/fidelity.md names the commit)"
        )
    return Path(path)


@dataclass(frozen=True)
class Istiod:
    """A running one. `xds`: its plaintext gRPC port."""

    kubernetes: Kubernetes
    xds: str
    _http: str
    log: Path

    def ask(self, path: str) -> Any:
        """JSON of a debug page."""
        with urllib.request.urlopen(f"{self._http}{path}", timeout=30) as answer:
            return json.load(answer)

    def refusal(self, resource: Any) -> str | None:
        """What its admission check says against a resource; None when it lets it in."""
        group, _, version = resource["apiVersion"].rpartition("/")
        kind = {"group": group, "version": version, "kind": resource["kind"]}
        review = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": "1", "kind": kind, "operation": "CREATE", "object": resource},
        }
        asked = urllib.request.Request(
            f"{self._http}/validate",
            json.dumps(review).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found = json.load(answer)["response"]
        return None if found["allowed"] else str(found["status"]["message"])


@contextmanager
def running(binary: Path, directory: Path, settings: dict[str, str] | None = None) -> Iterator[Istiod]:
    """With an empty Kubernetes, ready for objects; ended at exit. `settings`: its environment."""
    kubernetes = Kubernetes()
    with served(kubernetes) as address:
        kubeconfig, mesh, log = (directory / name for name in ("kubeconfig", "mesh.yaml", "istiod.log"))
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(address)))
        mesh.write_text(yaml.safe_dump(_MESH))
        xds, http, monitoring = _free_ports(3)
        argv = [
            str(binary), "discovery", "--registries=Kubernetes", "--kubeconfig", str(kubeconfig),
            "--meshConfig", str(mesh), "--clusterID", CLUSTER, "--grpcAddr", f"127.0.0.1:{xds}",
            "--secureGRPCAddr", "", "--httpAddr", f"127.0.0.1:{http}", "--httpsAddr", "",
            "--monitoringAddr", f"127.0.0.1:{monitoring}", "--ctrlz_port", "0", "--shutdownDuration", "0s",
        ]  # fmt: skip
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(directory), "POD_NAME": "istiod-0",
            "POD_NAMESPACE": ROOT_NAMESPACE, "PILOT_DEBOUNCE_AFTER": "1ms", **(settings or {}),
        }  # fmt: skip
        with log.open("w") as out:
            process = subprocess.Popen(
                argv, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            found = Istiod(kubernetes, f"127.0.0.1:{xds}", f"http://127.0.0.1:{http}", log)
            _wait_ready(found, process)
            yield found
        finally:
            process.kill()
            process.wait()


_MESH = {
    "trustDomain": "cluster.local",
    "rootNamespace": ROOT_NAMESPACE,
    "defaultProviders": {"metrics": ["prometheus"]},
    "extensionProviders": [{"name": "prometheus", "prometheus": {}}],
}
"""As the chart's."""


def _kubeconfig(address: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
        "current-context": "here",
    }


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


def _wait_ready(istiod: Istiod, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(f"{istiod._http}/ready", timeout=5).close()
            return
        except (urllib.error.URLError, OSError) as error:
            ended = process.poll()
            if ended is not None or time.monotonic() > deadline:
                tail = istiod.log.read_text()[-2000:]
                raise AssertionError(f"istiod is not ready (exit {ended}, {error}):\n{tail}") from error
        time.sleep(_POLL_S)
