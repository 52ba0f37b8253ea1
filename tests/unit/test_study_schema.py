"""The JSON Schema: current, valid, and in agreement with the reader of study files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from meshwise.cli.schema import schema
from meshwise.study.file.schema import study_schema, study_schema_text

STUDIES = Path(__file__).parents[2] / "studies"


def findings(text: str) -> list[Any]:
    return list(jsonschema.Draft202012Validator(study_schema()).iter_errors(yaml.safe_load(text)))


def test_the_committed_schema_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    schema()
    printed = capsys.readouterr().out
    assert printed == study_schema_text()
    assert (STUDIES / "study.schema.json").read_text() == printed, (
        "run `meshwise schema > studies/study.schema.json`"
    )


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(study_schema())
    assert "null" not in json.dumps(study_schema())


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_it_accepts_the_ready_studies(path: Path) -> None:
    assert findings(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "name: x\n",
        "name: x\nenvironments: isto\n",
        "name: x\nenvironments: istio\nblokcs: 3\n",
        "name: x\nenvironments: istio\nblocks: 1\n",
        "name: x\nenvironments: istio\nfactors: {rate: 800}\n",
        "name: x\nenvironments: istio\nfactors: {posture: [strict, strct]}\n",
        "name: x\nenvironments: istio\ntrial: {duration: 3 seconds}\n",
        "name: x\nenvironments: istio\ncontrol: {same: some}\n",
    ],
)
def test_it_refuses_what_the_reader_refuses_in_shape(text: str) -> None:
    assert findings(text)


def test_every_key_is_explained_or_plain() -> None:
    properties = study_schema()["$defs"]["Factors"]["properties"]
    assert all("description" in described for described in properties.values())
