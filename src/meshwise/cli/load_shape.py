"""`--shape`, `--trace` and `--think` of `meshwise load`: from what was typed to what the instrument takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from meshwise.cli.load_options import refusal
from meshwise.core.units import format_duration
from meshwise.load.files import nameless
from meshwise.load.spec import LoadSpec
from meshwise.load.trace import write_trace
from meshwise.study.file.load_keys import parse_think
from meshwise.study.file.movement import beyond
from meshwise.study.file.profile_text import parse_shape
from meshwise.study.load.profile import MOST_RPS, OWN_FORM, TRACE_UNITS, LoadProfile, TraceFile, TraceForm
from meshwise.study.load.trace import read_trace
from meshwise.study.model import Arrivals

LONGEST_NS = 3600 * 10**9

ShapeOption = Annotated[
    str | None,
    typer.Option(
        help="How the rate moves, as in a study: '{spike: {at: 3s, lasts: 1s, height: 5x}}'",
        metavar="YAML",
    ),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(help="Replay a CSV of times, or of rates; it says the rate.", metavar="FILE"),
]
TimeColumnOption = Annotated[
    str | None,
    typer.Option(help="Of --trace: heading or number of the column with the times.", metavar="COLUMN"),
]
UnitOption = Annotated[
    str | None,
    typer.Option(
        help="Of the times in --trace: s, ms, us, ns, or date (ISO 8601, a server's log)", metavar="UNIT"
    ),
]
SortOption = Annotated[
    bool, typer.Option("--sort", help="Take the rows of --trace in the order of their times.")
]
ThinkOption = Annotated[
    str | None,
    typer.Option(help="Of closed arrivals, after each answer: 100ms, or 'exponential 100ms'", metavar="TIME"),
]


def trace_form(trace: Path | None, column: str | None, unit: str | None, sort: bool) -> TraceForm:
    """Of what was typed. Raises MW1xx for what fits no trace."""
    form = TraceForm(column, unit, sort)
    if trace is None and form != OWN_FORM:
        raise refusal("--time-column, --unit and --sort say how a trace is read", "add --trace FILE")
    if unit is not None and unit not in TRACE_UNITS:
        raise refusal(f"`{unit[:20]}` is not a unit of times", f"one of {', '.join(TRACE_UNITS)}")
    return form


@contextmanager
def moving(
    spec: LoadSpec, shape: str | None, trace: Path | None, form: TraceForm, think: str | None
) -> Iterator[LoadSpec]:
    """The spec with how its load moves; the copy of a trace goes when the block is left."""
    if think is not None:
        spec = replace(spec, think=parse_think(think))
    if shape is not None and trace is not None:
        raise refusal("--shape and --trace both say the rate", "keep one of them")
    if (shape or trace) and spec.duration_ns > LONGEST_NS:
        raise refusal("a load that moves lasts at most an hour", f"--duration {format_duration(LONGEST_NS)}")
    if shape is not None:
        yield replace(
            spec,
            shape=parse_shape(shape, "--shape", spec.arrivals, spec.rate_rps, spec.duration_ns, spec.seed),
        )
    elif trace is not None:
        with nameless("trace") as (compiled,):
            yield _replaying(spec, trace, form, compiled)
    else:
        yield spec


def _replaying(spec: LoadSpec, path: Path, form: TraceForm, compiled: Path) -> LoadSpec:
    found = read_trace(path, spec.duration_ns, form=form)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if spec.arrivals is Arrivals.CLOSED:
        raise refusal("a closed loop replays no trace", "leave out --arrivals")
    shape = LoadProfile(rates=found.rates, times=found.times)
    if beyond(shape, found.rate_rps, spec.duration_ns):
        what = f"{path} goes beyond the {MOST_RPS:.0f}/s that the instrument sends, or sends nothing"
        raise refusal(what, "replay another part, or divide it among several runs")
    if found.times is None:
        return replace(spec, rate_rps=found.rate_rps, shape=shape)
    if spec.arrivals is not Arrivals.CONSTANT:
        raise refusal(f"{path} says every time, so arrivals are not drawn", "leave out --arrivals")
    write_trace(TraceFile(path.name, str(path), found.sha256, form=form), spec.duration_ns, compiled)
    return replace(spec, rate_rps=found.rate_rps, trace=str(compiled))
