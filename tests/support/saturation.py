"""A saturation study on the fake testbed."""

from __future__ import annotations

from pathlib import Path

from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.cli.analyze import analyze_archive
from meshwise.findings.finding import Findings
from meshwise.runner.loop import RunSummary, run_study, schedule_of
from meshwise.study.design.blocks import design
from meshwise.study.file.read import parse_study
from meshwise.study.model import Study
from meshwise.testbed.fake import FakeTestbed

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


def run(
    directory: Path, study: Study, testbed: FakeTestbed | None = None, *, resume: bool = False
) -> RunSummary:
    testbed = testbed or FakeTestbed(study)
    trials = design(study)
    with (
        testbed,
        Archive.start(directory, study, trials, testbed.environment(), resume=resume) as archive,
    ):
        schedule = schedule_of(study, trials)
        return run_study(study, schedule, testbed, archive, lambda event: None, rest=lambda seconds: None)


def analysed(directory: Path, study: Study, testbed: FakeTestbed | None = None) -> Findings:
    run(directory, study, testbed)
    return analyze_archive(ArchiveReader.open(directory))
