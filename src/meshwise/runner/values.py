"""The numbers of stored trials, for schedules that decide by them: read back from the disk, never kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from meshwise.archive.read import read_table
from meshwise.archive.schema import REQUESTS, TELEMETRY, TableSpec
from meshwise.findings.metric import MetricKey
from meshwise.measure.trial import TrialResult, measure
from meshwise.study.model import Trial


def stored_values(directory: Path, trial: Trial) -> Mapping[MetricKey, float]:
    """Metric -> value of a stored trial that is `ok`. Raises MW608 where its tables cannot be read."""
    return stored_result(directory, trial).values


def stored_result(directory: Path, trial: Trial) -> TrialResult:
    """The same with what the analysis asks beside the values."""
    return measure(trial, _table(directory, REQUESTS, trial), _table(directory, TELEMETRY, trial))


def _table(directory: Path, spec: TableSpec, trial: Trial) -> pl.DataFrame:
    frame = pl.from_arrow(read_table(directory / spec.name / f"{trial.trial_id}.parquet", spec))
    assert isinstance(frame, pl.DataFrame)
    return frame
