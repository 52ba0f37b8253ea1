"""`control_plane: istiod`: what the real istiod generates, proven on real sidecars; and `mesh diff`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support import inside_istiod
from tests.support.envoy import envoy
from tests.support.istiod import named_istiod
from tests.support.people import ORDINARY, ROOT, scene_as
from typer.testing import CliRunner

from meshwise.cli.main import app


@pytest.mark.parametrize("person", [ROOT, ORDINARY])
def test_the_ladder_is_proven_on_what_istiod_generates(person: str) -> None:
    named_istiod()
    envoy()
    *proofs, describes, fidelity = scene_as(person, inside_istiod.__name__, "ladder")
    assert [(each["cell"], each["failed"]) for each in proofs if not each["passed"]] == []
    assert len(proofs) == len(list(inside_istiod.cells())) + 1
    strict = next(each for each in proofs if "strict" in each["cell"])
    assert strict["facts"]["server_identity"] == "spiffe://cluster.local/ns/backend/sa/node-1"
    assert strict["facts"]["tls_group"] == "X25519"
    assert describes["describes"]["control_plane"].startswith("istiod ")
    codes = set(fidelity["fidelity"])
    assert "istio-istiod" in codes
    assert not {"istio-san-type", "istio-typed-struct"} & codes


def test_a_push_and_an_istiod_that_has_gone() -> None:
    named_istiod()
    envoy()
    push, policies, seen, logs, again = scene_as(ROOT, inside_istiod.__name__, "pushed")
    # What a push does not change may keep the version that it had.
    assert [each for each in push["failed"] if not each.startswith("configuration of ")] == []
    assert policies["taken"] == [True, True]
    assert seen["seen"] == 200
    assert logs["logs"] == 1, "one istiod for all"
    assert again["passed"], again["failed"]


def test_a_study_differs_from_istiod_in_what_is_known_only(tmp_path: Path) -> None:
    istiod = named_istiod()
    study = tmp_path / "study.yaml"
    study.write_text("name: s\nenvironments: [none, istio]\nfactors: {protocol: [http1, grpc, tcp]}\n")
    done = CliRunner().invoke(app, ["mesh", "diff", str(study), "--istiod", str(istiod), "--json"])
    assert done.exit_code == 0, done.output[-2000:]
    found = json.loads(done.stdout)
    assert found["unknown"] == []
    assert found["equal_but_for_known"] is True
    assert len(found["configurations"]) >= 5
    assert {each["code"] for each in found["known"]} >= {"istio-curves", "istio-san-type"}
    assert all(each["parts"]["clusters"]["unequal"] == 0 for each in found["configurations"])
