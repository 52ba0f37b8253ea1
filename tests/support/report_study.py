"""A fake study with the ladder, analysed: what `meshwise report` finds in a real archive."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from meshwise.archive.findings import write_findings
from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.findings.document import to_json
from meshwise.study.file.read import parse_study
from meshwise.study.model import Authorization, Cell, MeshName
from meshwise.testbed.fake import FakeTestbed
from tests.support.fake_study import run_fake

LADDER = """\
name: ladder
seed: 3
environments: [none, {meshes}]
factors:
  posture: {postures}
  protocol: [{protocols}]
  rate: 400/s
arrangement: apart
trial: {{warmup: 100ms, duration: 1s}}
blocks: 3
primary: [response_p50_us, response_p90_us, cpu_us_per_request]
"""


def no_claims_in_linkerd(cell: Cell) -> str | None:
    fine = cell.mesh is MeshName.LINKERD and cell.posture.authorization is Authorization.FINE
    return "Linkerd has no rule on a JWT claim" if fine else None


def ladder_archive(
    directory: Path,
    *,
    meshes: str = "istio",
    postures: str = "ladder",
    protocols: str = "http1",
    crashes: Collection[str] = (),
    unproven: Collection[str] = (),
    analyzed: bool = True,
) -> ArchiveReader:
    """Run the study into `directory`, with the faults of `FakeTestbed`, and open the archive."""
    text = LADDER.format(meshes=meshes, postures=postures, protocols=protocols)
    study = parse_study(text, "ladder.yaml", no_claims_in_linkerd)
    run_fake(directory, study, FakeTestbed(study, crashes=crashes, unproven=unproven))
    reader = ArchiveReader.open(directory)
    if analyzed:
        write_findings(directory, to_json(analyze_archive(reader)), reader.digests)
    return reader
