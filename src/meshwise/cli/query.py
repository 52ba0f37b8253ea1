"""`meshwise query DIR "SQL"`: ask the tables of a study's directory."""

from __future__ import annotations

import csv as csv_module
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from meshwise.archive.imported import ImportReader, is_import
from meshwise.archive.query import (
    QueryAnswer,
    QueryLimits,
    QuerySources,
    answering,
    sources_of,
    sources_of_import,
)
from meshwise.archive.read import ArchiveReader
from meshwise.archive.views import TableView, described, type_words, unit_of
from meshwise.core import messages
from meshwise.core.files import disk_troubles, writing
from meshwise.core.units import parse_duration_ns, parse_size_bytes
from meshwise.report import edge

Writer = Callable[[QueryAnswer, Callable[[str], None]], None]
"""Writes an answer as text, piece by piece."""


def query(
    directory: Annotated[Path, typer.Argument(help="The archive of a study, or an import.", metavar="DIR")],
    question: Annotated[
        str | None, typer.Argument(help="One SELECT in DuckDB's SQL.", metavar="SQL", show_default=False)
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Show the tables with their columns and units instead.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the rows as a JSON list of objects.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the rows as CSV with a header.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the rows here instead of printing them.", metavar="FILE"),
    ] = None,
    memory: Annotated[
        str, typer.Option("--memory", help="Memory that the query may take.", metavar="SIZE")
    ] = "1GiB",
    timeout: Annotated[
        str, typer.Option("--timeout", help="Stop it after this time.", metavar="TIME")
    ] = "10m",
) -> None:
    """Ask the tables of a study's directory in SQL. Nothing is changed, and nothing else is read.

    docs/query.md has the tables and a dozen queries that work. Rows come as they are found, also millions.

    Example: meshwise query my-study "SELECT mesh, posture, count(*) FROM responses GROUP BY ALL" --json
    """
    if as_json and csv:
        raise messages.BAD_SERIES_OPTION.error(
            what="`--json` and `--csv` are two forms of the same rows", remedy="give one of them"
        )
    found = open_sources(directory)
    if tables:
        typer.echo(json.dumps(described(found.views), indent=1) if as_json else tables_text(found.views))
        return
    if question is None:
        raise messages.BAD_SERIES_OPTION.error(
            what="there is no question", remedy="give one SELECT, or `--tables` to see what can be asked"
        )
    limits = QueryLimits(parse_size_bytes(memory), parse_duration_ns(timeout))
    write = as_json_list if as_json else as_csv if csv else as_table
    with answering(found, question, limits) as answer, _destination(out) as stream:
        seen = edge.visible if out is None else str
        write(answer, lambda text: _put(stream, seen(text)))


def open_sources(directory: Path) -> QuerySources:
    """Raises MW604, MW608, MW609, MW027."""
    if is_import(directory):
        return sources_of_import(ImportReader.open(directory))
    return sources_of(ArchiveReader.open(directory))


@contextmanager
def _destination(out: Path | None) -> Iterator[BinaryIO]:
    if out is None:
        yield edge.binary_stdout()
        return
    with disk_troubles(out.absolute().parent), writing(out) as stream:
        yield stream


def _put(stream: BinaryIO, text: str) -> None:
    stream.write(text.encode("utf-8", "surrogatepass"))


def tables_text(views: Sequence[TableView]) -> str:
    """Every table with its columns: name, type, unit, meaning."""
    blocks = []
    for view in views:
        rows = [(column.name, type_words(column.type), unit_of(column.name)) for column in view.columns]
        widths = [max(len(row[place]) for row in rows) for place in range(3)]
        lines = [
            "  " + "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), meaning))
            for row, meaning in zip(rows, (column.meaning for column in view.columns), strict=True)
        ]
        blocks.append("\n".join([f"{view.name}: {view.about}", *lines]))
    return "\n\n".join(blocks)


# --- the rows --------------------------------------------------------------------------------------


def as_json_list(answer: QueryAnswer, put: Callable[[str], None]) -> None:
    """One object a line, within one list. What JSON cannot hold is null; times and the like are texts."""
    between = "["
    for batch in answer.rows:
        for row in batch:
            entry = {name: _plain(value) for name, value in zip(answer.columns, row, strict=True)}
            put(f"{between}\n{json.dumps(entry)}")
            between = ","
    put("[]\n" if between == "[" else "\n]\n")


def as_csv(answer: QueryAnswer, put: Callable[[str], None]) -> None:
    put(_csv_lines([answer.columns]))
    for batch in answer.rows:
        put(_csv_lines([[_exact(value) for value in row] for row in batch]))


def _csv_lines(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv_module.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def as_table(answer: QueryAnswer, put: Callable[[str], None]) -> None:
    """Columns as wide as the first rows need."""
    widths: list[int] = []
    right: list[bool] = []
    count = 0
    for batch in answer.rows:
        cells = [[_cell(value) for value in row] for row in batch]
        if not widths:
            columns = range(len(answer.columns))
            right = [isinstance(batch[0][place], int | float) for place in columns]
            widths = [
                max(len(answer.columns[place]), *(len(row[place]) for row in cells)) for place in columns
            ]
            put(_line(answer.columns, widths, right))
            put("  ".join("-" * width for width in widths) + "\n")
        put("".join(_line(row, widths, right) for row in cells))
        count += len(batch)
    if not count:
        put("  ".join(answer.columns) + "\n(no rows)\n")


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    set_cells = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(set_cells).rstrip() + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) and abs(value) < 1e15 else str(value)
    if isinstance(value, list | tuple | dict):
        return json.dumps(_plain(value))
    return str(value)


def _exact(value: object) -> str:
    """With all digits; empty for null."""
    return repr(value) if isinstance(value, float) else _cell(value)


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.hex() if isinstance(value, bytes) else str(value)
