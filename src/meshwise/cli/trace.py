"""`meshwise trace DIR [TRIAL]`: traced requests span by span, read from the archive's spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from meshwise.analysis.contrast import cell_scope
from meshwise.analysis.traces import waterfall
from meshwise.archive.read import ArchiveReader
from meshwise.archive.rows import trial_of
from meshwise.core import messages
from meshwise.measure.spans import SLOW as SLOW_QUANTILE
from meshwise.measure.spans import SPAN_COLUMNS, RequestTrace, nearest, traces
from meshwise.measure.spans import TYPICAL as TYPICAL_QUANTILE
from meshwise.report import edge
from meshwise.report.waterfall import as_json as drawn_as_json
from meshwise.report.waterfall import lines
from meshwise.study.model import Trial


def trace(
    directory: Annotated[Path, typer.Argument(help="The archive of a study.", metavar="DIR")],
    trial: Annotated[
        str | None,
        typer.Argument(
            help="A trial's id. [default: the first trial of every cell that is traced]", metavar="TRIAL"
        ),
    ] = None,
    request: Annotated[
        int | None,
        typer.Option("--request", help="This request of TRIAL, by its number.", metavar="N", min=0),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """Show a typical and a slow traced request, span by span, with what each part took.

    Example: meshwise trace my-study b000-p02
    """
    reader = ArchiveReader.open(directory)
    chosen = _chosen(reader, trial)
    if request is not None and trial is None:
        raise messages.NO_TRACE.error(str(directory), what="`--request` needs a trial", known=_known(reader))
    drawn = [
        waterfall(cell_scope(one.cell), which, one.trial_id, found)
        for one in chosen
        for which, found in _found(reader, one, request)
    ]
    if not drawn:
        raise messages.NO_TRACE.error(
            str(directory), what="no whole trace of a request is there", known=_known(reader)
        )
    if as_json:
        typer.echo(json.dumps([drawn_as_json(each) for each in drawn], indent=1))
        return
    console = edge.console()
    for number, each in enumerate(drawn):
        if number:
            console.print()
        for line in lines(each):
            console.print(line, soft_wrap=True)


def _chosen(reader: ArchiveReader, wanted: str | None) -> list[Trial]:
    """Raises MW711 where nothing of it is traced."""
    traced = set(reader.traced)
    rows = [trial_of(row) for row in reader.trials_arrow.to_pylist() if row["trial_id"] in traced]
    if wanted is not None:
        rows = [each for each in rows if each.trial_id == wanted]
        if not rows:
            raise messages.NO_TRACE.error(
                str(reader.directory), what=f"trial {wanted} has no spans", known=_known(reader)
            )
        return rows
    if not rows:
        raise messages.NO_TRACE.error(str(reader.directory), what="no trial has spans", known="none")
    return list({each.cell: each for each in reversed(rows)}.values())[::-1]


def _found(reader: ArchiveReader, trial: Trial, request: int | None) -> list[tuple[str, RequestTrace]]:
    spans = reader.scan_spans([trial.trial_id]).select(SPAN_COLUMNS).collect()
    whole, _ = traces(spans.with_columns(pl.col(pl.Categorical).cast(pl.String)))
    if request is not None:
        return [("this", each) for each in whole if int(each.trace_id[16:], 16) == request][:1]
    pairs = (("typical", nearest(whole, TYPICAL_QUANTILE)), ("slow", nearest(whole, SLOW_QUANTILE)))
    return [(which, each) for which, each in pairs if each is not None]


def _known(reader: ArchiveReader) -> str:
    return ", ".join(reader.traced[:8]) or "none"
