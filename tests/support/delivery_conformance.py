"""The conformance suite of the seam `Delivery`: what a mesh may rely on, however configuration travels.

Subclass it and say how to make one:

    class TestMine(DeliveryConformance):
        def make(self) -> Delivery: ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from meshwise.mesh.delivery.seam import DeliveredVersions, Delivery, ProxyConfig, Sources
from meshwise.mesh.identity import IdentityFiles, files_of
from meshwise.mesh.istio import posture
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import View
from meshwise.study.model import LADDER, Cell
from tests.support.mesh_samples import CELL, view

STRICT, PLAIN = replace(CELL, posture=LADDER[2]), CELL
IDENTITY = files_of(Path("/keys"), "rsa-2048")


def seen_through(delivery: Delivery, cell: Cell) -> View:
    return replace(view(posture.resources(cell, "{}")), sources=delivery.sources)


class DeliveryConformance:
    def make(self) -> Delivery:
        raise NotImplementedError

    def bring(self, delivery: Delivery, directory: Path, cell: Cell, version: str) -> DeliveredVersions:
        config = translate(seen_through(delivery, cell), "node-1")
        return delivery.bring({directory: config}, version, {directory: IDENTITY})[directory]

    def test_what_it_says_it_brought_is_what_a_proxy_will_report(self, tmp_path: Path) -> None:
        delivery = self.make()
        delivery.lay_out(tmp_path)
        brought = self.bring(delivery, tmp_path, STRICT, "v1")
        assert brought.version == "v1"
        assert brought.secrets_version
        assert set(brought.routes_versions) == set(translate(seen_through(delivery, STRICT), "node-1").routes)

    def test_in_plaintext_nobody_waits_for_secrets(self, tmp_path: Path) -> None:
        delivery = self.make()
        delivery.lay_out(tmp_path)
        assert self.bring(delivery, tmp_path, PLAIN, "v1").secrets_version is None

    def test_each_proxy_of_a_push_is_told(self, tmp_path: Path) -> None:
        delivery, directories = self.make(), [tmp_path / "one", tmp_path / "other"]
        for directory in directories:
            delivery.lay_out(directory)
        config = translate(seen_through(delivery, STRICT), "node-1")
        brought = delivery.bring(
            dict.fromkeys(directories, config), "v1", dict.fromkeys(directories, IDENTITY)
        )
        assert set(brought) == set(directories)

    def test_sources_differ_by_name_and_are_the_same_each_time(self) -> None:
        delivery = self.make()
        for source in (delivery.sources.secret, delivery.sources.routes):
            assert source("a") == source("a") != source("b")

    def test_configuration_says_where_its_parts_come_from(self) -> None:
        delivery = self.make()
        text = repr(translate(seen_through(delivery, STRICT), "node-1"))
        assert repr(delivery.sources.secret("default")) in text
        assert repr(delivery.sources.routes("8080")) in text


class KeptDelivery:
    """Keeps what it is given, by the proxies' directories, which it never opens."""

    def __init__(self) -> None:
        self.kept: dict[Path, ProxyConfig] = {}

    @property
    def sources(self) -> Sources:
        return Sources(secret=lambda name: {"secret": name}, routes=lambda name: {"routes": name})

    def lay_out(self, directory: Path) -> None:
        """A proxy needs nothing before it starts."""

    def bring(
        self, configs: Mapping[Path, ProxyConfig], version: str, identities: Mapping[Path, IdentityFiles]
    ) -> Mapping[Path, DeliveredVersions]:
        self.kept.update(configs)
        return {
            directory: DeliveredVersions(
                version,
                dict.fromkeys(config.routes, version),
                version if "'secret'" in repr(config) else None,
            )
            for directory, config in configs.items()
        }
