"""A small study on the fake testbed, for tests of runner, archive, analysis and reports."""

from __future__ import annotations

from pathlib import Path

from meshwise.archive.store import Archive
from meshwise.runner.loop import RunSummary, run_study, schedule_of
from meshwise.study.design.blocks import design
from meshwise.study.file.read import parse_study
from meshwise.study.model import Study
from meshwise.testbed.fake import FakeTestbed

SMALL = """\
name: small
seed: 3
environments: [none, istio]
factors:
  posture: [none, plaintext, strict]
  rate: 200/s
arrangement: apart
trial: {warmup: 100ms, duration: 500ms}
blocks: 2
"""

LADDER = """\
environments: [none, istio]
factors:
  posture: [none, plaintext, strict, strict+fine]
  rate: 400/s
trial: {warmup: 100ms, duration: 1s}
blocks: 8
"""
"""Of a study that is arranged together; its name and seed come before."""


def small_study(extra: str = "") -> Study:
    """5 + 1 trials a block (3 cells, A/A of two, one twin), 2 blocks; `extra` is more YAML."""
    return parse_study(SMALL + extra, "small.yaml")


def run_fake(
    directory: Path, study: Study, testbed: FakeTestbed | None = None, *, resume: bool = False
) -> RunSummary:
    """Run the study into the directory, without its rests."""
    testbed = testbed or FakeTestbed(study)
    trials = design(study)
    with (
        testbed,
        Archive.start(directory, study, trials, testbed.environment(), resume=resume) as archive,
    ):
        schedule = schedule_of(study, trials)
        return run_study(study, schedule, testbed, archive, lambda event: None, rest=lambda seconds: None)
