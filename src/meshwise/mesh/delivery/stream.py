"""Delivery by streams, as istiod and the agents of pods do it: the side that hands configuration over.

    configuration (JSON) -> snapshot file -> controller -> ADS and SDS -> proxies

Rules of this file:
- The snapshot is written before the control plane is told, so one that starts later, or again, has it.
- The first push is there before the control plane starts: nobody is told of it.
- The version of a type changes only when something of that type differs for the proxy.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.mesh import commands
from meshwise.mesh.delivery.encode import Encoder
from meshwise.mesh.delivery.names import (
    COMMAND_SOCKET,
    PROXY_UID_FILE,
    SDS_CLUSTER,
    SDS_SOCKET,
    SNAPSHOT_FILE,
)
from meshwise.mesh.delivery.resources import (
    EMPTY,
    ProxyEntry,
    Resource,
    SecretFiles,
    Snapshot,
    XdsKind,
    write_snapshot,
)
from meshwise.mesh.delivery.seam import Acknowledgement, DeliveredVersions, Json, ProxyConfig, Sources
from meshwise.mesh.files import private_directory, write_private
from meshwise.mesh.identity import IdentityFiles

ANSWER_S = 0.5
"""A control plane that answers no question in this time stands still."""


def _by_ads(name: str) -> Json:
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _by_agent(name: str) -> Json:
    return {
        "api_config_source": {
            "api_type": "GRPC",
            "set_node_on_first_message_only": True,
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": SDS_CLUSTER}}],
        },
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
    }


SOURCES = Sources(secret=_by_agent, routes=_by_ads, endpoints=_by_ads)
"""istio: pkg/model/authentication.go for secrets; pilot/pkg/networking/core for the others."""


class StreamDelivery:
    """See `meshwise.mesh.delivery.seam.Delivery`. Of one placement: its proxies' directories lie beside
    `directory`, which is the control plane's. Keeps what it brought last."""

    def __init__(
        self, directory: Path, certificate: str, root: str, uid: int | None, control_s: float
    ) -> None:
        """`certificate`, `root`: names of the two secrets. `uid`: whose the proxies are. `control_s`: for the
        control plane to carry out a command."""
        self._directory = directory
        self._certificate, self._root, self._uid = certificate, root, uid
        self._control_s = control_s
        self._last = EMPTY
        self._nodes: dict[Path, str] = {}
        self._encoder = Encoder()
        self._encoded: dict[str, Resource] = {}
        """What the last push consisted of, by the text of each resource."""

    @property
    def sources(self) -> Sources:
        return SOURCES

    def lay_out(self, directory: Path) -> None:
        private_directory(directory, self._uid)
        private_directory(self._directory, self._uid)
        write_private(self._directory / PROXY_UID_FILE, "" if self._uid is None else str(self._uid))

    def bring(
        self,
        configs: Mapping[Path, ProxyConfig],
        version: str,
        identities: Mapping[Path, IdentityFiles],
        *,
        heard: bool = True,
    ) -> Mapping[Path, DeliveredVersions]:
        """`heard`: False while the control plane answers nothing (`silence`): one that comes back finds it,
        one that stands still does it when it goes on. Raises MW421."""
        push = _Push(version, self._encoder, self._encoded, self._last)
        entries = {
            config.node: push.entry(directory, config, self._secrets(identities[directory]))
            for directory, config in configs.items()
        }
        proxies = {**self._last.proxies, **entries}
        blobs = {**self._last.blobs, **{each.version: each.body for each in push.encoded.values()}}
        used = {
            digest
            for each in proxies.values()
            for _, names in each.types.values()
            for digest in names.values()
        }
        snapshot = Snapshot(
            self._last.number + 1, proxies, {digest: blobs[digest] for digest in sorted(used)}
        )
        write_snapshot(self._directory / SNAPSHOT_FILE, snapshot)
        begun = self._last is not EMPTY
        self._last, self._encoded = snapshot, push.encoded
        self._nodes.update({directory: config.node for directory, config in configs.items()})
        if begun and heard:
            self._tell({"word": "reload"}, 0.0)
        elif begun:
            self._tell_the_silent({"word": "reload"}, ANSWER_S)
        return {directory: _versions(snapshot, entries[config.node]) for directory, config in configs.items()}

    def acknowledged(self, directories: Collection[Path], within_s: float) -> Mapping[Path, Acknowledgement]:
        """Raises MW421."""
        order = {
            "word": "answers",
            "nodes": [self._nodes[directory] for directory in directories],
            "number": self._last.number,
            "within_s": within_s,
        }
        found = self._tell(order, within_s)
        return {
            directory: _acknowledgement(found["accepted_ns"], found["proxies"][self._nodes[directory]])
            for directory in directories
        }

    def status(self) -> Mapping[str, Any]:
        """See `controller.XdsControlPlane.command`. Raises MW421."""
        return self._tell({"word": "status"}, 0.0)

    def silence(self, slowness: float) -> str:
        """Why the control plane cannot be asked for something now; empty if it can."""
        return self._tell_the_silent({"word": "status"}, ANSWER_S * slowness)

    def _tell_the_silent(self, order: dict[str, object], within_s: float) -> str:
        try:
            commands.tell(self._directory / COMMAND_SOCKET, order, self._who, within_s)
        except MeshwiseError as error:
            if error.code != messages.CONTROLLER_SILENT.code:
                raise
            return error.what
        return ""

    @property
    def _who(self) -> str:
        return f"{self._directory.parent.parent.name}/{self._directory.parent.name}"

    def _tell(self, order: dict[str, object], waits_s: float) -> dict[str, Any]:
        return commands.tell(self._directory / COMMAND_SOCKET, order, self._who, waits_s + self._control_s)

    def _secrets(self, identity: IdentityFiles) -> Mapping[str, SecretFiles]:
        return {
            self._certificate: SecretFiles(chain=identity.chain, key=identity.key),
            self._root: SecretFiles(root=identity.root, crl=identity.crl),
        }


class _Push:
    """One push in the making."""

    def __init__(
        self, version: str, encoder: Encoder, former: Mapping[str, Resource], last: Snapshot
    ) -> None:
        self._version, self._encoder, self._former, self._last = version, encoder, former, last
        self.encoded: dict[str, Resource] = {}
        self._by_identity: dict[int, Resource] = {}
        """What proxies share is the same value, and is looked at once."""

    def entry(self, directory: Path, config: ProxyConfig, secrets: Mapping[str, SecretFiles]) -> ProxyEntry:
        last = self._last.proxies.get(config.node)
        made: dict[XdsKind, Iterable[Json]] = {
            XdsKind.CLUSTERS: config.clusters,
            XdsKind.ENDPOINTS: config.endpoints,
            XdsKind.LISTENERS: config.listeners,
            XdsKind.ROUTES: config.routes.values(),
        }
        types = {}
        for kind, resources in made.items():
            names = {each.name: each.version for each in (self._encode(kind, one) for one in resources)}
            former = last and last.types[kind]
            types[kind] = former if former and former[1] == names else (self._version, names)
        return ProxyEntry(f"{directory.name}/{SDS_SOCKET}", secrets, types)

    def _encode(self, kind: XdsKind, resource: Json) -> Resource:
        found = self._by_identity.get(id(resource))
        if found is None:
            text = f"{kind}{json.dumps(resource, separators=(',', ':'), check_circular=False)}"
            found = self.encoded.get(text) or self._former.get(text) or self._encoder.encode(kind, resource)
            self._by_identity[id(resource)] = self.encoded[text] = found
        return found


def _versions(snapshot: Snapshot, entry: ProxyEntry) -> DeliveredVersions:
    uses_tls = any(
        SDS_CLUSTER.encode() in snapshot.blobs[digest]
        for kind in (XdsKind.CLUSTERS, XdsKind.LISTENERS)
        for digest in entry.types[kind][1].values()
    )
    return DeliveredVersions(
        listeners=entry.types[XdsKind.LISTENERS][0],
        clusters=entry.types[XdsKind.CLUSTERS][0],
        secrets={name: files.version() for name, files in entry.secrets.items()} if uses_tls else {},
    )


def _acknowledgement(accepted_ns: int | None, told: Mapping[str, Any]) -> Acknowledgement:
    times = [each["answered_ns"] for each in told["answers"]]
    accepted_ns = accepted_ns or 0
    return Acknowledgement(
        accepted_ns=accepted_ns,
        done_ns=max(times, default=accepted_ns) if told["done"] else None,
        connected=told["connected"],
        refused=told["refused"],
    )
