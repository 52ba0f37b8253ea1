"""Delivery by files, which Envoy watches.

Rules of this file:
- One watched directory per resource: any rename in a watched directory reloads everything that watches
  it. A file is replaced by rename, never written in place, and left alone when nothing changes.
- Secrets before clusters before listeners before routes, so that nothing refers to what is not there yet.
- Paths within a configuration are relative to the proxy's own directory, in which it runs: so what several
  proxies are given is the same text, and is encoded once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from meshwise.mesh.delivery.seam import DeliveredVersions, Json, ProxyConfig, Sources
from meshwise.mesh.files import private_directory, write_private
from meshwise.mesh.identity import IdentityFiles

_TYPES = "type.googleapis.com/envoy"
_LISTENER = f"{_TYPES}.config.listener.v3.Listener"
_CLUSTER = f"{_TYPES}.config.cluster.v3.Cluster"
_ROUTES = f"{_TYPES}.config.route.v3.RouteConfiguration"
_SECRET = f"{_TYPES}.extensions.transport_sockets.tls.v3.Secret"
_ROUTES_VERSION = "routes"
"""Tables of routes follow from who is there, and that does not change while the proxies run."""

_Encoded = dict[int, str]
"""Text of each resource, by the identity of the value."""


class FileDelivery:
    """See `meshwise.mesh.delivery.seam.Delivery`."""

    def __init__(self, certificate: str, root: str, uid: int | None) -> None:
        """`certificate`, `root`: names of the two secrets. `uid`: whose the files are to be."""
        self._certificate, self._root, self._uid = certificate, root, uid

    @property
    def sources(self) -> Sources:
        return Sources(
            secret=lambda name: _source(f"sds/{name}", "secret.json"),
            routes=lambda name: _source(f"rds/{name}", "routes.json"),
        )

    def lay_out(self, directory: Path) -> None:
        for name in ("lds", "cds", "rds", "sds", f"sds/{self._certificate}", f"sds/{self._root}"):
            private_directory(directory / name, self._uid)

    def bring(
        self, configs: Mapping[Path, ProxyConfig], version: str, identities: Mapping[Path, IdentityFiles]
    ) -> Mapping[Path, DeliveredVersions]:
        encoded: _Encoded = {}
        return {
            directory: self._bring(directory, config, version, identities[directory], encoded)
            for directory, config in configs.items()
        }

    def _bring(
        self,
        directory: Path,
        config: ProxyConfig,
        version: str,
        identity: IdentityFiles,
        encoded: _Encoded,
    ) -> DeliveredVersions:
        secrets: Mapping[str, Json] = {
            self._certificate: {
                "tls_certificate": {
                    "certificate_chain": {"filename": str(identity.chain)},
                    "private_key": {"filename": str(identity.key)},
                }
            },
            self._root: {
                "validation_context": {
                    "trusted_ca": {"filename": str(identity.root)},
                    **({"crl": {"filename": str(identity.crl)}} if identity.crl else {}),
                }
            },
        }
        for name, secret in secrets.items():
            text = _response(identity.chain.name, _SECRET, [{"name": name, **secret}], {})
            self._replace(directory / "sds" / name / "secret.json", text)
        clusters = _response(version, _CLUSTER, config.clusters, encoded)
        self._replace(directory / "cds" / "cds.json", clusters)
        listeners = _response(version, _LISTENER, config.listeners, encoded)
        self._replace(directory / "lds" / "lds.json", listeners)
        for port, table in config.routes.items():
            private_directory(directory / "rds" / str(port), self._uid)
            path = directory / "rds" / str(port) / "routes.json"
            self._replace(path, _response(_ROUTES_VERSION, _ROUTES, [table], encoded))
        uses_tls = any(f'"{self._root}"' in text for text in (clusters, listeners))
        return DeliveredVersions(
            version, dict.fromkeys(config.routes, _ROUTES_VERSION), identity.chain.name if uses_tls else None
        )

    def _replace(self, path: Path, text: str) -> None:
        if not path.exists() or path.read_text() != text:
            write_private(path, text, self._uid)


def _source(directory: str, file: str) -> Json:
    return {
        "path_config_source": {
            "path": f"{directory}/{file}",
            "watched_directory": {"path": directory},
        },
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
    }


def _response(version: str, kind: str, resources: Sequence[Json], encoded: _Encoded) -> str:
    def text(resource: Json) -> str:
        if id(resource) not in encoded:
            encoded[id(resource)] = _json({"@type": kind, **resource})
        return encoded[id(resource)]

    return f'{{"version_info":{_json(version)},"resources":[{",".join(map(text, resources))}]}}'


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), check_circular=False)  # a quarter of the time
