"""Runs istiod on loopback against a Kubernetes API of ours, and asks it.

Rules of this file:
- istiod has a private directory of its own, an environment that holds nothing of the user's, and listens on
  loopback only, on ports that it was given.
- What it answers is bounded: it is a program that a user named.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import USUAL, Patience
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.mesh.files import private_directory, write_private
from meshwise.mesh.istio.istiod.api import served
from meshwise.mesh.istio.istiod.store import ObjectStore
from meshwise.mesh.istio.kinds import ROOT_NAMESPACE
from meshwise.mesh.istio.tracing import CLUSTER_ID

MOST_ANSWER_BYTES = 256 << 20
"""The configuration of one sidecar, of a mesh of some hundred services."""
_LOG_BYTES = 64 << 20
_ATTEMPTS = 3
"""A port that was free may be taken when istiod listens on it."""
_LOOPBACK = "127.0.0.1"
_SETTINGS = {
    "POD_NAME": "istiod-0",
    "POD_NAMESPACE": ROOT_NAMESPACE,
    "PILOT_DEBOUNCE_AFTER": "1ms",  # changes come from one side, which waits for them
    "ENABLE_LEADER_ELECTION": "false",  # there is one
    # A debug page that is asked for while a change is taken up leaves what was before it in the cache.
    "PILOT_ENABLE_XDS_CACHE": "false",
}


@dataclass(frozen=True)
class IstioFilters:
    """Which of Istio's own filters istiod configures; all of them, as by default, for an istio-proxy."""

    metadata: bool = True
    stats: bool = True
    alpn: bool = True


@dataclass(frozen=True)
class Istiod:
    """A running one."""

    objects: ObjectStore
    """What its API holds."""
    xds_port: int
    http_port: int
    process: OwnedProcess
    patience: Patience = USUAL

    @property
    def xds(self) -> str:
        """The address of its plaintext gRPC."""
        return f"{_LOOPBACK}:{self.xds_port}"

    def page(self, path: str, body: bytes | None = None) -> Any:
        """JSON of a debug page, or of its answer to `body`. Raises MW441."""
        try:
            status, answer = self._exchange(path, body)
            if status != 200:
                raise ValueError(f"it answered {path} with {status}")
            return json.loads(answer)
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            raise self.failed(f"answer {path.partition('?')[0]}", str(error) or repr(error)) from error

    def refusal(self, resource: Any) -> str | None:
        """What its admission check says against a resource; None when it lets it in. Raises MW441."""
        group, _, version = resource["apiVersion"].rpartition("/")
        kind = {"group": group, "version": version, "kind": resource["kind"]}
        request = {"uid": "1", "kind": kind, "operation": "CREATE", "object": resource}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        found = self.page("/validate", json.dumps(review).encode())["response"]
        return None if found["allowed"] else str(found["status"]["message"])

    def ready(self) -> bool:
        try:
            return self._exchange("/ready", None)[0] == 200
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def failed(self, what: str, reason: str) -> MeshwiseError:
        """MW441, with the end of its log where it has ended."""
        if not self.process.running:
            reason = f"it {self.process.ending}; it said last: {_last_line(self.process)}"
        return messages.ISTIOD_FAILED.error(what=what, reason=reason)

    def _exchange(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(_LOOPBACK, self.http_port, timeout=self.patience.admin_s)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST" if body else "GET", path, body, headers)
            answer = connection.getresponse()
            data = answer.read(MOST_ANSWER_BYTES + 1)
        finally:
            connection.close()
        if len(data) > MOST_ANSWER_BYTES:
            raise ValueError(f"it answered with more than {MOST_ANSWER_BYTES} bytes")
        return answer.status, data


@contextmanager
def running(
    binary: Path,
    directory: Path,
    trust_domain: str = "cluster.local",
    filters: IstioFilters | None = None,
    patience: Patience = USUAL,
) -> Iterator[Istiod]:
    """Ready, with an empty Kubernetes; ended at exit. `directory`: private, for its files and log. Raises
    MW441 when it does not become ready."""
    filters = filters or IstioFilters()
    private_directory(directory)
    objects = ObjectStore()
    with served(objects) as address:
        write_private(directory / "kubeconfig", yaml.safe_dump(_kubeconfig(address)))
        write_private(directory / "mesh.yaml", yaml.safe_dump(_mesh_config(trust_domain, filters)))
        with _started(binary, directory, objects, filters, patience) as found:
            yield found


@contextmanager
def _started(
    binary: Path, directory: Path, objects: ObjectStore, filters: IstioFilters, patience: Patience
) -> Iterator[Istiod]:
    for attempt in range(_ATTEMPTS):
        xds, page, monitoring, control = _free_ports(4)
        argv = (
            str(binary), "discovery", "--registries=Kubernetes",
            "--kubeconfig", str(directory / "kubeconfig"), "--meshConfig", str(directory / "mesh.yaml"),
            "--clusterID", CLUSTER_ID, "--grpcAddr", f"{_LOOPBACK}:{xds}", "--secureGRPCAddr", "",
            "--httpAddr", f"{_LOOPBACK}:{page}", "--httpsAddr", "",
            "--monitoringAddr", f"{_LOOPBACK}:{monitoring}",
            "--ctrlz_address", _LOOPBACK, "--ctrlz_port", str(control), "--shutdownDuration", "0s",
        )  # fmt: skip
        plan = LaunchPlan(
            name="istiod",
            argv=argv,
            environment=_environment(directory, filters),
            log=directory / f"istiod-{attempt}.log",
            directory=directory,
            file_bytes=_LOG_BYTES,
            stop_s=patience.stop_s,
        )
        with OwnedProcess(plan) as process:
            found = Istiod(objects, xds, page, process, patience)
            deadline = time.monotonic() + patience.ready_s
            while process.running and not found.ready() and time.monotonic() < deadline:
                time.sleep(0.02)
            if process.running and found.ready():
                yield found
                return
            taken = not process.running and "address already in use" in process.log_tail()
            error = found.failed("become ready", f"not within {patience.ready_s:g} s")
        if not taken or attempt == _ATTEMPTS - 1:
            raise error


def _environment(directory: Path, filters: IstioFilters) -> Mapping[str, str]:
    switches = {
        "PILOT_ENABLE_METADATA_EXCHANGE": str(filters.metadata).lower(),
        "PILOT_ENABLE_ALPN_FILTER": str(filters.alpn).lower(),
    }
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(directory), **_SETTINGS, **switches}


def _mesh_config(trust_domain: str, filters: IstioFilters) -> Mapping[str, Any]:
    """As the chart's; the provider of metrics is what puts Istio's filter for them in."""
    metrics = ["prometheus"] if filters.stats else []
    return {
        "trustDomain": trust_domain,
        "rootNamespace": ROOT_NAMESPACE,
        "defaultProviders": {"metrics": metrics},
        "extensionProviders": [{"name": "prometheus", "prometheus": {}}],
    }


def _kubeconfig(address: str) -> Mapping[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
        "current-context": "here",
    }


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server((_LOOPBACK, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


def _last_line(process: OwnedProcess) -> str:
    lines = process.log_tail().strip().splitlines()
    return lines[-1][:300] if lines else "nothing"
