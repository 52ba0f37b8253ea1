"""A whole study on the fake testbed, from YAML to an archive with findings: for reports and their tests."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from meshwise.archive.findings import write_findings
from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.cli.analyze import analyze_archive
from meshwise.runner import run_study
from meshwise.study.design import design
from meshwise.study.file import parse_study
from meshwise.study.model import Authorization, Cell, MeshName
from meshwise.testbed.fake import FakeTestbed

SMALL = """\
name: small
seed: 3
environments: [none, istio]
factors:
  posture: ladder
  protocol: [http1]
  rate: 400/s
trial: {warmup: 200ms, duration: 1s}
blocks: 4
primary: [response_p50_us, response_p90_us, cpu_us_per_request]
"""


def no_claims_in_linkerd(cell: Cell) -> str | None:
    fine = cell.mesh is MeshName.LINKERD and cell.posture.authorization is Authorization.FINE
    return "Linkerd has no rule on a JWT claim" if fine else None


def fake_archive(
    directory: Path,
    text: str = SMALL,
    *,
    crashes: Collection[str] = (),
    unproven: Collection[str] = (),
    analyzed: bool = True,
) -> ArchiveReader:
    """Run the study into `directory`, with the faults of `FakeTestbed`, and open the archive."""
    study = parse_study(text, "study.yaml", no_claims_in_linkerd)
    trials = design(study)
    with FakeTestbed(study, crashes=crashes, unproven=unproven) as testbed:
        with Archive.start(directory, study, trials, testbed.environment()) as archive:
            run_study(trials, testbed, archive, lambda _: None)
    reader = ArchiveReader.open(directory)
    if analyzed:
        write_findings(directory, analyze_archive(reader).as_json())
    return reader
