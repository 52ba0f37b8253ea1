"""From the bytes of a Parquet file to a table whose columns are what the schema says. Raises MW608.

Sizes are compared with what is expected before anything is decoded, because a few bytes of Parquet can
stand for any number of rows; then types, nulls and ranges are checked, so that nothing to the right has to.
(The sizes are those that the file states. A page of another size than stated, inside a file whose digest
is right is the one thing that is found only while it is decoded.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from meshwise.archive.documents import damaged
from meshwise.archive.schema import (
    COUNTS,
    FUNCTIONS,
    NAME,
    PROFILES,
    REQUESTS,
    REQUESTS_EXTRA,
    TEXT,
    TableSpec,
    conform,
)

MOST_TRIALS = 100_000
"""Rows of `design.parquet` and `trials.parquet`."""
MOST_COUNTS = 10_000_000
"""Rows of `counts.parquet`, some 500 per counting trial, or of `functions.parquet`, some 2,000,
or of `profiles.parquet`, some 5,000."""
MOST_TABLE_BYTES = 1 << 30
"""Of a table of trials, decoded."""
MOST_ROW_BYTES = 512
"""Of a row of `requests` or `telemetry`, decoded, on average."""
MOST_SPAN_BYTES = 4096
"""Of a row of `spans`, whose attributes are text."""
_MOST_IN_A_LIST = 1000
_LIMITS: Mapping[str, Any] = {
    "thrift_string_size_limit": 64 << 20,
    "thrift_container_size_limit": 1 << 20,
}
_ARROWS_ERRORS = (OSError, ValueError, pa.ArrowException, OverflowError, MemoryError, KeyError, TypeError)
"""What Arrow raises of a file that is not what it seems."""
_FAR = 1 << 61
"""No count, time or size has this magnitude; sums of two still fit into int64."""
SIGNED = frozenset(
    {"intended_ns", "sent_ns", "first_byte_ns", "done_ns", "t_ns", "value", "begun_ns", "ended_ns"}
)
NULLABLE = frozenset(
    {
        "mtls", "posture_file", "started_unix_ns", "requests_rows", "requests_sha256", "telemetry_rows",
        "telemetry_sha256", "sent_ns", "first_byte_ns", "done_ns",
    }
)  # fmt: skip


def decode(
    content: bytes, path: str, spec: TableSpec, *, rows: int | None = None, most_bytes: int
) -> pa.Table:
    """`rows`: exactly so many; None: at most MOST_TRIALS, or MOST_COUNTS. The spec's columns first, in its
    types; metadata kept."""
    most_rows = MOST_COUNTS if spec in (COUNTS, FUNCTIONS, PROFILES) else MOST_TRIALS
    file = check_sizes(content, path, rows=rows, most_bytes=most_bytes, most_rows=most_rows)
    try:
        raw = _read_texts_once(content, file)
        _require_expanded(raw, path, most_bytes)
        table = _extras(conform(raw, spec), spec)
        check_laws(table, path, spec)
    except _ARROWS_ERRORS as error:
        raise damaged(path, _first_line(error)) from error
    return table.replace_schema_metadata(raw.schema.metadata)


def check_sizes(
    content: bytes, path: str, *, rows: int | None, most_bytes: int, most_rows: int = MOST_TRIALS
) -> pq.ParquetFile:
    """What the file says of itself, before any row of it is decoded."""
    try:
        file = pq.ParquetFile(pa.BufferReader(content), **_LIMITS)
        found = file.metadata
    except _ARROWS_ERRORS as error:
        raise damaged(path, _first_line(error)) from error
    if rows is not None and found.num_rows != rows:
        raise damaged(path, f"it has {found.num_rows:,} rows, where {rows:,} are recorded")
    if rows is None and found.num_rows > most_rows:
        raise damaged(path, f"it has {found.num_rows:,} rows, where at most {most_rows:,} are expected")
    groups = [found.row_group(index) for index in range(found.num_row_groups)]
    if sum(group.num_rows for group in groups) != found.num_rows:
        raise damaged(path, "its parts have other numbers of rows than the whole")
    stored = sum(group.total_byte_size for group in groups)
    values = max(
        (group.column(at).num_values for group in groups for at in range(group.num_columns)), default=0
    )
    if stored > most_bytes or values > (found.num_rows + 1) * _MOST_IN_A_LIST:
        raise damaged(path, f"decoded it has {stored:,} bytes, where at most {most_bytes:,} are expected")
    return file


def _read_texts_once(content: bytes, file: pq.ParquetFile) -> pa.Table:
    """Texts stay as they are stored, each once, until it is known how much they are."""
    texts = [
        column.name
        for column in file.schema_arrow
        if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)
    ]
    again = pq.ParquetFile(pa.BufferReader(content), metadata=file.metadata, read_dictionary=texts, **_LIMITS)
    return again.read(use_threads=False)


def _require_expanded(table: pa.Table, path: str, most_bytes: int) -> None:
    """A long text that stands in many rows is stored once; written out it must be bounded too."""
    written_out = 0
    for column in table.columns:
        for chunk in column.chunks:
            if not isinstance(chunk, pa.DictionaryArray):
                written_out += chunk.nbytes
            elif len(chunk):
                lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
                written_out += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    if written_out > most_bytes:
        raise damaged(
            path, f"decoded it has {written_out:,} bytes, where at most {most_bytes:,} are expected"
        )


def _extras(table: pa.Table, spec: TableSpec) -> pa.Table:
    """Columns that may be there, in their types."""
    for column in REQUESTS_EXTRA if spec is REQUESTS else ():
        if column.name in table.column_names:
            at = table.schema.get_field_index(column.name)
            values = table.column(at)
            if pa.types.is_dictionary(values.type) and column.type != NAME:
                values = values.cast(pa.string())
            if values.type != column.type:
                values = values.cast(pa.string() if column.type == NAME else column.type)
            table = table.set_column(at, column.name, values)
    return table


def check_laws(table: pa.Table, path: str, spec: TableSpec, names: Sequence[str] | None = None) -> None:
    """No null where something must be, no number beyond its range, texts that are UTF-8. `names`: of these
    columns only."""
    for column in spec.columns:
        if names is not None and column.name not in names:
            continue
        values = table.column(column.name)
        if values.null_count and not (column.added or column.name in NULLABLE):
            raise damaged(path, f"`{column.name}` is null in {values.null_count:,} rows")
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            _check_range(values, column.name, path)
        elif column.type in (TEXT, NAME):
            _check_texts(values, column.name, path)
    if spec.name == "requests" and table.num_rows:
        early = pc.sum(pc.less(table["done_ns"], table["sent_ns"]).cast(pa.int64())).as_py() or 0
        if early:
            raise damaged(path, f"{early:,} requests were answered before they were sent")
    if spec.name == "spans" and table.num_rows:
        early = pc.sum(pc.less(table["ended_ns"], table["begun_ns"]).cast(pa.int64())).as_py() or 0
        if early:
            raise damaged(path, f"{early:,} spans ended before they began")


def _check_range(values: pa.ChunkedArray, name: str, path: str) -> None:
    if values.null_count == len(values):
        return
    if pa.types.is_floating(values.type) and not pc.all(pc.is_finite(values)).as_py():
        raise damaged(path, f"`{name}` holds what is no number")
    lowest, highest = pc.min_max(values).as_py().values()
    if highest >= _FAR or lowest <= -_FAR or (lowest < 0 and name not in SIGNED):
        raise damaged(path, f"`{name}` goes from {lowest:,} to {highest:,}, which cannot be")


def _check_texts(values: pa.ChunkedArray, name: str, path: str) -> None:
    try:
        for chunk in values.chunks:
            (chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk).validate(full=True)
            chunk.validate(full=True)
    except pa.ArrowInvalid as error:
        raise damaged(path, f"`{name}`: {_first_line(error)}") from error


def require_one_trial(table: pa.Table, trial_id: str, path: str) -> None:
    """Every row of a trial's own table bears its name."""
    found: Sequence[str] = table["trial_id"].unique().cast(pa.string()).to_pylist()
    if found not in ([], [trial_id]):
        raise damaged(path, f"it holds rows of {', '.join(found[:3])}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
