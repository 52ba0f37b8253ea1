"""A saturation study on the fake testbed."""

from __future__ import annotations

from pathlib import Path

from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.findings.finding import Findings
from meshwise.study.file.read import parse_study
from meshwise.study.model import Study
from meshwise.testbed.fake import FakeTestbed
from tests.support.fake_study import run_fake

TEXT = """\
name: knees
kind: saturation
seed: 3
environments: [none, istio]
factors:
  posture: [none, plaintext, strict]
objective: {p99: 20ms}
search: {start: 200/s, limit: 10000/s, idle: 10ms}
trial: {warmup: 200ms, duration: 2s}
blocks: 6
"""


def saturation_study(extra: str = "", text: str = TEXT) -> Study:
    return parse_study(text + extra, "knees.yaml")


def analysed(directory: Path, study: Study, testbed: FakeTestbed | None = None) -> Findings:
    run_fake(directory, study, testbed)
    return analyze_archive(ArchiveReader.open(directory))
