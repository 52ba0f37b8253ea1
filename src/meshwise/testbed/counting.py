"""What every testbed that counts has in common: windows as rows of `counts.parquet`. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from meshwise.archive.schema import COUNTS, FUNCTIONS
from meshwise.study.counting import WindowKind
from meshwise.telemetry.counting.seam import Function

INSTRUCTIONS, CYCLES, SYSTEM_CALLS = "instructions", "cycles", "system_calls"
"""What `metric` may be."""

MOST_FUNCTIONS = 1500
"""Of a process in a kind of windows, the costliest; a request runs through 700 to 1600."""
REST = "(rest)"
_BY_FUNCTION = (WindowKind.REQUESTS, WindowKind.IDLE)
_NO_SYMBOL = re.compile(r"0x[0-9a-f]+|\?\?\?|")
"""How a counter names what has no symbol."""

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
    functions: Mapping[str, Mapping[Function, int]] = field(default_factory=dict)
    """By source: instructions in each function itself; empty where the counter tells none."""


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


def functions_table(windows: Sequence[CountedWindow]) -> pa.Table | None:
    """Columns as in `archive.schema.FUNCTIONS`, but for the trial's; None where no functions were told."""
    rows = []
    for kind in _BY_FUNCTION:
        own = [window for window in windows if window.kind is kind]
        summed: dict[str, Counter[Function]] = {}
        for window in own:
            for source, told in window.functions.items():
                summed.setdefault(source, Counter()).update(told)
        rows += [
            {
                "kind": str(kind),
                "source": source,
                "binary": binary,
                "function": name,
                "value": value,
                "requests": sum(window.requests for window in own),
                "duration_ns": sum(window.duration_ns for window in own),
            }
            for source, told in summed.items()
            for (binary, name), value in _listed(told)
        ]
    schema = pa.schema([column for column in FUNCTIONS.arrow if column.name != "trial_id"])
    return pa.Table.from_pylist(rows, schema=schema) if rows else None


def _listed(told: Mapping[Function, int]) -> Sequence[tuple[Function, int]]:
    """The costliest MOST_FUNCTIONS, then all others together."""
    known: Counter[Function] = Counter()
    for (binary, name), value in told.items():
        known[Function(binary, "" if _NO_SYMBOL.fullmatch(name) else name)] += value
    listed = known.most_common(MOST_FUNCTIONS)
    rest = known.total() - sum(value for _, value in listed)
    return [*listed, (Function("", REST), rest)] if rest else listed
