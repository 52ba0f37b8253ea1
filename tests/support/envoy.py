"""The Envoy that tests run, configurations for its `--mode validate`, and one that serves."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.identity import CertificateAuthority, make_key, store
from meshwise.mesh.istio import binary, tls
from meshwise.mesh.istio.bootstrap import bootstrap
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import Json, View
from meshwise.study.model import KeyType


def envoy() -> Path:
    """Skips the test where there is none, with the remedy."""
    try:
        path = binary.envoy_path()
        binary.facts(path)
    except MeshwiseError as error:
        pytest.skip(str(error))
    return path


def validate(view: View, workload: str, directory: Path) -> str:
    """What Envoy says against the whole configuration of one sidecar, made static; empty when nothing."""
    authority = CertificateAuthority(key_type=KeyType.ECDSA_P256)
    identity = authority.issue("backend", workload, make_key(KeyType.ECDSA_P256))
    files = store(identity, authority.root_pem, directory, "one")
    made = translate(view, workload)
    config = bootstrap(view.service(workload))
    for kind in ("lds_config", "cds_config"):
        del config["dynamic_resources"][kind]
    config["static_resources"]["listeners"] += _with_static_secrets(made.listeners)
    config["static_resources"]["clusters"] += _with_static_secrets(made.clusters)
    config["static_resources"]["secrets"] = [
        {
            "name": tls.CERTIFICATE_SECRET,
            "tls_certificate": {
                "certificate_chain": {"filename": str(files.chain)},
                "private_key": {"filename": str(files.key)},
            },
        },
        {"name": tls.ROOT_SECRET, "validation_context": {"trusted_ca": {"filename": str(files.root)}}},
    ]
    path = directory / "static.json"
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [envoy(), "--mode", "validate", "-c", path, "-l", "warning", "--component-log-level", "misc:error"],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "deprecat" not in line.lower()]
    return "" if done.returncode == 0 and not said else f"{done.stdout}\n" + "\n".join(said)


def _with_static_secrets(value: Any) -> Any:
    """The same, with secrets that are there: a TLS context whose secret has yet to come is not looked at."""
    if isinstance(value, dict):
        return {name: _with_static_secrets(each) for name, each in value.items() if name != "sds_config"}
    if isinstance(value, list | tuple):
        return [_with_static_secrets(each) for each in value]
    return value


STARTS_WITHIN_S = 20.0
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


@contextmanager
def running(
    manager: Json, clusters: Sequence[str], upstream: int, directory: Path, *, tls: bool = False
) -> Iterator[int]:
    """An Envoy with this connection manager on a port of loopback, which it yields; the clusters are a server
    on port `upstream`, plain or of a TLS that is not verified."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = int(taken.getsockname()[1])

    def place(port: int) -> Json:
        return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}

    def cluster(name: str) -> Json:
        endpoints = [{"lb_endpoints": [{"endpoint": place(upstream)}]}]
        made = {
            "name": name,
            "type": "STATIC",
            "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        }
        return {**made, "transport_socket": {"name": "tls", "typed_config": {"@type": _TLS}}} if tls else made

    config = directory / "running.json"
    config.write_text(
        json.dumps(
            {
                "node": {"id": "test", "cluster": "test"},
                "static_resources": {
                    "listeners": [{"name": "l", **place(listen), "filter_chains": [{"filters": [manager]}]}],
                    "clusters": [cluster(name) for name in clusters],
                },
            }
        )
    )
    argv = [envoy(), "-c", config, "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", listen), 1).close()
                break
            except OSError:
                said = (directory / "log").read_text()
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.02)
        yield listen
    finally:
        process.kill()
        process.wait()
