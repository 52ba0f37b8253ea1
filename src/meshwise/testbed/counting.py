"""What every testbed that counts has in common: windows as rows of `counts.parquet`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from meshwise.archive.schema import COUNTS
from meshwise.study.counting import WindowKind

INSTRUCTIONS, CYCLES, SYSTEM_CALLS = "instructions", "cycles", "system_calls"
"""What `metric` may be."""

CountedValue = tuple[str, str, int]
"""(metric, name, value)"""


@dataclass(frozen=True)
class CountedWindow:
    """One window of a counting trial."""

    number: int
    kind: WindowKind
    requests: int
    connections: int
    duration_ns: int
    counted: Mapping[str, Sequence[CountedValue]]
    """By source."""


def counts_table(windows: Sequence[CountedWindow], counter: str) -> pa.Table:
    """Columns as in `archive.schema.COUNTS`, but for the trial's."""
    rows = [
        {
            "window": window.number,
            "kind": str(window.kind),
            "source": source,
            "counter": counter,
            "metric": metric,
            "name": name,
            "value": value,
            "requests": window.requests,
            "connections": window.connections,
            "duration_ns": window.duration_ns,
        }
        for window in windows
        for source, counted in window.counted.items()
        for metric, name, value in counted
    ]
    schema = pa.schema([field for field in COUNTS.arrow if field.name != "trial_id"])
    return pa.Table.from_pylist(rows, schema=schema)
