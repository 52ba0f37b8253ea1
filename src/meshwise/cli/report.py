"""`meshwise report DIR`: show what the analysis found, on the terminal and as one HTML file."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from meshwise.archive.findings import FINDINGS_NAME, outdated, read_findings, signed, write_findings
from meshwise.archive.imported import ImportReader, is_import
from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.files import Folder, disk_troubles, writing
from meshwise.findings.document import to_json
from meshwise.findings.finding import SCHEMA_VERSION
from meshwise.report import edge, terminal
from meshwise.report import html as page
from meshwise.report.content import Content, content
from meshwise.report.document import document
from meshwise.report.imported import imported_blocks, imported_document, imported_page
from meshwise.report.record import read_record
from meshwise.report.sections import report_of
from meshwise.series.levels import imported_findings

REPORT_NAME = "report.html"


def report(
    directory: Annotated[Path, typer.Argument(help="The archive of a study.", metavar="DIR")],
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Where to write the page. [default: DIR/report.html]", metavar="FILE"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what the report says as JSON; the page is written too.")
    ] = False,
) -> None:
    """Show the findings here, and write them with everything behind them into one HTML file.

    The page opens without a network; send it as it is.

    Example: meshwise report my-study --html my-study.html
    """
    if is_import(directory):
        report_import(directory, html, as_json=as_json)
        return
    reader = ArchiveReader.open(directory)
    record = read_record(reader)
    made = report_of(read_content(reader), record)
    path = html or directory / REPORT_NAME
    if as_json:
        typer.echo(json.dumps(document(made, str(path)), indent=2))
    else:
        terminal.show(made, edge.console())
    text = edge.visible(page.render(made, record, str(directory)))
    with disk_troubles(path.parent):  # after it was shown: a full disk must not take it
        if html is None:
            with Folder.open(directory) as folder:
                folder.write(REPORT_NAME, text.encode())
        else:
            with writing(html) as stream:
                stream.write(text.encode())
    if not as_json:
        typer.echo(f"the whole report, with distributions, proofs and environment: {path}", err=True)


def report_import(directory: Path, html: Path | None, *, as_json: bool) -> None:
    """The levels of an import, and what they cannot tell. Raises MW027."""
    reader = ImportReader.open(directory)
    series = pl.from_arrow(reader.series())
    assert isinstance(series, pl.DataFrame)
    findings = imported_findings(series, reader.about).findings
    path = html or directory / REPORT_NAME
    blocks = imported_blocks(findings, reader.about)
    if as_json:
        typer.echo(json.dumps(imported_document(findings, reader.about, str(path)), indent=2))
    else:
        terminal.show_blocks(blocks, edge.console())
    text = edge.visible(imported_page(blocks, f"Imported from {reader.about['source']}"))
    with disk_troubles(path.parent), writing(path) as stream:
        stream.write(text.encode())
    if not as_json:
        typer.echo(f"the page: {path}", err=True)


def read_content(reader: ArchiveReader) -> Content:
    """The findings of an archive, laid out; made anew, with a word on stderr, if they are not of this state
    of the archive. Raises MW701 without any; MW702, MW703 for those of another meshwise."""
    directory = reader.directory
    if not os.path.lexists(directory / FINDINGS_NAME):
        raise messages.NO_FINDINGS.error(
            str(directory), reason="it has no findings.json", directory=directory
        )
    return content(
        _current(reader),
        str(directory / FINDINGS_NAME),
        Counter(reader.trials()["status"].to_list()),
    )


def _current(reader: ArchiveReader) -> dict[str, Any]:
    """`findings.json` as the analysis makes it of the archive as it is now."""
    try:
        found = read_findings(reader.directory)
    except MeshwiseError as error:  # cut short, say: whatever it holds, the archive can say it again
        found, reason = {}, error.what
    else:
        reason = outdated(found, reader.digests)
    version = found.get("schema_version")
    newer = isinstance(version, int) and version > SCHEMA_VERSION
    if newer or not reason:
        return found
    path = reader.directory / FINDINGS_NAME
    typer.echo(f"{path} is not used: {reason}; the findings are made anew", err=True)
    made = signed(to_json(analyze_archive(reader)), reader.digests)
    try:
        write_findings(reader.directory, made, reader.digests)
    except MeshwiseError as error:  # they can be shown all the same
        typer.echo(f"the new findings are not kept: {error}", err=True)
    return made
