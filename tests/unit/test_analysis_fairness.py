"""The fairness card: only what is compared, observed before configured, and what a study can remove."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import polars as pl
from tests.support.synthetic import cell, ladder_cells

from meshwise.analysis.compare import between_meshes
from meshwise.analysis.contrast import Naming
from meshwise.analysis.fairness import Entry, facts_of, fairness, unlike
from meshwise.archive.rows import cell_row
from meshwise.mesh.istio.traits import traits as istio_traits
from meshwise.mesh.istio.view import Options
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.traits import traits as linkerd_traits
from meshwise.mesh.traits import NAMES, TRAITS
from meshwise.study.factors import BY_KEY
from meshwise.study.model import LADDER, Cell, Http1Transport, KeyType, MeshName, Protocol

TRAITS_OF = {
    "istio": istio_traits(Options(), "BoringSSL"),
    "linkerd": linkerd_traits(Transport(), "rustls"),
}
BOTH = (MeshName.ISTIO, MeshName.LINKERD)


def card(cells: tuple[Cell, ...], facts: dict[Cell, dict[str, str]] | None = None) -> dict[str, Entry]:
    return {entry.trait.name: entry for entry in fairness(cells, TRAITS_OF, facts or {})}


def test_meshes_speak_the_vocabulary_and_each_says_the_same_points() -> None:
    assert set(TRAITS_OF["istio"]) == set(TRAITS_OF["linkerd"]) < set(NAMES)
    assert all(value for traits in TRAITS_OF.values() for value in traits.values())


def test_values_follow_the_settings() -> None:
    assert istio_traits(Options(telemetry=False), "")["request_telemetry"] == "off"
    assert linkerd_traits(Transport(http2_upgrade=False), "")["http1_transport"] == "http1"


def test_what_removes_a_difference_is_a_key_of_the_study_file() -> None:
    for trait in TRAITS:
        if trait.factor:
            assert trait.factor in {factor.field for factor in BY_KEY.values()}
            assert trait.removed_by
    named = {trait.removed_by.strip("`").partition(":")[0].partition("`")[0] for trait in TRAITS}
    assert named - {""} == {
        "workers", "http1_transport", "tls_group", "key", "tls_version", "resumption", "chain_depth", "crl",
        "san_match", "certificate_life",
    }  # fmt: skip


def test_with_one_mesh_there_is_nothing_to_compare() -> None:
    assert card(ladder_cells(MeshName.ISTIO)) == {}


def test_a_difference_says_how_to_remove_it_or_why_not() -> None:
    found = card(ladder_cells(*BOTH))
    assert not found["http1_transport"].equal
    assert "http1_transport" in found["http1_transport"].removable
    assert found["tls_library"].why_not
    assert found["access_log"].equal
    assert found["access_log"].removable == found["access_log"].why_not == ""


def test_a_level_of_the_study_makes_it_equal() -> None:
    found = card(ladder_cells(*BOTH, http1_transport=Http1Transport.HTTP1))
    assert found["http1_transport"].equal
    assert set(found["http1_transport"].values.values()) == {"http1"}


def test_what_proofs_observed_stands_above_what_is_configured() -> None:
    one, other = cell(MeshName.ISTIO), cell(MeshName.LINKERD)
    found = card((one, other), {one: {"tls_group": "X25519"}, other: {"tls_group": "X25519MLKEM768"}})
    assert found["tls_group"].basis == "observed"
    assert found["tls_group"].values == {MeshName.ISTIO: "X25519", MeshName.LINKERD: "X25519MLKEM768"}
    assert found["http1_transport"].basis == "configured"


def test_what_is_known_of_one_mesh_only_is_not_equal_and_of_none_is_left_out() -> None:
    one, other = cell(MeshName.ISTIO), cell(MeshName.LINKERD)
    found = card((one, other), {one: {"workers": "2"}})
    assert not found["workers"].equal
    assert found["workers"].values[MeshName.LINKERD] == "unknown"
    assert "tls_cipher" not in found


def test_what_means_nothing_to_what_is_compared_is_left_out() -> None:
    tcp = card((cell(MeshName.ISTIO, protocol=Protocol.TCP), cell(MeshName.LINKERD, protocol=Protocol.TCP)))
    assert not {"http1_transport", "retries", "http2_windows"} & set(tcp)
    assert "tls_library" in tcp
    plain = [cell(mesh, LADDER[0]) for mesh in BOTH]
    assert "tls_library" not in card((plain[0], plain[1]))


def test_facts_are_those_of_good_trials_all_values_where_they_differ() -> None:
    one = cell(key_type=KeyType.ECDSA_P256)
    rows = [
        cell_row(one) | {"status": status, "proof": json.dumps({"facts": {"build": build}})}
        for status, build in (("ok", "a"), ("ok", "b"), ("failed", "c"))
    ]
    assert facts_of(pl.DataFrame(rows)) == {one: {"build": "a or b"}}
    old = {name: value for name, value in rows[0].items() if name not in ("http1_transport", "tls_group")}
    assert facts_of(pl.DataFrame([old])) == {replace(one): {"build": "a"}}, "an archive without the factors"


def test_entries_fit_the_schema() -> None:
    schema = json.loads(Path("docs/findings.schema.json").read_text())["properties"]["fairness"]
    entries = [entry.as_json() for entry in card(ladder_cells(*BOTH)).values()]
    assert entries
    jsonschema.validate(entries, schema)


def test_a_comparison_says_what_differs_though_the_study_says_the_same() -> None:
    one, other = cell(MeshName.ISTIO), cell(MeshName.LINKERD)
    (contrast,) = between_meshes((one, other), Naming.of((one, other)))
    assert tuple(map(str, unlike(contrast, TRAITS_OF, {}))) == (
        "unequal: HTTP/1.1 between sidecars: http1 in istio, http2 in linkerd",
    )
    equal = [replace(each, http1_transport=Http1Transport.HTTP2) for each in (one, other)]
    (contrast,) = between_meshes(equal, Naming.of(equal))
    assert unlike(contrast, TRAITS_OF, {}) == ()
