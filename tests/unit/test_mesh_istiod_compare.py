"""Our configuration beside istiod's: hand-made pairs, what is known, how it is told; and the command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.mesh_samples import CELL, view
from typer.testing import CliRunner

from meshwise.cli.main import app
from meshwise.cli.mesh import configurations
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio import fidelity, posture
from meshwise.mesh.istio.istiod.canonical import FieldPair, canonical, parts, resource_differences, touches
from meshwise.mesh.istio.istiod.compare import ComparedSidecars, SidecarDifference
from meshwise.mesh.istio.istiod.compare import known as known_to
from meshwise.mesh.istio.istiod.objects import (
    MARKER,
    MOST_NUMBERS,
    cluster_objects,
    marker_service,
    of_marker,
    posture_objects,
)
from meshwise.mesh.istio.istiod.store import key_of
from meshwise.mesh.istio.view import Options
from meshwise.mesh.tokens import tokens
from meshwise.report.mesh_diff import ComparedConfiguration, document, is_equal, text
from meshwise.study.file.read import load_study, parse_study
from meshwise.study.model import LADDER
from meshwise.testbed.local.checks import preflight

PAIRS = [
    ({"codec_type": "AUTO"}, {}),
    ({"codecType": "AUTO", "statPrefix": "x"}, {"stat_prefix": "x"}),
    ({"domains": ["b", "a"]}, {"domains": ["a", "b"]}),
    ({"virtualHosts": [{"name": "b"}, {"name": "a"}]}, {"virtual_hosts": [{"name": "a"}, {"name": "b"}]}),
    (
        {"matchSubjectAltNames": [{"exact": "x"}]},
        {"match_typed_subject_alt_names": [{"matcher": {"exact": "x"}}]},
    ),
    ({"filterChains": [{"filterChainMatch": {}}]}, {"filter_chains": [{"filter_chain_match": {}}]}),
]


def found(istiod: object, ours: object) -> list[FieldPair]:
    both = ({"clusters": {"c": each}} for each in (istiod, ours))
    return list(resource_differences(*map(canonical, both)))


@pytest.mark.parametrize(("istiod", "ours"), PAIRS)
def test_two_spellings_of_the_same_are_equal(istiod: object, ours: object) -> None:
    assert found(istiod, ours) == []


def test_a_difference_is_named_down_to_its_field() -> None:
    istiod = {"a": {"b": [{"c": 1}, {"c": 2}]}, "alpn": ["x"], "same": 1}
    ours = {"a": {"b": [{"c": 1}, {"c": 3}]}, "alpn": ["x", "y"], "same": 1, "only_ours": {"d": 1}}
    assert found(istiod, ours) == [
        FieldPair("/clusters/c/a/b/1/c", 2, 3),
        FieldPair("/clusters/c/alpn", ["x"], ["x", "y"]),
        FieldPair("/clusters/c/onlyOurs/d", None, 1),
    ]


def test_a_resource_that_one_side_lacks_is_one_difference() -> None:
    one = {"clusters": {"c": {"x": 1, "y": 2}}, "routes": {}}
    other = {"clusters": {}, "routes": {"80": {"z": 1}}}
    assert list(resource_differences(one, other)) == [
        FieldPair("/clusters/c", {"x": 1, "y": 2}, None),
        FieldPair("/routes/80", None, {"z": 1}),
    ]


def test_what_a_configuration_consists_of() -> None:
    config = canonical(
        {
            "clusters": {"c": {"transport_socket": {"common_tls_context": {}}}},
            "listeners": {
                "l": {
                    "listener_filters": [{"name": "i"}],
                    "filter_chains": [
                        {
                            "name": "x",
                            "filters": [
                                {
                                    "http_filters": [{"rules": {"policies": {"p": {}, "q": {}}}}],
                                    "route_config": {"virtual_hosts": [{"name": "v"}]},
                                }
                            ],
                        }
                    ],
                    "default_filter_chain": {"filters": [{"name": "t"}]},
                }
            },
        }
    )
    counted: dict[str, int] = {}
    for word, path in parts(config):
        counted[word] = counted.get(word, 0) + 1
        assert path.startswith(("/clusters/c", "/listeners/l"))
    assert counted == {
        "clusters": 1, "listeners": 1, "TLS contexts": 1, "filter chains": 2, "filters": 4,
        "authorization rules": 2, "virtual hosts": 1,
    }  # fmt: skip
    assert touches("/a/b", "/a")
    assert touches("/a", "/a/b")
    assert not touches("/a/b", "/a/bc")


def known(pair: FieldPair, options: Options = Options()) -> fidelity.FieldDifference | None:  # noqa: B008
    return known_to(pair, options)


def test_what_a_study_asks_is_known_only_where_it_asks() -> None:
    pair = FieldPair("/clusters/c/commonTlsContext/tlsParams/tlsMaximumProtocolVersion", "TLSv1_3", "TLSv1_2")
    assert known(pair) is None
    asked = known(pair, Options(tls_versions=("TLSv1_2", "TLSv1_2")))
    assert asked is not None
    assert asked.code == "istio-asked"
    assert known(pair, Options(resumption=False)) is None
    assert known(FieldPair("/clusters/c/maxSessionKeys", None, 0), Options(resumption=False)) is not None


def test_known_is_by_field_and_where_it_matters_by_value() -> None:
    path = "/clusters/outbound|80||x/commonTlsContext/tlsParams/ecdhCurves"
    curves = known(FieldPair(path, None, ["X25519"]))
    assert curves is not None
    assert curves.code == "istio-curves"
    name = "/clusters/x/matchTypedSubjectAltNames/0/sanType"
    san = known(FieldPair(name, None, "URI"))
    assert san is not None
    assert san.code == "istio-san-type"
    assert known(FieldPair(name, None, "DNS")) is None
    assert known(FieldPair("/clusters/x/connectTimeout", "10s", "1s")) is None


def test_every_known_difference_has_its_reason_in_one_table() -> None:
    codes = {each.code for each in fidelity.ALL}
    assert {each.code for each in fidelity.FIELDS} <= codes
    for each in fidelity.FIELDS:
        re.compile(each.path)


# --- how it is told --------------------------------------------------------------------------------

FACTS = {"version": "1.32", "revision": "r", "path": "/p", "digest": "sha256:0123456789abcdef"}
CURVES = SidecarDifference(
    "node-1",
    (pair := FieldPair("/clusters/c/commonTlsContext/tlsParams/ecdhCurves", None, ["X25519"])),
    known_to(pair, Options()),
)
TIMEOUT = SidecarDifference("client", FieldPair("/clusters/c/connectTimeout", "10s", "1s"), None)


def compared(*differences: SidecarDifference) -> list[ComparedConfiguration]:
    unequal = {"clusters": 1} if any(each.known is None for each in differences) else {}
    sidecars = ComparedSidecars(3, {"clusters": 12, "listeners": 9}, unequal, differences)
    return [ComparedConfiguration(("one", "two"), sidecars), ComparedConfiguration(("three",), sidecars)]


def test_what_is_equal_is_one_line_and_what_is_known_has_a_reason() -> None:
    told = text(FACTS, compared(CURVES))
    equal = "in 2 configurations with 6 sidecars: 24 clusters, 18 listeners"
    assert equal in told
    assert "/clusters/*/commonTlsContext/tlsParams/ecdhCurves (2 places)" in told
    assert "istio-curves: TLS groups are set to X25519 and P-256" in told
    assert "released Istio negotiates" in told
    assert "unknown differences: none" in told
    assert is_equal(compared(CURVES))


def test_what_is_unknown_has_its_path_and_both_values() -> None:
    told = text(FACTS, compared(CURVES, TIMEOUT))
    assert "22 of 24 clusters, 18 listeners" in told
    assert "unknown differences: 1\n  /clusters/c/connectTimeout" in told
    assert 'istiod "10s"; meshwise "1s"' in told
    assert "in 2 sidecars, first: client of one" in told
    assert not is_equal(compared(CURVES, TIMEOUT))


def test_data_have_every_place() -> None:
    made = json.loads(json.dumps(document("s", FACTS, compared(CURVES, TIMEOUT))))
    assert made["equal_but_for_known"] is False
    assert made["configurations"][0]["parts"]["clusters"] == {"compared": 12, "unequal": 1}
    (one,) = made["known"]
    assert (one["code"], one["places"]) == ("istio-curves", 2)
    assert made["unknown"] == [
        {
            "path": "/clusters/c/connectTimeout", "istiod": "10s", "ours": "1s",
            "places": [{"cell": "one", "workload": "client"}, {"cell": "three", "workload": "client"}],
        }
    ]  # fmt: skip


# --- what istiod is given --------------------------------------------------------------------------


def test_the_marker_changes_last_of_every_kind() -> None:
    resources = posture.resources(replace(CELL, posture=LADDER[4]), tokens().jwks)
    services = view(resources).services
    made = cluster_objects(services, posture_objects(resources), 7)
    last = {key_of(each)[:2]: each["metadata"] for each in made}
    for kind in (
        "services", "pods", "endpointslices", "peerauthentications", "authorizationpolicies",
        "requestauthentications", "destinationrules", "sidecars",
    ):  # fmt: skip
        (metadata,) = [each for (_, resource), each in last.items() if resource == kind]
        assert metadata["namespace"] == MARKER
    assert {key_of(each) for each in posture_objects(resources)} <= {key_of(each) for each in made}
    assert all(port < 65536 for port in marker_service(MOST_NUMBERS - 1).ports)
    assert of_marker(f"outbound|20007||{MARKER}.{MARKER}.svc.cluster.local")
    assert not of_marker("outbound|80||node-1.backend.svc.cluster.local")


def test_cells_of_one_configuration_are_compared_once(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: s\nenvironments: [none, istio]\n"
        "factors: {posture: [none, strict, permissive], rate: [100/s, 200/s]}\n"
    )
    found = list(configurations(load_study(study)))
    assert [len(names) for names, _, _ in found] == [2, 2]
    assert {name for names, _, _ in found for name in names} == {
        cell.name for cell in load_study(study).cells if cell.mesh != "none"
    }


# --- the command -----------------------------------------------------------------------------------


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["mesh", "diff", *words])
    error = done.exception
    return (done.exit_code, done.output) if error is None or isinstance(error, SystemExit) else (
        int(getattr(error, "exit_status", 99)), str(error)
    )  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text("name: s\nenvironments: istio\nfactors: {posture: strict}\n")
    return path


def test_a_study_without_istio_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: s\nenvironments: [none, linkerd]\nfactors: {posture: [none, strict]}\n")
    status, told = run(str(path))
    assert status == 2
    assert "MW442" in told


def test_without_istiod_it_says_how_to_get_it(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESHWISE_ISTIOD", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    status, told = run(str(study))
    assert status == 3
    assert "MW440" in told
    assert "meshwise proxies pull istiod@" in told
    status, told = run(str(study), "--istiod", str(tmp_path / "absent"))
    assert status == 3
    assert "not an executable file" in told


def test_a_study_that_asks_for_istiod_does_not_begin_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESHWISE_ISTIOD", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    study = parse_study("name: s\nenvironments: istio\ncontrol_plane: istiod\n", "s.yaml")
    with pytest.raises(MeshwiseError, match="MW440") as refused:
        preflight(study)
    assert refused.value.exit_status == 3


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo hello", "MW440"),
        ('echo \'{"clientVersion": {"version": "x"}}\'', "MW440"),
        (
            'test $1 = version && echo \'{"clientVersion": {"version": "x", "revision": "y"}}\' && exit 0\n'
            "echo it does not like this >&2\nexit 7",
            "MW441",
        ),
    ],
)
def test_another_program_is_no_istiod(study: Path, tmp_path: Path, script: str, code: str) -> None:
    program = tmp_path / "istiod"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    status, told = run(str(study), "--istiod", str(program))
    assert status == 3
    assert code in told
    if code == "MW441":
        assert "it does not like this" in told
