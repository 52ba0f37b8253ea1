"""Counted studies from the fake, without an archive between."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from meshwise.analysis.counted import CountedStudy, counted_findings
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Finding
from meshwise.measure.counts import CountedTrial, measure_counts
from meshwise.study.design.counting import counted_cells, counting_design
from meshwise.study.model import Study
from meshwise.testbed.fake_counting import CountingNoise, count

LADDER = """\
name: counts
environments: [istio]
factors: {posture: [permissive, strict, strict+namespace, strict+fine]}
count: {requests: 100, executions: 6, handshakes: 0, windows: 4}
"""


def trials_of(study: Study, seed: int = 1, noise: CountingNoise | None = None) -> Iterator[CountedTrial]:
    assert study.counting is not None
    for trial in counting_design(study):
        measurement = count(study.counting, trial, seed, noise or CountingNoise())
        frame = pl.from_arrow(measurement.counts)
        assert isinstance(frame, pl.DataFrame)
        yield measure_counts(trial, frame)


def counted(study: Study, seed: int = 1, noise: CountingNoise | None = None) -> list[Finding]:
    """The study's counts, from the fake without an archive between."""
    assert study.counting is not None
    cells = counted_cells(study.cells, study.counting).cells
    found = CountedStudy.of(trials_of(study, seed, noise), cells, design=counting_design(study))
    return list(counted_findings(found, Settings.of(study, ())))
