"""`meshwise analyze DIR`: from the archive's tables to findings.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from meshwise.analysis.counted import PRIMARY, CountedStudy, with_counts
from meshwise.analysis.event_cohorts import moments_in
from meshwise.analysis.fairness import facts_of
from meshwise.analysis.findings import Tables, findings, measure_trials, outcomes_of, recorded_flags
from meshwise.analysis.protection_findings import with_protection
from meshwise.analysis.settings import Settings
from meshwise.archive.findings import signed, write_findings
from meshwise.archive.outcome import TrialStatus
from meshwise.archive.read import ArchiveReader
from meshwise.core import messages
from meshwise.core.errors import ExitStatus
from meshwise.findings.document import to_json
from meshwise.findings.finding import Finding, Findings, Method
from meshwise.findings.subject import Against, EventEffect, Kind, PostureProtection
from meshwise.measure.attribution import Machine
from meshwise.measure.counts import measure_counts
from meshwise.measure.spans import SPAN_COLUMNS
from meshwise.measure.trial import (
    OPTIONAL_REQUEST_COLUMNS,
    REQUEST_COLUMNS,
    TELEMETRY_COLUMNS,
    TELEMETRY_METRICS,
    TrialResult,
)
from meshwise.stats.verdict import Verdict
from meshwise.study.design.counting import counted_cells
from meshwise.study.model import Role


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
    """The findings of an archive: of its times, of its counts, and of what was tried against its postures.
    Holds one trial's requests at a time. Raises MW710 without any good trial and without tries."""
    timed, counted, tries = _timed(reader), counted_of(reader), reader.protection()
    if timed is None and counted is None and not tries:
        raise messages.NOTHING_TO_ANALYZE.error(str(reader.directory), trials=reader.trials().height)
    settings = Settings.of(reader.study(), reader.timed_design)
    document = timed or Findings(settings.as_json(), reader.environment, ())
    if counted is not None:
        document = with_counts(document, counted, settings)
    return with_protection(document, tries, settings.confidence) if tries else document


def counted_of(reader: ArchiveReader) -> CountedStudy | None:
    """None without a good counting trial."""
    trials = reader.trials().filter(pl.col("role") == str(Role.COUNT))
    outcomes = outcomes_of(trials)
    flags = recorded_flags(trials)
    rows = reader.counts().with_columns(pl.col("trial_id").cast(pl.String))
    counts = rows.partition_by("trial_id", as_dict=True)
    told = reader.functions().with_columns(pl.col("trial_id").cast(pl.String))
    functions = told.partition_by("trial_id", as_dict=True)
    measured = [
        measure_counts(
            each.trial,
            counts[each.trial.trial_id,],
            flags[each.trial.trial_id],
            functions.get((each.trial.trial_id,)),
        )
        for each in outcomes
        if each.status == TrialStatus.OK and (each.trial.trial_id,) in counts
    ]
    study = reader.study()
    if not measured or study.counting is None:
        return None
    cells = counted_cells(study.cells, study.counting).cells
    return CountedStudy.of(measured, cells, outcomes, reader.counting_design, facts_of(trials))


def _timed(reader: ArchiveReader) -> Findings | None:
    """None without a good trial."""
    trials = reader.timed()
    outcomes = outcomes_of(trials)
    good = {each.trial.trial_id: each.trial for each in outcomes if each.status == TrialStatus.OK}
    if not good:
        return None
    study = reader.study()
    moving_ns = study.trial.duration_ns if study.trial.shape else None
    machine, tables = Machine.of(reader.environment), _tables(reader, list(good))
    flags, halved = recorded_flags(trials), study.control.halves
    seconds = 0 if moving_ns or study.search else study.trial.duration_ns // 10**9
    moments = moments_in(list(good.values()), reader.events(), study.trial.duration_ns)
    measured = measure_trials(good, tables, flags, moving_ns, machine, halved, study.seed, seconds, moments)
    results = _with_spans(reader, measured)
    settings = Settings.of(study, reader.timed_design)
    return findings(results, outcomes, settings, reader.environment, facts_of(trials))


def _with_spans(reader: ArchiveReader, results: Iterator[TrialResult]) -> Iterator[TrialResult]:
    """One trial's spans at a time."""
    traced = set(reader.traced)
    for each in results:
        if each.trial.trial_id in traced:
            spans = reader.scan_spans([each.trial.trial_id]).select(SPAN_COLUMNS).collect()
            yield each.with_spans(spans.with_columns(pl.col(pl.Categorical).cast(pl.String)))
        else:
            yield each


def _tables(reader: ArchiveReader, trial_ids: list[str]) -> Iterator[Tables]:
    wanted_metric = pl.col("metric").cast(pl.String).is_in(TELEMETRY_METRICS)
    for trial_id in trial_ids:
        requests = reader.scan_requests([trial_id])
        known = requests.collect_schema().names()
        columns = [*REQUEST_COLUMNS, *(name for name in OPTIONAL_REQUEST_COLUMNS if name in known)]
        telemetry = reader.scan_telemetry([trial_id]).select(TELEMETRY_COLUMNS).filter(wanted_metric)
        yield trial_id, requests.select(columns).collect(), telemetry.collect()


def _sizes(study: Mapping[str, Any]) -> Iterator[str]:
    if "blocks" in study:
        yield f"{study['blocks']} blocks in {study['executions']} executions"
    if counting := study.get("counting"):
        yield f"counted in {counting['executions']} executions with {counting['counter']}"
    if protection := study.get("protection"):
        yield f"{protection['attempts']} attempts against postures in {protection['tries']} tries"


def _is_a_step(finding: Finding) -> bool:
    """Not the sums over several rungs: those are in findings.json and in the report."""
    adjusted = finding.adjustment
    return not finding.part and adjusted is not None and adjusted.method is Method.HOLM


def _is_of_an_event(finding: Finding) -> bool:
    """What it does to requests, whatever the verdict; and what passed under an old rule."""
    subject = finding.subject
    if not isinstance(subject, EventEffect):
        return False
    told = finding.metric == "event_disturbed_requests" and subject.against is Against.PLACEBO
    return told or (finding.metric == "event_last_old_ms" and not finding.part)


def summary(document: Findings) -> str:
    """A few lines: what was found, and whether it may be believed."""
    verdicts = Counter(
        str(f.verdict)
        for f in document.findings
        if f.kind in (Kind.INCREMENT, Kind.DIFFERENCE) or (f.kind is Kind.EVENT and f.verdict)
    )
    warnings = [f for f in document.findings if f.kind is Kind.CHECK and f.verdict is Verdict.WARNING]
    primary = {*document.study["primary_metrics"], *PRIMARY}
    claims = [
        f"  {f.sentence}"
        for f in document.findings
        if f.verdict is Verdict.DISTINGUISHABLE and f.metric in primary and f.n and _is_a_step(f)
    ]
    claims += [f"  {f.sentence}" for f in document.findings if isinstance(f.subject, PostureProtection)]
    claims += [f"  {f.sentence}" for f in document.findings if _is_of_an_event(f)]
    counted = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    study = document.study
    lines = [
        f"{study['name']}: {', '.join(_sizes(study))}",
        *claims,
        f"{sum(verdicts.values())} comparisons: {counted}" if verdicts else "nothing to compare",
        *(f"warning: {f.sentence}" for f in warnings),
    ]
    return "\n".join(lines)
