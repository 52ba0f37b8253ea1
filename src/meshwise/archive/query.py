"""Questions in SQL to a study's directory, answered by DuckDB over the archive's own files.

Rules of this file:
- Only one SELECT is run, whatever else a text holds: nothing is written, attached, installed or set.
- Files are reached by name only where they are the archive's own, checked as every reader checks them
  (`ArchiveReader.open`): DuckDB is given their paths one by one and then loses access to all others, to the
  network, to extensions and to variables of this process, and its settings are locked.
- Memory is bounded; what does not fit goes to a temporary directory that is bounded too. Rows are passed on
  as they come, so that an answer may be larger than the memory.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from meshwise.archive.findings import FINDINGS_NAME, read_findings
from meshwise.archive.imported import IMPORTED_TABLES, ImportReader
from meshwise.archive.read import ArchiveReader
from meshwise.archive.schema import DESIGN, OF_A_TRIAL, PROTECTION, TABLES, TRIALS
from meshwise.archive.views import (
    FINDINGS,
    IMPORT_VIEWS,
    RESPONSES,
    RESPONSES_SQL,
    VIEWS,
    TableView,
    findings_table,
)
from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.scratch import scratch_directory
from meshwise.core.units import format_duration, format_size

LINES_AT_ONCE = 2048
"""Rows that are held at a time."""
_MOST_SPILL = "8GiB"
"""Of the temporary directory."""
_EMPTY = "without_rows"
"""Schema of tables without rows, which give a view all its columns, whatever its files have."""
_WITHOUT_TRIALS = frozenset({DESIGN.name, PROTECTION.name})
"""Of all other tables only rows of complete trials are shown, as `ArchiveReader` does."""


@dataclass(frozen=True)
class QueryLimits:
    memory_bytes: int = 1 << 30
    timeout_ns: int = 600 * 10**9


@dataclass(frozen=True)
class QueryAnswer:
    columns: tuple[str, ...]
    rows: Iterator[Sequence[tuple[Any, ...]]]
    """Batches of at most LINES_AT_ONCE; raises MW001, MW003, MW004 where it cannot go on."""


@dataclass(frozen=True)
class QuerySources:
    """What a directory holds, ready to be made views of."""

    views: tuple[TableView, ...]
    tables: Mapping[str, pa.Table]
    """Small ones, whole."""
    files: Mapping[str, Sequence[Path]]
    """Those that may be larger than memory: checked Parquet files."""
    selects: Mapping[str, str]
    """Views over the others."""


def sources_of(reader: ArchiveReader) -> QuerySources:
    """Of a study's directory. Raises MW608, MW609."""
    directory = reader.directory.resolve()
    document = read_findings(directory) if (directory / FINDINGS_NAME).exists() else {}
    files = {
        spec.name: [directory / f"{spec.name}.parquet"]
        for spec in TABLES
        if f"{spec.name}.parquet" in reader.digests and spec is not TRIALS
    }
    files |= {spec.name: [path.resolve() for path in reader.files(spec)] for spec in OF_A_TRIAL}
    return QuerySources(
        VIEWS,
        {TRIALS.name: reader.trials_arrow, FINDINGS.name: findings_table(document)},
        files,
        {RESPONSES.name: RESPONSES_SQL},
    )


def sources_of_import(reader: ImportReader) -> QuerySources:
    """Of an import's directory."""
    directory = reader.directory.resolve()
    document = read_findings(directory) if (directory / FINDINGS_NAME).exists() else {}
    files = {spec.name: [directory / f"{spec.name}.parquet"] for spec in IMPORTED_TABLES}
    return QuerySources(IMPORT_VIEWS, {FINDINGS.name: findings_table(document)}, files, {})


@contextmanager
def answering(
    sources: QuerySources, question: str, limits: QueryLimits = QueryLimits()
) -> Iterator[QueryAnswer]:
    """The answer to one SELECT. Raises MW001 (with line and column), MW002, MW003, MW004."""
    with scratch_directory("meshwise-query-") as spill, duckdb.connect() as connection:
        _fill(connection, sources)
        _lock(connection, sources, limits, str(spill))
        overdue = threading.Event()

        def stop() -> None:
            overdue.set()
            connection.interrupt()

        timer = threading.Timer(limits.timeout_ns / 1e9, stop)
        timer.daemon = True
        timer.start()
        try:
            with _words(question, sources.views, limits, overdue):
                _require_select(connection, question)
                result = connection.execute(question)
                columns = tuple(str(entry[0]) for entry in result.description or ())
            yield QueryAnswer(columns, _batches(result, question, sources.views, limits, overdue))
        finally:
            timer.cancel()


def _fill(connection: duckdb.DuckDBPyConnection, sources: QuerySources) -> None:
    connection.execute(f"CREATE SCHEMA {_EMPTY}")
    for view in sources.views:
        if view.name in sources.selects:
            continue
        made = _identifier(view.name)
        empty = sources.tables.get(view.name, view.arrow.empty_table())
        connection.register("_given", _undictionaried(empty))
        files = sources.files.get(view.name, ())
        if not files:
            connection.execute(f"CREATE TABLE {made} AS SELECT * FROM _given")
            connection.unregister("_given")
            continue
        connection.execute(f"CREATE TABLE {_EMPTY}.{made} AS SELECT * FROM _given")
        connection.unregister("_given")
        paths = ", ".join(_text(str(path)) for path in files)
        grown = TRIALS.name in sources.tables and view.name not in _WITHOUT_TRIALS
        complete = " WHERE trial_id IN (SELECT trial_id FROM trials)" if grown else ""
        connection.execute(
            f"CREATE VIEW {made} AS SELECT * FROM {_EMPTY}.{made} UNION ALL BY NAME "
            f"SELECT * FROM read_parquet([{paths}], union_by_name = true){complete}"
        )
    for name, select in sources.selects.items():
        connection.execute(f"CREATE VIEW {_identifier(name)} AS {select}")


def _lock(
    connection: duckdb.DuckDBPyConnection, sources: QuerySources, limits: QueryLimits, spill: str
) -> None:
    allowed = ", ".join(_text(str(path)) for files in sources.files.values() for path in files)
    for setting, value in (
        ("memory_limit", _text(f"{limits.memory_bytes // 1024}KiB")),
        ("temp_directory", _text(spill)),
        ("max_temp_directory_size", _text(_MOST_SPILL)),
        ("threads", str(min(4, len(os.sched_getaffinity(0))))),
        ("preserve_insertion_order", "true"),
        ("enable_progress_bar", "false"),
        ("python_enable_replacements", "false"),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("errors_as_json", "true"),
        ("allowed_paths", f"[{allowed}]"),
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
    ):
        connection.execute(f"SET {setting} = {value}")


def _require_select(connection: duckdb.DuckDBPyConnection, question: str) -> None:
    statements = connection.extract_statements(question)
    if len(statements) != 1:
        found = "empty" if not statements else f"{len(statements)} statements"
        raise messages.NOT_A_QUESTION.error(found=found)
    if statements[0].type != duckdb.StatementType.SELECT:
        kind = str(statements[0].type).rpartition(".")[2]
        raise messages.NOT_A_QUESTION.error(found=f"a statement of kind {kind}")


def _batches(
    result: duckdb.DuckDBPyConnection,
    question: str,
    views: Sequence[TableView],
    limits: QueryLimits,
    overdue: threading.Event,
) -> Iterator[Sequence[tuple[Any, ...]]]:
    while True:
        with _words(question, views, limits, overdue):
            batch = result.fetchmany(LINES_AT_ONCE)
        if not batch:
            return
        yield batch


def _undictionaried(table: pa.Table) -> pa.Table:
    """Its texts as texts: an enumeration cannot be united with another one."""
    schema = pa.schema(
        [
            (field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
            for field in table.schema
        ]
    )
    return table.cast(schema).replace_schema_metadata(None)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


# --- what DuckDB says, in our words ----------------------------------------------------------------


@contextmanager
def _words(
    question: str, views: Sequence[TableView], limits: QueryLimits, overdue: threading.Event
) -> Iterator[None]:
    try:
        yield
    except duckdb.InterruptException as error:
        if not overdue.is_set():
            raise KeyboardInterrupt from error
        raise messages.QUERY_TOOK_TOO_LONG.error(timeout=format_duration(limits.timeout_ns)) from error
    except RuntimeError as error:  # what DuckDB makes of Ctrl-C while it computes
        if "interrupted" not in str(error):
            raise
        raise KeyboardInterrupt from error
    except duckdb.OutOfMemoryException as error:
        what = _told(error).what.splitlines()[0]
        raise messages.OUT_OF_QUERY_MEMORY.error(
            memory=format_size(limits.memory_bytes), what=what
        ) from error
    except duckdb.Error as error:
        raise _bad_query(_told(error), question, views) from error


@dataclass(frozen=True)
class _Told:
    kind: str
    what: str
    position: int | None
    """Of a character of the question."""


def _told(error: duckdb.Error) -> _Told:
    """DuckDB's error, which is JSON where `errors_as_json` is heeded."""
    text = str(error)
    start = text.find("{")
    try:
        facts = json.loads(text[start:]) if start >= 0 else {}
    except ValueError:
        facts = {}
    if not isinstance(facts, dict) or "exception_message" not in facts:
        kind, _, what = text.partition(": ")
        return _Told(kind, what or text, None)
    position = str(facts.get("position", ""))
    return _Told(
        str(facts.get("exception_type", "")),
        str(facts["exception_message"]),
        int(position) if position.isdecimal() else None,
    )


def place_in(question: str, position: int) -> tuple[int, int]:
    """Line and column, from 1, of a character; DuckDB counts bytes."""
    before = question.encode()[:position].decode("utf-8", "replace")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _bad_query(told: _Told, question: str, views: Sequence[TableView]) -> MeshwiseError:
    what = told.what.split("\nLINE ")[0].split("\n\nLINE ")[0].strip()
    position = told.position if told.position is not None else _position_from(told.what, question)
    where = "SQL"
    if position is not None:
        line, column = place_in(question, position)
        where = f"SQL, line {line}, column {column}"
    return messages.BAD_QUERY.error(where, what=what, remedy=_remedy(told.kind, what, views))


def _position_from(what: str, question: str) -> int | None:
    """From the text `near "word"`, where there is no position."""
    found = re.search(r'at or near "([^"]+)"', what)
    at = question.find(found[1]) if found else -1
    return at if at >= 0 else None


def _remedy(kind: str, what: str, views: Sequence[TableView]) -> str:
    names = [view.name for view in views]
    if kind == "Permission":
        return "a query reads the archive's own tables only: " + ", ".join(names)
    missing = re.search(r"Table with name (\S+) does not exist", what)
    if missing:
        close = get_close_matches(missing[1].rstrip("!"), names, 1)
        guess = f"did you mean `{close[0]}`? " if close else ""
        return f"{guess}tables: {', '.join(names)}; `meshwise query DIR --tables` shows their columns"
    if kind in ("Binder", "Catalog"):
        return "`meshwise query DIR --tables` shows all tables with their columns"
    if kind in ("Conversion", "Invalid Input", "Out of Range"):
        return "a value does not fit: TRY_CAST gives null for what cannot be read"
    return "see docs/query.md for queries that work; the dialect is DuckDB's"
