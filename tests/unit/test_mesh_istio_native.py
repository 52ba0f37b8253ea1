"""Istio's own filters: which are switched on, what they replace, and which differences then vanish."""

from __future__ import annotations

import json
import platform
import struct
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.mesh_samples import CELL, view

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.binaries.known import Wanted, architecture_of
from meshwise.mesh.binaries.store import BinaryStore
from meshwise.mesh.delivery.seam import ProxyConfig
from meshwise.mesh.istio import binary, fidelity, native, posture
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.istio.native import NAMES, Json, Native
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import Options
from meshwise.study.model import LADDER

FORMER, LATER = (Native(**{kind: names[age] for kind, names in NAMES.items()}) for age in (0, 1))
CLOSED_BY = {
    "metadata": "istio-metadata-exchange",
    "stats": "istio-metrics",
    "alpn": "istio-alpn",
    "tcp_metadata": "istio-tcp-metadata",
    "tcp_stats": "istio-tcp-metrics",
}


def objects(value: object) -> Iterable[Json]:
    if isinstance(value, dict):
        yield value
    for inner in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    ):
        yield from objects(inner)


def a_binary_with(*names: str) -> native.Accepts:
    """Refuses a configuration that names an extension of Istio that it does not have, as Envoy does."""
    known = {name for both in NAMES.values() for name in both} - set(names)
    return lambda config: not any(each.get("name") in known for each in objects(config))


def test_a_binary_of_the_former_generation() -> None:
    assert native.find(a_binary_with("istio.metadata_exchange", "istio.stats", "istio.alpn")) == FORMER


def test_a_binary_of_the_later_generation() -> None:
    assert native.find(a_binary_with(*(names[1] for names in NAMES.values()))) == LATER


def test_a_binary_that_has_both_names_is_asked_no_further() -> None:
    asked: list[Json] = []
    assert native.find(lambda config: asked.append(config) is None) == FORMER
    assert len(asked) == len(NAMES)


def test_a_binary_with_some_of_them_keeps_the_other_stand_ins() -> None:
    found = native.find(a_binary_with("istio.stats", "envoy.filters.http.alpn"))
    assert found == Native(stats="istio.stats", tcp_stats="istio.stats", alpn="envoy.filters.http.alpn")
    assert not found.complete


def test_upstream_envoy_has_none() -> None:
    assert native.find(a_binary_with()) == Native()


def test_each_is_asked_in_every_place_where_it_is_put() -> None:
    """Every extension message that the finished configuration holds was in a question."""
    asked: list[Json] = []
    native.find(lambda config: asked.append(config) is None)
    wanted = {json.dumps(each) for each in istio_extensions(config_with(FORMER))}
    wanted |= {json.dumps(each) for each in istio_extensions(config_with(FORMER, "client"))}
    assert wanted
    assert wanted <= {json.dumps(each) for each in istio_extensions(asked)}


@pytest.mark.parametrize("have", [FORMER, LATER])
def test_they_replace_every_stand_in(have: Native) -> None:
    for workload in ("client", "node-1"):
        config = config_with(have, workload)
        text = json.dumps([config.listeners, config.clusters, list(config.routes.values())])
        assert "x-envoy-peer-metadata" not in text
        assert "access_loggers.stats" not in text
        assert "set_filter_state" not in text
        named = {each["name"] for each in istio_extensions(config)}
        assert named == {getattr(have, kind) for kind in NAMES}


def test_without_telemetry_only_the_alpn_filter_is_left() -> None:
    config = config_with(FORMER, "client", telemetry=False)
    assert {each["name"] for each in istio_extensions(config)} == {"istio.alpn"}


@pytest.mark.parametrize("kind", NAMES)
def test_one_filter_changes_nothing_but_its_own_place(kind: str) -> None:
    alone = config_with(replace(Native(), **{kind: NAMES[kind][0]}))
    assert {each["name"] for each in istio_extensions(alone)} <= {NAMES[kind][0]}
    codes = codes_of(replace(Native(), **{kind: NAMES[kind][0]}))
    assert codes_of(Native()) - codes == ({CLOSED_BY[kind]} if kind in CLOSED_BY else set())


@pytest.mark.parametrize("have", [FORMER, LATER])
def test_the_fidelity_card_shrinks(have: Native) -> None:
    assert codes_of(Native()) - codes_of(have) == {*CLOSED_BY.values(), "istio-upstream"}
    assert codes_of(have) - codes_of(Native()) == {"istio-typed-struct"}, "which only such a binary has"


def test_every_field_has_two_names() -> None:
    assert set(NAMES) == {field.name for field in fields(Native)}


def test_the_filters_are_part_of_what_a_version_is_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same posture with other filters is another configuration, and the proof can tell."""
    prints = set()
    for have in (Native(), FORMER, LATER):
        monkeypatch.setattr(binary, "istio_filters", lambda path, have=have: have)
        monkeypatch.setattr(binary, "envoy_path", lambda: Path("/envoy"))
        prints.add(IstioMesh().model.fingerprint(CELL, "cluster.local"))
    assert len(prints) == 3


# --- which binary ----------------------------------------------------------------------------------


def a_stored_binary(tmp_path: Path, version: str) -> dict[str, str]:
    """A cache with one istio binary in it, as `proxies pull` leaves it; its environment."""
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    machine = {"x86_64": 62, "aarch64": 183}[platform.machine()]
    program = tmp_path / "envoy"
    program.write_bytes(b"\x7fELF\x02\x01" + bytes(12) + struct.pack("<H", machine))
    architecture = architecture_of(platform.machine())
    BinaryStore.of_user(environment).keep(program, Wanted("istio", version), architecture, "a test")
    return environment


def chosen(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], named: str | None) -> Path:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(binary.VARIABLE, raising=False)
    if named:
        monkeypatch.setenv(binary.VARIABLE, named)
    return binary.envoy_path()


def test_a_stored_binary_runs_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = a_stored_binary(tmp_path, "1.30.3")
    path = chosen(monkeypatch, environment, "istio@1.30.3")
    assert path.is_relative_to(tmp_path / "cache")
    assert chosen(monkeypatch, environment, "istio@latest-known") == path


def test_a_stored_binary_changes_nothing_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = a_stored_binary(tmp_path, "1.30.3")
    assert not chosen(monkeypatch, environment, None).is_relative_to(tmp_path)


def test_one_that_is_not_stored_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = a_stored_binary(tmp_path, "1.30.3")
    with pytest.raises(MeshwiseError) as refused:
        chosen(monkeypatch, environment, "istio@1.29.6")
    assert refused.value.code == "MW403"
    assert "meshwise proxies pull istio@1.29.6" in str(refused.value)


def test_a_binary_that_cannot_start_says_why(tmp_path: Path) -> None:
    """One without its libraries, or without memory for them."""
    program = tmp_path / "envoy"
    program.write_text("#!/bin/sh\necho 'envoy: cannot open shared object file' >&2; exit 127\n")
    program.chmod(0o755)
    with pytest.raises(MeshwiseError, match="it ended with status 127: envoy: cannot open shared") as refused:
        binary.facts(program)
    assert refused.value.code == "MW403"


# --- helpers ---------------------------------------------------------------------------------------


def config_with(have: Native, workload: str = "node-1", *, telemetry: bool = True) -> ProxyConfig:
    resources = posture.resources(replace(CELL, posture=LADDER[4]), '{"keys":[]}')
    return translate(view(resources, options=Options(native=have, telemetry=telemetry)), workload)


def istio_extensions(made: Any) -> list[Json]:
    """Every filter in it whose message is Istio's own."""
    if isinstance(made, ProxyConfig):
        made = [made.listeners, made.clusters, list(made.routes.values())]
    return [
        each
        for each in objects(made)
        if "typed_config" in each
        and any(
            each["typed_config"].get(key, "").startswith(f"type.googleapis.com/{package}.")
            for key in ("@type", "type_url")
            for package in ("io.istio", "stats", "istio", "envoy.tcp.metadataexchange")
        )
    ]


def codes_of(have: Native) -> set[str]:
    return {each.code for each in fidelity.differences(Options(native=have), privileged=True)}
