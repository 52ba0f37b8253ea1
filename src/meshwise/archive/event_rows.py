"""Rows of `events.parquet`: as testbeds make them, and those of archives in which no event says when it was
due."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from meshwise.archive.schema import EVENTS

KINDS = {
    "rotate": "rotation", "push": "policy_push", "posture": "posture_change", "restart": "restart",
    "fail": "failure", "skew": "skew",
}  # fmt: skip
"""The column `kind`, by the first word of `event`."""
_BEFORE = {"restart": "restart proxy"}
"""`event` of what older archives can hold, by its `kind`."""


@dataclass(frozen=True)
class EventRow:
    """One occurrence, as one target met it. Times from the start of the measured window."""

    event: str
    target: str
    entry: int
    occurrence: int
    intended_ns: int
    begun_ns: int | None = None
    """None: it never began; `detail` says why."""
    done_ns: int | None = None
    detail: Mapping[str, object] = field(default_factory=dict)


def events_table(rows: Sequence[EventRow]) -> pa.Table:
    """Columns as `archive.schema.EVENTS` says, without the trial's id."""
    found = [
        {
            "t_ns": row.intended_ns if row.begun_ns is None else row.begun_ns,
            "kind": KINDS[row.event.partition(" ")[0]],
            "duration_ns": 0 if row.begun_ns is None or row.done_ns is None else row.done_ns - row.begun_ns,
            **{name: getattr(row, name) for name in _FIELDS},
            "detail": json.dumps(row.detail, default=str),
        }
        for row in rows
    ]
    schema = pa.schema([(each.name, _plain(each.type)) for each in EVENTS.arrow if each.name != "trial_id"])
    return pa.Table.from_pylist(found, schema=schema)


_FIELDS = ("event", "target", "entry", "occurrence", "intended_ns", "begun_ns", "done_ns")


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(kind) else kind


def whole_events(events: pl.DataFrame) -> pl.DataFrame:
    """The same with the added columns, where an older archive has them not: what was done then was restarts
    of sidecars, one after the other, each begun as soon as it was due."""
    if events.is_empty() or not events["event"].null_count():
        return events
    order = pl.col("t_ns").rank("ordinal").over(pl.col("trial_id").cast(pl.String)).cast(pl.Int64) - 1
    known = {
        "event": pl.col("kind").cast(pl.String).replace(_BEFORE),
        "entry": pl.lit(0, pl.Int64),
        "occurrence": order,
        "intended_ns": pl.col("t_ns"),
        "begun_ns": pl.col("t_ns"),
        "done_ns": pl.col("t_ns") + pl.col("duration_ns"),
    }
    old = pl.col("event").is_null()
    return events.with_columns(
        pl.when(old).then(value).otherwise(pl.col(name)).cast(events.schema[name]).alias(name)
        for name, value in known.items()
    )
