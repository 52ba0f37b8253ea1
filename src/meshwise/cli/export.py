"""`meshwise export DIR`: a study's time series for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from meshwise.archive.read import ArchiveReader
from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.files import disk_troubles, writing
from meshwise.core.units import parse_duration_ns, plural
from meshwise.report import edge
from meshwise.series.http import endpoint
from meshwise.series.lines import AnySeries
from meshwise.series.of_archive import lines_of
from meshwise.series.openmetrics import write_openmetrics
from meshwise.series.otlp import send_otlp, write_otlp
from meshwise.series.remote_write import remote_write
from meshwise.series.rows import write_csv


class ExportFormat(StrEnum):
    OPENMETRICS = "openmetrics"
    REMOTE_WRITE = "prometheus-remote-write"
    OTLP = "otlp"
    CSV = "csv"


def export(
    directory: Annotated[Path, typer.Argument(help="The archive of a study.", metavar="DIR")],
    form: Annotated[ExportFormat, typer.Option("--format", help="How the series are written.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write into this file. [default: stdout]", metavar="FILE")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Send them there (remote write, otlp).", metavar="URL")
    ] = None,
    auth: Annotated[
        Path | None,
        typer.Option(
            "--auth",
            help="File with `Bearer TOKEN` or `Basic USER:PASSWORD`, readable by you alone.",
            metavar="FILE",
        ),
    ] = None,
    step: Annotated[
        str,
        typer.Option("--step", help="Time between points of what is counted from requests.", metavar="TIME"),
    ] = "1s",
) -> None:
    """Write or send a study's time series: telemetry, requests, latencies, events, counts, findings.

    docs/prometheus.md has the names and labels, and what to configure where. A file takes its name when it is
    whole.

    Example: meshwise export my-study --format openmetrics --out my-study.om
    """  # fmt: skip
    step_ns = parse_duration_ns(step)
    if step_ns < 10**6:
        raise bad_option(
            f"`--step {step}` is below a millisecond, which Prometheus cannot keep apart", "give more"
        )
    sends = form is ExportFormat.REMOTE_WRITE or (form is ExportFormat.OTLP and url is not None)
    if sends and url is None:
        raise bad_option(
            f"`{form}` is sent, and there is no address", "give `--url http://HOST:9090/api/v1/write`"
        )
    if url is not None and not sends:
        raise bad_option(
            f"`{form}` is a file, not sent to an address", "give `--out FILE`, or another format"
        )
    if url is not None and out is not None:
        raise bad_option("`--out` and `--url` are two destinations", "give one of them")
    to = endpoint(url, auth) if url is not None else None
    lines = lines_of(ArchiveReader.open(directory), step_ns)
    if to is not None:
        sent = remote_write(lines, to, step_ns) if form is ExportFormat.REMOTE_WRITE else send_otlp(lines, to)
        typer.echo(f"{plural(sent, 'sample')} sent to {to}", err=True)
    elif out is None:
        written(form, lines, edge.binary_stdout())
    else:
        with disk_troubles(out.absolute().parent), writing(out) as stream:
            count = written(form, lines, stream)
        typer.echo(f"{plural(count, 'sample')} in {out}", err=True)


def bad_option(what: str, remedy: str) -> MeshwiseError:
    return messages.BAD_SERIES_OPTION.error(what=what, remedy=remedy)


def written(form: ExportFormat, lines: Iterable[Sequence[AnySeries]], out: BinaryIO) -> int:
    """How many samples."""
    if form is ExportFormat.OPENMETRICS:
        return write_openmetrics(lines, out)
    return write_otlp(lines, out) if form is ExportFormat.OTLP else write_csv(lines, out)
