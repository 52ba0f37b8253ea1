"""The conformance suite of the seam `Delivery`: what a mesh may rely on, however configuration travels.

Subclass it and say how to make one, and how proxies come to take up what it brings:

    class TestMine(DeliveryConformance):
        def make(self, home: Path) -> Delivery: ...
        @contextmanager
        def running(self, home: Path, proxies: Mapping[Path, str]) -> Iterator[None]: ...

A proxy whose name is in `REFUSES` refuses every listener with `WORDS`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from meshwise.mesh.delivery.seam import Acknowledgement, DeliveredVersions, Delivery, ProxyConfig, Sources
from meshwise.mesh.files import private_directory
from meshwise.mesh.identity import CertificateAuthority, IdentityFiles, make_key, store
from meshwise.mesh.istio import posture
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import View
from meshwise.mesh.tokens import tokens
from meshwise.study.model import LADDER, Cell, KeyType
from tests.support.mesh_samples import CELL, view

PLAIN, STRICT = CELL, replace(CELL, posture=LADDER[2])
WORDS = "listener virtualInbound: no such thing"
REFUSES = "refuses"
WITHIN_S = 20.0
_AUTHORITY = CertificateAuthority(key_type=KeyType.ECDSA_P256)


def seen_through(delivery: Delivery, cell: Cell) -> View:
    return replace(view(posture.resources(cell, tokens().jwks)), sources=delivery.sources)


def identity(directory: Path) -> IdentityFiles:
    """A new certificate in a proxy's directory."""
    made = _AUTHORITY.issue("backend", "node-1", make_key(KeyType.ECDSA_P256))
    return store(made, _AUTHORITY.root_pem, private_directory(directory / "keys"), "ecdsa")


class DeliveryConformance:
    def make(self, home: Path) -> Delivery:
        """One whose proxies have their directories in `home`."""
        raise NotImplementedError

    def running(self, home: Path, proxies: Mapping[Path, str]) -> object:
        """A context manager: within, these proxies run, which call themselves so."""
        raise NotImplementedError

    def bring(
        self, delivery: Delivery, directory: Path, cell: Cell, version: str, node: str = "proxy"
    ) -> DeliveredVersions:
        delivery.lay_out(directory)
        config = replace(translate(seen_through(delivery, cell), "node-1"), node=node)
        return delivery.bring({directory: config}, version, {directory: identity(directory)})[directory]

    def test_what_it_says_it_brought_is_what_a_proxy_will_report(self, tmp_path: Path) -> None:
        brought = self.bring(self.make(tmp_path), tmp_path / "one", STRICT, "v1")
        assert (brought.clusters, brought.listeners) == ("v1", "v1")
        assert set(brought.secrets) == {"default", "ROOTCA"}

    def test_in_plaintext_nobody_waits_for_secrets(self, tmp_path: Path) -> None:
        assert self.bring(self.make(tmp_path), tmp_path / "one", PLAIN, "v1").secrets == {}

    def test_each_proxy_of_a_push_is_told(self, tmp_path: Path) -> None:
        delivery, directories = self.make(tmp_path), [tmp_path / "one", tmp_path / "other"]
        for directory in directories:
            delivery.lay_out(directory)
        config = translate(seen_through(delivery, STRICT), "node-1")
        brought = delivery.bring(
            {directory: replace(config, node=directory.name) for directory in directories},
            "v1",
            {directory: identity(directory) for directory in directories},
        )
        assert set(brought) == set(directories)

    def test_what_does_not_differ_keeps_its_version(self, tmp_path: Path) -> None:
        delivery = self.make(tmp_path)
        self.bring(delivery, tmp_path / "one", STRICT, "v1")
        with self.running(tmp_path, {tmp_path / "one": "proxy"}):  # type: ignore[attr-defined]
            fine = self.bring(delivery, tmp_path / "one", replace(STRICT, posture=LADDER[4]), "v2")
            assert (fine.clusters, fine.listeners) == ("v1", "v2")

    def test_what_proxies_made_of_it_is_told(self, tmp_path: Path) -> None:
        one, other = tmp_path / "one", tmp_path / "other"
        delivery = self.make(tmp_path)
        self.bring(delivery, one, PLAIN, "v1", "willing")
        self.bring_first(delivery, other)
        with self.running(tmp_path, {one: "willing", other: REFUSES}):  # type: ignore[attr-defined]
            begun_ns = time.monotonic_ns()
            config = translate(seen_through(delivery, STRICT), "node-1")
            delivery.bring(
                {one: replace(config, node="willing"), other: replace(config, node=REFUSES)},
                "v2",
                {directory: identity(directory) for directory in (one, other)},
            )
            told = delivery.acknowledged([one, other], WITHIN_S)
            assert told[one].refused == {}
            assert told[one].done_ns is not None
            assert begun_ns <= told[one].accepted_ns <= told[one].done_ns <= time.monotonic_ns()
            assert told[other].refused == {"Listener": WORDS}

    def bring_first(self, delivery: Delivery, other: Path) -> None:
        """A second proxy of the first push."""
        self.bring(delivery, other, PLAIN, "v1", REFUSES)

    def test_sources_are_the_same_each_time(self, tmp_path: Path) -> None:
        delivery = self.make(tmp_path)
        for source in (delivery.sources.secret, delivery.sources.routes, delivery.sources.endpoints):
            assert source("a") == source("a")

    def test_configuration_says_where_its_parts_come_from(self, tmp_path: Path) -> None:
        delivery = self.make(tmp_path)
        text = repr(translate(seen_through(delivery, STRICT), "node-1"))
        assert repr(delivery.sources.secret("default")) in text
        assert repr(delivery.sources.routes("8080")) in text
        assert repr(delivery.sources.endpoints("outbound|8080||x")) in text


class KeptDelivery:
    """Keeps what it is given, by the proxies' directories, which it never opens."""

    def __init__(self) -> None:
        self.kept: dict[Path, ProxyConfig] = {}
        self._versions: dict[tuple[Path, str], tuple[object, str]] = {}
        self._accepted_ns = 0

    @property
    def sources(self) -> Sources:
        return Sources(
            secret=lambda name: {"secret": name},
            routes=lambda name: {"routes": name},
            endpoints=lambda name: {"endpoints": "all"},
        )

    def lay_out(self, directory: Path) -> None:
        """Keys are put there, nothing else."""
        private_directory(directory)

    def bring(
        self, configs: Mapping[Path, ProxyConfig], version: str, identities: Mapping[Path, IdentityFiles]
    ) -> Mapping[Path, DeliveredVersions]:
        self._accepted_ns = time.monotonic_ns()
        self.kept.update(configs)
        return {
            directory: DeliveredVersions(
                self._version(directory, "listeners", config.listeners, version),
                self._version(directory, "clusters", config.clusters, version),
                {"default": version, "ROOTCA": version} if "'secret'" in repr(config) else {},
            )
            for directory, config in configs.items()
        }

    def _version(self, directory: Path, kind: str, value: object, version: str) -> str:
        last = self._versions.get((directory, kind))
        if last is None or last[0] != value:
            self._versions[directory, kind] = last = (value, version)
        return last[1]

    def acknowledged(self, directories: object, within_s: float) -> Mapping[Path, Acknowledgement]:
        assert isinstance(directories, list)
        return {
            directory: Acknowledgement(
                self._accepted_ns,
                time.monotonic_ns(),
                True,
                {"Listener": WORDS} if self.kept[directory].node == REFUSES else {},
            )
            for directory in directories
        }


@contextmanager
def nothing_runs() -> Iterator[None]:
    yield
