"""`meshwise analyze DIR`: from the archive's tables to findings.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from meshwise.analysis.fairness import facts_of
from meshwise.analysis.findings import Tables, findings, measure_trials, outcomes_of, recorded_flags
from meshwise.analysis.settings import Settings
from meshwise.archive.findings import signed, write_findings
from meshwise.archive.outcome import TrialStatus
from meshwise.archive.read import ArchiveReader
from meshwise.core import messages
from meshwise.core.errors import ExitStatus
from meshwise.findings.document import to_json
from meshwise.findings.finding import Finding, Findings, Method
from meshwise.findings.subject import Kind
from meshwise.measure.attribution import Machine
from meshwise.measure.trial import (
    OPTIONAL_REQUEST_COLUMNS,
    REQUEST_COLUMNS,
    TELEMETRY_COLUMNS,
    TELEMETRY_METRICS,
)
from meshwise.stats.verdict import Verdict


def analyze(
    directory: Annotated[Path, typer.Argument(help="The archive of a study.", metavar="DIR")],
    as_json: Annotated[bool, typer.Option("--json", help="Print findings.json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing; findings.json is written.")] = False,
) -> None:
    """Turn what was measured into findings with intervals, and write findings.json.

    Exit status 1 if the books of the bank did not agree after a trial.

    Example: meshwise analyze my-study
    """
    reader = ArchiveReader.open(directory)
    document = analyze_archive(reader)
    values = signed(to_json(document), reader.digests)
    if as_json:
        typer.echo(json.dumps(values, indent=1))
    elif not quiet:
        typer.echo(summary(document))
    path = write_findings(
        directory, values, reader.digests
    )  # after it was said: a full disk must not take it
    if not (as_json or quiet):
        typer.echo(f"findings in {path}; show them with `meshwise report {directory}`", err=True)
    if any(
        f.kind is Kind.CHECK and f.metric == "books" and f.verdict is Verdict.WARNING
        for f in document.findings
    ):
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


def analyze_archive(reader: ArchiveReader) -> Findings:
    """The findings of an archive. Holds one trial's requests at a time. Raises MW710 without any good
    trial."""
    trials = reader.timed()
    outcomes = outcomes_of(trials)
    good = {each.trial.trial_id: each.trial for each in outcomes if each.status == TrialStatus.OK}
    if not good:
        raise messages.NOTHING_TO_ANALYZE.error(str(reader.directory), trials=len(outcomes))
    study = reader.study()
    moving_ns = study.trial.duration_ns if study.trial.shape else None
    machine, tables = Machine.of(reader.environment), _tables(reader, list(good))
    flags, halved = recorded_flags(trials), study.control.halves
    results = measure_trials(good, tables, flags, moving_ns, machine, halved, study.seed)
    settings = Settings.of(study, reader.timed_design)
    return findings(results, outcomes, settings, reader.environment, facts_of(trials))


def _tables(reader: ArchiveReader, trial_ids: list[str]) -> Iterator[Tables]:
    wanted_metric = pl.col("metric").cast(pl.String).is_in(TELEMETRY_METRICS)
    for trial_id in trial_ids:
        requests = reader.scan_requests([trial_id])
        known = requests.collect_schema().names()
        columns = [*REQUEST_COLUMNS, *(name for name in OPTIONAL_REQUEST_COLUMNS if name in known)]
        telemetry = reader.scan_telemetry([trial_id]).select(TELEMETRY_COLUMNS).filter(wanted_metric)
        yield trial_id, requests.select(columns).collect(), telemetry.collect()


def _is_a_step(finding: Finding) -> bool:
    """Not the sums over several rungs: those are in findings.json and in the report."""
    adjusted = finding.adjustment
    return not finding.part and adjusted is not None and adjusted.method is Method.HOLM


def summary(document: Findings) -> str:
    """A few lines: what was found, and whether it may be believed."""
    verdicts = Counter(
        str(f.verdict) for f in document.findings if f.kind in (Kind.INCREMENT, Kind.DIFFERENCE)
    )
    warnings = [f for f in document.findings if f.kind is Kind.CHECK and f.verdict is Verdict.WARNING]
    primary = set(document.study["primary_metrics"])
    claims = [
        f"  {f.sentence}"
        for f in document.findings
        if f.verdict is Verdict.DISTINGUISHABLE and f.metric in primary and f.n and _is_a_step(f)
    ]
    counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    study = document.study
    lines = [
        f"{study['name']}: {study['blocks']} blocks in {study['executions']} executions",
        *claims,
        f"{sum(verdicts.values())} comparisons: {counted}" if verdicts else "nothing to compare",
        *(f"warning: {f.sentence}" for f in warnings),
    ]
    return "\n".join(lines)
