"""A study file: what is read, and what each mistake is told, with its place."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.study.file.read import load_study, parse_study
from meshwise.study.model import (
    Arrangement,
    Arrivals,
    Authorization,
    Cell,
    KeyType,
    MeshName,
    MtlsMode,
    Posture,
    Protocol,
    Study,
    TopologyKind,
)

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))

SMALL = """\
name: small
environments: [none, istio]
factors:
  posture: [none, strict]
"""


def study(text: str) -> Study:
    return parse_study(text, "s.yaml")


def failure(text: str) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        study(text)
    assert caught.value.exit_status is ExitStatus.BAD_INPUT
    return caught.value


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_ready_studies_are_valid_and_named_as_their_file(path: Path) -> None:
    found = load_study(path)
    assert found.name == path.stem
    alone = "twin: none" in path.read_text()  # a second set of its many processes would crowd the machine
    together = found.arrangement is Arrangement.TOGETHER
    assert found.search or ((together or found.control.same) and (found.control.twin or alone))
    assert not found.not_applicable
    assert found.executions == found.blocks
    counted = found.counting is not None and found.counting.executions >= 4  # counts vary so much less
    assert found.blocks >= 8 or counted
    assert "yaml-language-server: $schema=study.schema.json" in path.read_text().splitlines()[0]


def test_there_are_the_studies_that_the_documentation_names() -> None:
    names = {path.stem for path in STUDIES}
    assert names >= {"quickstart", "ladder", "chain", "payload", "policies", "aa", "features"}


def test_defaults() -> None:
    found = study(SMALL)
    assert found.blocks == 8
    assert found.blocks_per_execution == 1
    assert found.trial.warmup_ns == 10**9
    assert found.trial.duration_ns == 3 * 10**9
    assert found.trial.arrivals is Arrivals.CONSTANT
    assert found.source == SMALL
    plain, strict = found.cells
    assert plain == Cell(
        mesh=MeshName.NONE,
        posture=Posture(None),
        protocol=Protocol.HTTP1,
        rate_rps=500,
        request_bytes=128,
        response_bytes=1024,
        connections=16,
        streams=1,
        shape=TopologyKind.CHAIN,
        length=1,
        key_type=KeyType.RSA_2048,
        policy_count=0,
        plaintext_share=0,
    )
    assert (strict.mesh, strict.posture) == (MeshName.ISTIO, Posture(MtlsMode.STRICT))


def test_include_is_a_union_of_parts_that_replace_levels_of_factors() -> None:
    found = study(
        "name: x\nenvironments: [none, istio]\nfactors: {rate: 900/s, streams: 1}\n"
        "include:\n- {protocol: http1, posture: ladder}\n"
        "- {protocol: [http2, grpc], posture: [none, strict], streams: 8}\n"
    )
    told = [(str(cell.mesh), cell.posture.name, str(cell.protocol), cell.streams) for cell in found.cells]
    assert told == [
        ("none", "none", "http1", 1),
        ("istio", "plaintext", "http1", 1),
        ("istio", "permissive", "http1", 1),
        ("istio", "strict", "http1", 1),
        ("istio", "strict+namespace", "http1", 1),
        ("istio", "strict+fine", "http1", 1),
        ("none", "none", "http2", 8),
        ("none", "none", "grpc", 8),
        ("istio", "strict", "http2", 8),
        ("istio", "strict", "grpc", 8),
    ]
    assert {cell.rate_rps for cell in found.cells} == {900}


def test_features_give_every_combination_and_the_environment_none_its_own_posture() -> None:
    found = study(
        "name: x\nenvironments: [none, istio]\n"
        "factors: {features: {mtls: [disable, strict], authorization: [none, request]}}\n"
    )
    names = [cell.posture.name for cell in found.cells]
    assert names == ["none", "plaintext", "plaintext+request", "strict", "strict+request"]


def test_a_factor_multiplies_only_the_postures_that_it_concerns() -> None:
    found = study(
        "name: x\nenvironments: [none, istio]\nfactors:\n"
        "  posture: ladder\n  policies: [0, 100]\n  plaintext_share: [0%, 20%]\n"
        "  key: [rsa-2048, ecdsa-p256]\n"
    )
    per_posture = {
        name: sum(cell.posture.name == name for cell in found.cells)
        for name in ("none", "plaintext", "permissive", "strict", "strict+namespace", "strict+fine")
    }
    assert per_posture == {
        "none": 1, "plaintext": 1, "permissive": 4, "strict": 2, "strict+namespace": 4, "strict+fine": 4,
    }  # fmt: skip
    assert all(cell.plaintext_share == 0 for cell in found.cells if cell.posture.name != "permissive")


def test_each_mesh_issues_its_own_key_unless_told() -> None:
    found = study("name: x\nenvironments: [istio, linkerd]\nfactors: {posture: strict}\n")
    keys = {cell.mesh: cell.key_type for cell in found.cells}
    assert keys == {MeshName.ISTIO: KeyType.RSA_2048, MeshName.LINKERD: KeyType.ECDSA_P256}


def test_exclude_takes_partial_descriptions() -> None:
    found = study(
        "name: x\nenvironments: istio\nfactors: {posture: [plaintext, strict], rate: [100/s, 200/s]}\n"
        "exclude:\n- {posture: strict, rate: 200/s}\n"
    )
    assert [(cell.posture.name, cell.rate_rps) for cell in found.cells] == [
        ("plaintext", 100), ("plaintext", 200), ("strict", 100),
    ]  # fmt: skip


def test_default_control_is_lightest_and_heaviest_and_a_twin_of_each_mesh() -> None:
    found = study(
        "name: x\nenvironments: [none, istio, linkerd]\nfactors: {posture: ladder, rate: [100/s, 900/s]}\n"
        "arrangement: apart\n"
    )
    light, heavy = found.control.same
    assert (light.posture.name, light.rate_rps) == ("none", 100)
    assert (heavy.posture.name, heavy.rate_rps) == ("strict+fine", 900)
    assert [(str(cell.mesh), cell.posture.name) for cell in found.control.twin] == [
        ("istio", "strict"), ("linkerd", "strict"),
    ]  # fmt: skip


def test_together_is_the_usual_arrangement_and_its_control_is_a_twin_of_each_mesh() -> None:
    found = study(SMALL)
    assert found.arrangement is Arrangement.TOGETHER
    assert found.control.same == ()
    assert [cell.posture.name for cell in found.control.twin] == ["strict"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("control: {same: all}\n", "one set of processes cannot run two arms"),
        ("load: {arrivals: closed}\n", "closed loop"),
        ("kind: saturation\nobjective: {p99: 20ms}\n", "overloads what runs beside it"),
        ("load: {shape: {ramp: {start: 0x, end: 2x}}}\n", "load that moves"),
    ],
)
def test_what_cannot_run_together_runs_apart_and_is_refused_together(more: str, why: str) -> None:
    assert study(SMALL + more).arrangement is Arrangement.APART
    told = str(failure(SMALL + more + "arrangement: together\n"))
    assert why in told
    assert "s.yaml:" in told


def test_control_all_and_none() -> None:
    found = study(SMALL + "control: {same: all, twin: none}\n")
    assert found.control.same == found.cells
    assert found.control.twin == ()


def test_not_applicable_cells_are_kept_with_the_reason_and_never_measured() -> None:
    def refuses(cell: Cell) -> str | None:
        return "no such mode" if cell.posture == Posture(MtlsMode.PERMISSIVE) else None

    found = parse_study(
        "name: x\nenvironments: istio\n"
        "factors: {features: {mtls: [disable, permissive, strict], authorization: [none, fine]}}\n",
        "s.yaml",
        refuses,
    )
    told = {no.cell.posture.name: no.reason for no in found.not_applicable}
    assert told["permissive"] == "no such mode"
    assert "without mutual TLS" in told["plaintext+fine"]
    assert {cell.posture for cell in found.cells}.isdisjoint(no.cell.posture for no in found.not_applicable)
    assert Posture(MtlsMode.STRICT, Authorization.FINE) in {cell.posture for cell in found.cells}


MISTAKES = {
    "unknown key": (
        SMALL + "blokcs: 3\n",
        "s.yaml:5:1",
        "`blokcs` is not a key here; did you mean `blocks`?",
    ),
    "unknown inner key": (SMALL + "  rat: 3/s\n", "s.yaml:5:3", "did you mean `rate`?"),
    "unknown key of a control": (
        SMALL + "control: {same: [{postures: strict}]}\n",
        "s.yaml:5:19",
        "did you mean `posture`?",
    ),
    "unknown level": (
        SMALL.replace("strict", "stric"),
        "s.yaml:4:19",
        "`stric` is not a posture; did you mean `strict`?",
    ),
    "unknown environment": (SMALL.replace("istio", "isto"), "s.yaml:2:22", "did you mean `istio`?"),
    "unit": (SMALL + "  rate: 800\n", "s.yaml:5:9", "`800` is not a rate"),
    "unit in a list": (SMALL + "  request: [1KiB, 2Kb]\n", "s.yaml:5:19", "`2Kb` is not a size"),
    "too much": (SMALL + "trial: {duration: 5h}\n", "s.yaml:5:19", "`5h` is too much"),
    "no value": (SMALL + "  rate:\n", "s.yaml:5:8", "`rate` has no value"),
    "rate of zero": (SMALL + "  rate: 0/s\n", "s.yaml:5:9", "a rate of 0 sends nothing"),
    "missing name": ("environments: none\n", "s.yaml:1:1", "the key `name` is missing"),
    "a level twice": (SMALL + "  rate: [10/s, 10/s]\n", "s.yaml:5:16", "this level stands here twice"),
    "a key twice": (SMALL + "name: again\n", "s.yaml:5:1", "the key `name` stands here twice"),
    "bad name": ("name: A b\nenvironments: none\n", "s.yaml:1:7", "not a name"),
    "one block": (SMALL + "blocks: 1\n", "s.yaml:5:9", "`1` does not fit `blocks`"),
    "streams on http1": (SMALL + "  streams: 4\n", "s.yaml:5:12", "http1 has one stream per connection"),
    "streams on tcp": (
        SMALL + "  protocol: tcp\n  streams: 4\n",
        "s.yaml:6:12",
        "tcp has one stream per connection",
    ),
    "a chain of tcp": (
        SMALL + "  protocol: [http1, tcp]\n  length: [1, 2]\n",
        "s.yaml:6:11",
        "tcp has no chain: it goes to one node",
    ),
    "a fan-out of tcp": (
        SMALL + "  protocol: tcp\ntopology: fanout\n",
        "s.yaml:5:13",
        "tcp has no fan-out: it goes to one node",
    ),
    "plaintext share": (
        SMALL + "  plaintext_share: 10%\n",
        "s.yaml:5:20",
        "means something only in a posture that is permissive",
    ),
    "policies": (
        SMALL + "  policies: [0, 9]\n",
        "s.yaml:5:13",
        "only in a posture that is with authorization",
    ),
    "short trial": (
        SMALL + "  rate: 2/s\ntrial: {duration: 400ms}\n",
        "s.yaml:6:19",
        "a trial is shorter than the time between two requests",
    ),
    "uneven executions": (SMALL + "blocks: 8\nexecutions: 3\n", "s.yaml:6:13", "cannot be shared evenly"),
    "none without its environment": (
        "name: x\nenvironments: istio\nfactors:\n  posture: [none, strict]\n",
        "s.yaml:4:13",
        "posture `none` needs the environment `none`",
    ),
    "environment without a cell": (
        "name: x\nenvironments: [none, istio]\nfactors:\n  posture: strict\n",
        "s.yaml:2:16",
        "environment `none` has no cell",
    ),
    "exclusion of nothing": (
        SMALL + "exclude: [{rate: 3/s}]\n",
        "s.yaml:5:11",
        "this exclusion matches no cell",
    ),
    "exclusion of everything": (
        SMALL + "exclude:\n- {protocol: http1}\n",
        "s.yaml:6:1",
        "every cell is excluded",
    ),
    "control of nothing": (
        SMALL + "control: {twin: [{posture: plaintext}]}\n",
        "s.yaml:5:18",
        "matches no cell",
    ),
    "posture and features": (
        SMALL + "  features: {mtls: strict, authorization: none}\n",
        "s.yaml:5:13",
        "both say the postures",
    ),
    "closed with rates": (
        SMALL + "  rate: [1/s, 2/s]\nload: {arrivals: closed}\n",
        "s.yaml:5:9",
        "closed arrivals have no rate",
    ),
    "outlier rule": (SMALL + "outliers: hampel\n", "s.yaml:5:11", "is not a rule"),
    "metric": (SMALL + "primary: response_p51_us\n", "s.yaml:5:10", "did you mean `response_p50_us`?"),
    "confidence": (SMALL + "confidence: 100%\n", "s.yaml:5:13", "confidence is at least 50%"),
    "tab": ("name: x\n\tblocks: 3\n", "s.yaml:2:1", "not YAML"),
    "not a mapping": ("- 1\n", "s.yaml:1:1", "a study is a mapping"),
    "empty": ("", "s.yaml", "a study is a mapping"),
    "mapping for a list": (SMALL + "  rate: {a: 1}\n", "s.yaml:5:9", "is not a rate"),
    "text for a mapping": (SMALL + "trial: long\n", "s.yaml:5:8", "does not fit `trial`"),
    "alias": ("name: &a x\nenvironments: *a\n", "s.yaml:1:7", "anchors and aliases are not used"),
    "tag": ("name: !!python/object/apply:os.system [id]\n", "s.yaml:1:7", "tags are not used"),
    "merge key": ("name: x\n<<: {a: b}\n", "s.yaml:2:1", "merge keys are not used"),
    "two documents": ("name: x\n---\nname: y\n", "s.yaml:2:1", "several documents"),
    "control character": ("name: x\x07\n", "s.yaml:1:8", "U+0007 is not allowed"),
    "list as key": ("? [a]\n: b\n", "s.yaml:1:3", "keys that are not plain words"),
    "deep": ("name: " + "[" * 50 + "]" * 50, "s.yaml:1:18", "levels deep"),
}


@pytest.mark.parametrize(("text", "where", "what"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_place(text: str, where: str, what: str) -> None:
    error = failure(text)
    assert error.where == where
    assert what in error.what
    assert error.remedy


def test_several_mistakes_are_told_together_in_the_order_of_the_file() -> None:
    error = failure("name: x\nenvironments: [none, isto]\nbloks: 3\nfactors:\n  rate: 10\n  posture: strct\n")
    assert error.what.startswith("4 problems")
    places = [line.split(": ")[0] for line in error.what.splitlines()[1:] if not line.startswith(" ")]
    assert places == ["s.yaml:2:22", "s.yaml:3:1", "s.yaml:5:9", "s.yaml:6:12"]
    assert error.what.count("hint: ") == 4


def test_too_many_cells_are_refused_before_they_are_made() -> None:
    many = ", ".join(f"{n}B" for n in range(60))
    begun = time.monotonic()
    error = failure(SMALL + f"  request: [{many}]\n  response: [{many}]\n  length: [1, 2, 3, 4]\n")
    assert "cells are more than" in error.what
    assert error.where == "s.yaml:4:3"
    assert time.monotonic() - begun < 5


def test_untrusted_files_are_bounded(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    huge.write_text("#" * 3_000_000)
    with pytest.raises(MeshwiseError, match="more than a study needs"):
        load_study(huge)
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"name: \xff\n")
    with pytest.raises(MeshwiseError, match="not UTF-8"):
        load_study(bad)
    with pytest.raises(MeshwiseError, match="cannot read the study"):
        load_study(tmp_path / "absent.yaml")
    with pytest.raises(MeshwiseError, match="cannot read the study"):
        load_study(tmp_path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load_study(path).name == "small"


@pytest.mark.parametrize("given", ["seed: " + "9" * 6000, "rate: " + "9" * 6000, "x" * 1000 + ": 1"])
def test_a_long_value_is_told_by_its_beginning(given: str) -> None:
    good = given[:4] if given[:4] in ("seed", "rate") else "rate"
    text = "name: a\nseed: 7\nenvironments: [none]\nfactors:\n  rate: 1/s\n"
    told = str(failure(re.sub(rf"{good}: .*", given, text)))
    assert (len(told) < 1000, "000 characters)" in told) == (True, True), told
