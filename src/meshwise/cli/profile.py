"""`meshwise profile DIR`: what profilers saw, as the busiest functions and as flame graphs in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from meshwise.archive.read import ArchiveReader
from meshwise.core import messages
from meshwise.core.files import disk_troubles, writing
from meshwise.findings.profiles import ProcessProfile, ThreadUse
from meshwise.measure.stacks import busiest, profiles_of, threads_of
from meshwise.report import edge
from meshwise.report.stacks import page
from meshwise.study.model import Role

MOST_FUNCTIONS = 8


def profile(
    directory: Annotated[Path, typer.Argument(help="The archive of a study.", metavar="DIR")],
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write flame graphs here, one file that needs no other.", metavar="FILE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is shown as JSON.")] = False,
) -> None:
    """Show where the processes of profiled trials spent their CPU, and what their threads did.

    Needs a study with `profile: true`. Nothing of its profiled trials is a time: profilers slow down what
    they look at.

    Example: meshwise profile my-study --html flames.html
    """
    reader = ArchiveReader.open(directory)
    trials = reader.trials().filter(pl.col("role") == str(Role.PROFILE))
    if trials.is_empty():
        raise messages.NO_PROFILES.error(str(directory))
    cells = dict(trials.select("trial_id", "cell").iter_rows())
    found = profiles_of(reader.profiles())
    threads = [(name, threads_of(reader.scan_telemetry([name]).collect())) for name in cells]
    lost = sorted(
        {
            flag
            for flags in trials["flags"].to_list()
            for flag in flags or ()
            if flag.startswith("not_profiled")
        }
    )
    if html is not None:
        text = edge.visible(page(f"{reader.study().name}: profiles", found, threads, cells))
        with disk_troubles(html.parent), writing(html) as stream:
            stream.write(text.encode())
    if as_json:
        typer.echo(json.dumps(_document(found, threads, cells, lost), indent=2))
        return
    for each in found:
        _show(each, cells)
    for name, used in threads:
        _show_threads(name, used)
    for flag in lost:
        typer.echo(flag)
    if html is not None:
        typer.echo(f"flame graphs: {html}", err=True)


def _show(found: ProcessProfile, cells: dict[str, str]) -> None:
    typer.echo(f"\n{found.source} by {found.tool}, {found.root.samples} samples ({cells[found.trial_id]})")
    for name, share in busiest(found, MOST_FUNCTIONS):
        typer.echo(edge.visible(f"  {share:6.1%}  {name[:100]}"))


def _show_threads(trial_id: str, used: list[ThreadUse]) -> None:
    typer.echo(f"\nthreads in {trial_id}: CPU, waited for a CPU, context switches (gave way, was put off)")
    for each in used:
        if each.cpu_ns:
            numbers = f"{each.cpu_ns / 1e6:9.1f} ms {each.waited_ns / 1e6:9.1f} ms"
            switches = f"{each.voluntary:7.0f} {each.involuntary:7.0f}"
            typer.echo(edge.visible(f"  {numbers} {switches}  {each.source} {each.thread}"))


def _document(
    found: list[ProcessProfile],
    threads: list[tuple[str, list[ThreadUse]]],
    cells: dict[str, str],
    lost: list[str],
) -> dict[str, Any]:
    return {
        "profiles": [
            {
                "trial_id": each.trial_id,
                "cell": cells[each.trial_id],
                "source": each.source,
                "tool": each.tool,
                "samples": each.root.samples,
                "functions": [
                    {"name": name, "share": share} for name, share in busiest(each, MOST_FUNCTIONS)
                ],
            }
            for each in found
        ],
        "threads": [{"trial_id": name, **vars(each)} for name, used in threads for each in used],
        "flags": lost,
    }
