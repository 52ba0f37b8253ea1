"""`meshwise import prometheus URL`: a production mesh's metrics as an archive of provenance `imported`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pyarrow.parquet as pq
import typer

from meshwise.archive.findings import FINDINGS_NAME
from meshwise.archive.imported import SERIES, importing
from meshwise.cli.export import bad_option
from meshwise.core.errors import MeshwiseError
from meshwise.core.files import disk_troubles
from meshwise.core.units import parse_duration_ns, plural
from meshwise.findings.document import to_json
from meshwise.series.bring import Brought, ImportRange, bring, is_namespace, moment
from meshwise.series.http import endpoint
from meshwise.series.levels import CANNOT_TELL, imported_findings
from meshwise.series.prometheus import PrometheusApi

import_ = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
_LONGEST_NS = 400 * 86400 * 10**9


@import_.callback()
def about_importing() -> None:
    """Bring the numbers of a production mesh into a directory that `query` and `report` read."""


@import_.command("prometheus")
def from_prometheus(
    url: Annotated[str, typer.Argument(help="Root of its API: http://HOST:9090.", metavar="URL")],
    out: Annotated[Path, typer.Option("--out", help="Directory of the import; new or empty.", metavar="DIR")],
    from_: Annotated[
        str,
        typer.Option(
            "--from", help="Begin: a time (2026-01-31T12:00Z, unix seconds), or so long ago.", metavar="TIME"
        ),
    ] = "1h",
    to: Annotated[str, typer.Option("--to", help="End, likewise; `now`.", metavar="TIME")] = "now",
    step: Annotated[
        str,
        typer.Option(
            "--step", help="Time between points, at least that between two scrapes.", metavar="TIME"
        ),
    ] = "1m",
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace", help="Only workloads of this namespace; may be repeated.", metavar="NAME"
        ),
    ] = None,
    auth: Annotated[
        Path | None,
        typer.Option(
            "--auth",
            help="File with `Bearer TOKEN` or `Basic USER:PASSWORD`, readable by you alone.",
            metavar="FILE",
        ),
    ] = None,
    most_samples: Annotated[
        int, typer.Option("--most-samples", help="Refuse to keep more.", min=1, max=1_000_000_000)
    ] = 20_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came as JSON.")] = False,
) -> None:
    """Read Istio's and Linkerd's metrics and their containers' CPU and memory out of a Prometheus.

    What such numbers cannot tell, and how resets, gaps and stale series disturb them, is kept with them
    (docs/prometheus.md). The directory is there whole or not at all.

    Example: meshwise import prometheus http://127.0.0.1:9090 --out production --from 6h --step 30s
    """  # fmt: skip
    wanted = wanted_of(from_, to, step, tuple(namespace or ()), most_samples)
    api = PrometheusApi(endpoint(url, auth))
    version = api.check()
    with importing(out) as writer:
        brought = bring(api, wanted, writer, lambda text: typer.echo(text, err=True))
        about = _about(str(api.to), version, wanted, brought)
        writer.close()
        series = pl.from_arrow(pq.read_table(writer.place / f"{SERIES.name}.parquet"))
        assert isinstance(series, pl.DataFrame)
        document = to_json(imported_findings(series, about))
        with disk_troubles(out.absolute().parent):
            text = json.dumps(document, indent=1, allow_nan=False) + "\n"
            (writer.place / FINDINGS_NAME).write_text(text)
            writer.keep(about)
    levels = len(document["findings"])
    if as_json:
        typer.echo(json.dumps({"directory": str(out), "levels": levels, **about}, indent=1))
    else:
        typer.echo(
            f"{brought.series:,} series, {brought.samples:,} samples, "
            f"{plural(levels, 'level')} in {out}\nnext: meshwise report {out}"
        )


def _about(source: str, version: str, wanted: ImportRange, brought: Brought) -> dict[str, Any]:
    told: list[tuple[int, Callable[[int], str]]] = [
        (brought.resets, lambda n: f"counters fell {plural(n, 'time')} (a process began again)"),
        (brought.gaps, lambda n: f"{plural(n, 'gap')} of more than a step"),
        (brought.late, lambda n: f"{n:,} of the series began within the time"),
        (brought.ended, lambda n: f"{n:,} of the series ended within the time"),
        (brought.troubles_left_out, lambda n: f"{n:,} further disturbances are counted, not listed"),
    ]
    notes = [words(count) for count, words in told if count]
    if brought.sparse:
        notes.append(
            "so many points are missing that the step is likely shorter than the time between two scrapes: "
            "give a larger `--step`"
        )
    return {
        "source": source, "prometheus": version, "from_unix_ns": wanted.begin_ns, "to_unix_ns": wanted.end_ns,
        "from": moment(wanted.begin_ns), "to": moment(wanted.end_ns), "step_ns": wanted.step_ns,
        "namespaces": list(wanted.namespaces), "series": brought.series, "samples": brought.samples,
        "queries": list(brought.queries), "notes": notes, "cannot_tell": list(CANNOT_TELL),
    }  # fmt: skip


def wanted_of(from_: str, to: str, step: str, namespaces: tuple[str, ...], most_samples: int) -> ImportRange:
    """Times on the grid of the step. Raises MW010."""
    now_ns = time.time_ns()
    step_ns = parse_duration_ns(step)
    if step_ns < 10**9 or step_ns % 10**6:
        raise bad_option(f"`--step {step}` is below a second, or no whole milliseconds", "give 15s, 1m, ...")
    begin_ns, end_ns = point_of(from_, now_ns, "--from"), point_of(to, now_ns, "--to")
    if begin_ns >= end_ns:
        raise bad_option(f"`--from {from_}` is not before `--to {to}`", "give an earlier begin")
    if end_ns - begin_ns > _LONGEST_NS:
        raise bad_option("more than 400 days are asked for", "give a shorter time")
    for name in namespaces:
        if not is_namespace(name):
            raise bad_option(
                f"`{name}` is no name of a namespace", "give one as `kubectl get namespaces` shows it"
            )
    begin_ns = -(-begin_ns // step_ns) * step_ns
    return ImportRange(
        begin_ns, max(begin_ns, end_ns // step_ns * step_ns), step_ns, namespaces, most_samples
    )


def point_of(text: str, now_ns: int, option: str) -> int:
    """`now`, a time in seconds since 1970, an ISO 8601 time (UTC where it has no zone), or a time ago."""
    if text == "now":
        return now_ns
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return round(float(text) * 1000) * 1_000_000
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now_ns - parse_duration_ns(text)
        except MeshwiseError as error:
            raise bad_option(
                f"`{option} {text}` is no time",
                "give 2026-01-31T12:00Z, seconds since 1970, or a time ago as 6h",
            ) from error
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return round(when.timestamp() * 1000) * 1_000_000
