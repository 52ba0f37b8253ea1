"""`meshwise analyze` on archives of the fake testbed, whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest
import typer
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.cli.analyze import analyze, analyze_archive
from meshwise.core.errors import MeshwiseError
from meshwise.findings.document import to_json
from meshwise.findings.schema import schema
from meshwise.mesh.traits import NAMES
from meshwise.runner.loop import run_study, schedule_of
from meshwise.study.design.blocks import design
from meshwise.study.file.read import parse_study
from meshwise.testbed.fake import FakeTestbed, truth

STUDY = """
name: small
environments: [none, istio, linkerd]
factors: {posture: [none, plaintext, strict], protocol: http1, rate: 500/s}
trial: {warmup: 200ms, duration: 2s}
control: {same: [{posture: strict}], twin: [{posture: strict, environment: istio}]}
blocks: 8
margin: 5%
"""


def archive(
    directory: Path, text: str = STUDY, unproven: Collection[str] = (), crashes: Collection[str] = ()
) -> Path:
    study = parse_study(text, "small.yaml")
    trials = design(study)
    names = [trial.trial_id for trial in trials]
    with (
        FakeTestbed(study, unproven=names if unproven == "all" else unproven, crashes=crashes) as testbed,
        Archive.start(directory, study, trials, testbed.environment()) as store,
    ):
        run_study(study, schedule_of(study, trials), testbed, store, lambda event: None)
    return directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("analyze") / "study", crashes=("b001-p03",))


def test_the_archive_becomes_valid_findings_that_hold_the_truth(directory: Path) -> None:
    reader = ArchiveReader.open(directory)
    document = to_json(analyze_archive(reader))
    assert list(Draft202012Validator(schema(NAMES)).iter_errors(document)) == []
    levels = {cell.posture.name + str(cell.mesh): truth(cell).service_us for cell in reader.study().cells}
    found = {row["id"]: row for row in document["findings"]}
    step = found["increment/istio/plaintext..strict/http1/500rps/response_p50_us"]
    true_step = levels["strictistio"] - levels["plaintextistio"]
    assert step["low"] < true_step * 1.05
    assert step["high"] > true_step * 0.95
    assert step["verdict"] == "distinguishable"
    assert found["check/failed_trials"]["estimate"] == 1
    assert document["study"]["margin"] == 0.05
    assert document["environment"]["testbed"] == "fake"


def test_the_command_writes_findings_and_prints_them_on_request(directory: Path) -> None:
    app = typer.Typer()
    app.command()(analyze)
    plain, as_json = (CliRunner().invoke(app, [str(directory), *options]) for options in ((), ("--json",)))
    assert plain.exit_code == as_json.exit_code == 0
    assert "small: 8 blocks in 8 executions" in plain.output
    assert "`strict` adds" in plain.output
    assert "warning: 1 of" in plain.output
    written = json.loads((directory / "findings.json").read_text())
    assert json.loads(as_json.stdout) == written


def test_analyzing_again_gives_the_same_bytes(directory: Path) -> None:
    one, other = (json.dumps(to_json(analyze_archive(ArchiveReader.open(directory)))) for _ in range(2))
    assert one == other


def test_a_study_without_a_single_good_trial_says_so(tmp_path: Path) -> None:
    empty = archive(tmp_path / "study", unproven="all")
    with pytest.raises(MeshwiseError, match="none of the") as raised:
        analyze_archive(ArchiveReader.open(empty))
    assert raised.value.code == "MW710"
