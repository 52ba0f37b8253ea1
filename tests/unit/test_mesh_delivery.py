"""Files for a sidecar: what is written, when it is left alone, and when a push counts as taken up."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.delivery_conformance import DeliveryConformance, KeptDelivery
from tests.support.mesh_samples import CELL, config, view

from meshwise.mesh.delivery.files import FileDelivery
from meshwise.mesh.delivery.seam import Delivery
from meshwise.mesh.identity import files_of
from meshwise.mesh.istio import clusters, posture, taken_up, tls
from meshwise.mesh.istio.admin import grown, total
from meshwise.mesh.istio.taken_up import Pushed, left, missing
from meshwise.mesh.istio.translate import translate
from meshwise.study.model import LADDER, Cell

STRICT = replace(CELL, posture=LADDER[2])


def push(directory: Path, cell: Cell, version: str = "v1") -> Pushed:
    files = files_delivery()
    files.lay_out(directory)
    identity = files_of(Path("/keys"), "rsa-2048")
    return Pushed(files.bring({directory: config(cell, "node-1")}, version, {directory: identity})[directory])


def files_delivery() -> FileDelivery:
    return FileDelivery(tls.CERTIFICATE_SECRET, tls.ROOT_SECRET, None)


class TestFileDelivery(DeliveryConformance):
    def make(self) -> Delivery:
        return files_delivery()


class TestKeptDelivery(DeliveryConformance):
    """A delivery that keeps what it is given: the seam asks for nothing that only files have."""

    def make(self) -> Delivery:
        return KeptDelivery()


def test_every_resource_has_a_directory_of_its_own(tmp_path: Path) -> None:
    push(tmp_path, STRICT)
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json"))
    assert written == [
        "cds/cds.json", "lds/lds.json",
        "rds/8080/routes.json", "rds/8081/routes.json", "rds/8082/routes.json",
        "sds/ROOTCA/secret.json", "sds/default/secret.json",
    ]  # fmt: skip
    assert len({str(Path(path).parent) for path in written}) == len(written)


def test_lists_of_revoked_certificates_come_with_the_root(tmp_path: Path) -> None:
    files = files_delivery()
    files.lay_out(tmp_path)
    for revoked in (True, False):
        identity = files_of(Path("/keys"), "rsa-2048-crl5", revoked=revoked)
        files.bring({tmp_path: config(STRICT, "node-1")}, "v1", {tmp_path: identity})
        secret = json.loads((tmp_path / "sds/ROOTCA/secret.json").read_text())["resources"][0]
        wanted = {"filename": "/keys/rsa-2048-crl5.crl.pem"} if revoked else None
        assert secret["validation_context"].get("crl") == wanted


def test_files_name_real_places_and_hold_no_key(tmp_path: Path) -> None:
    push(tmp_path, STRICT)
    listeners = (tmp_path / "lds" / "lds.json").read_text()
    named = re.findall(r'"path":"([^"]+)"', listeners)
    assert "sds/default/secret.json" in named
    assert all((tmp_path / path).exists() for path in named), "relative to where the proxy runs"
    secret = json.loads((tmp_path / "sds" / "default" / "secret.json").read_text())
    assert secret["resources"][0]["tls_certificate"]["private_key"] == {"filename": "/keys/rsa-2048.key.pem"}


def test_what_does_not_change_is_left_alone(tmp_path: Path) -> None:
    push(tmp_path, STRICT)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.json")}
    push(tmp_path, replace(CELL, posture=LADDER[3]), "v2")
    changed = {path.name for path, inode in before.items() if path.stat().st_ino != inode}
    assert changed == {"lds.json", "cds.json"}


def test_nobody_waits_for_secrets_in_plaintext(tmp_path: Path) -> None:
    assert push(tmp_path, CELL).brought.secrets_version is None
    assert push(tmp_path, STRICT).brought.secrets_version == "rsa-2048.chain.pem"


TAKEN_UP = {
    "listener_manager.lds.version_text": "v1",
    "cluster_manager.cds.version_text": "v1",
    "sds.default.version_text": "rsa-2048.chain.pem",
    "sds.ROOTCA.version_text": "rsa-2048.chain.pem",
    **{f"http.outbound_0.0.0.0_{port};.rds.{port}.version_text": "routes" for port in (8080, 8081, 8082)},
    "listener_manager.total_filter_chains_draining": 0,
    "cluster.outbound|8080||node-1;.upstream_cx_active": 0,
}


def test_taken_up_is_all_of_it(tmp_path: Path) -> None:
    pushed = push(tmp_path, STRICT)
    assert missing(TAKEN_UP, pushed) == left(TAKEN_UP, pushed) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listener_manager.lds.version_text", "v0"),
        ("cluster_manager.cds.version_text", "v0"),
        ("sds.default.version_text", "ecdsa-p256.chain.pem"),
        ("http.outbound_0.0.0.0_8081;.rds.8081.version_text", ""),
        ("cluster_manager.warming_clusters", 1),
    ],
)
def test_what_is_not_taken_up_yet_is_named(tmp_path: Path, name: str, value: int | str) -> None:
    pushed = push(tmp_path, STRICT)
    found = missing({**TAKEN_UP, name: value}, pushed)
    assert len(found) == 1
    assert found[0].startswith(name)
    assert left({**TAKEN_UP, name: value}, pushed) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listener_manager.total_filter_chains_draining", 1),
        ("listener_manager.total_listeners_draining", 1),
        ("listener.0.0.0.0_15006.downstream_cx_active", 2),
        ("cluster.outbound|8080||node-1;.upstream_cx_active", 1),
    ],
)
def test_anything_left_of_the_former_configuration_is_named(tmp_path: Path, name: str, value: int) -> None:
    pushed = push(tmp_path, STRICT)
    found = left({**TAKEN_UP, name: value}, pushed)
    assert len(found) == 1
    assert found[0].startswith(name)
    assert missing({**TAKEN_UP, name: value}, pushed) == []


def test_counters_are_added_and_compared() -> None:
    before = {"a.x": 1, "b.x": 5, "text": "v1"}
    after = {"a.x": 4, "b.x": 5, "c.x": 2, "text": "v2"}
    assert grown(before, after) == {"a.x": 3, "c.x": 2}
    assert total(after, r".\.x") == 11
    assert taken_up.rejections({"cds.update_rejected": 2, "sds.default.update_rejected": 1, "x": 9}) == 3


def test_clients_of_a_store_may_have_connected_again(tmp_path: Path) -> None:
    """Whatever was left of the former configuration drains; what stands now is of the present one."""
    pushed = replace(push(tmp_path, STRICT), stores=frozenset({5432}))
    again = {**TAKEN_UP, "cluster.outbound|5432||postgres.stores;.upstream_cx_active": 3}
    assert left(again, pushed) == []
    at_the_store = {**TAKEN_UP, "listener.0.0.0.0_15006.downstream_cx_active": 3}
    assert left(at_the_store, pushed)
    assert left(at_the_store, replace(pushed, is_store=True)) == []
    draining = {**at_the_store, "listener_manager.total_filter_chains_draining": 1}
    assert left(draining, replace(pushed, is_store=True))


def test_proxies_of_one_push_share_the_text_of_what_they_share(tmp_path: Path) -> None:
    here = view(posture.resources(STRICT, "{}"))
    made: clusters.Made = {}
    identity = files_of(Path("/keys"), "rsa-2048")
    configs = {tmp_path / name: translate(here, name, made) for name in ("client", "node-2")}
    files = files_delivery()
    for directory in configs:
        files.lay_out(directory)
    files.bring(configs, "v1", dict.fromkeys(configs, identity))
    alone = tmp_path / "alone"
    files.lay_out(alone)
    files.bring({alone: configs[tmp_path / "node-2"]}, "v1", {alone: identity})
    once = (tmp_path / "node-2" / "cds" / "cds.json").read_text()
    assert once == (alone / "cds" / "cds.json").read_text()
    names = [each["name"] for each in json.loads(once)["resources"]]
    assert len(names) == len(set(names)) == len(configs[tmp_path / "node-2"].clusters)
