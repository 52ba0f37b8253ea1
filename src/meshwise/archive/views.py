"""The tables of a study's directory as views of a database: what each holds, its columns and their units.

What `meshwise query DIR --tables` prints and docs/query.md shows. The tables of the archive are there as they
are stored (`archive.schema`); `findings` is findings.json as rows, `responses` the measured requests beside
what their trial was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from meshwise.archive.imported import IMPORTED_TABLES
from meshwise.archive.schema import (
    REQUESTS,
    REQUESTS_EXTRA,
    TABLES,
    Column,
    TableSpec,
)

_UNITS = (
    ("_unix_ns", "ns since 1970"), ("_ns", "ns"), ("_us", "us"), ("_s", "s"), ("_rps", "1/s"), ("bytes", "B"),
)  # fmt: skip


def unit_of(column: str) -> str:
    """A column's unit is the end of its name; empty where it has none."""
    return next((unit for ending, unit in _UNITS if column.endswith(ending)), "")


@dataclass(frozen=True)
class TableView:
    name: str
    about: str
    columns: tuple[Column, ...]

    @property
    def arrow(self) -> pa.Schema:
        """Without dictionaries, which a database has no need of."""
        return pa.schema([(column.name, _plain(column.type)) for column in self.columns])


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _of_table(spec: TableSpec) -> TableView:
    extra = REQUESTS_EXTRA if spec is REQUESTS else ()
    return TableView(spec.name, spec.about, (*spec.columns, *extra))


_TEXT, _NUMBER = pa.string(), pa.float64()
FINDINGS = TableView(
    "findings",
    "one row per finding of findings.json; no rows before `meshwise analyze` (docs/findings.md)",
    (
        Column("id", _TEXT, "unique in the document"),
        Column(
            "kind", _TEXT, "`level`, `increment`, `difference`, `noise_floor`, `check`, `protection`, ..."
        ),
        Column("metric", _TEXT, "what was measured, unit last"),
        Column("mesh", _TEXT, "of the cell or the comparison; null where it is about none"),
        Column("posture", _TEXT, "of the cell; null where it is about none"),
        Column("protocol", _TEXT, "of the cell; null where it is about none"),
        Column("workload", _TEXT, "whose part of the metric it is; null: of everything"),
        Column("lower", _TEXT, "of a step: the posture below (`from` of the scope)"),
        Column("upper", _TEXT, "of a step: the posture above (`to` of the scope)"),
        Column("estimate", _NUMBER, "in `unit`"),
        Column("low", _NUMBER, "lower bound of its interval, in `unit`"),
        Column("high", _NUMBER, "upper bound of its interval, in `unit`"),
        Column("confidence", _NUMBER, "of the interval, 0 to 1"),
        Column("unit", _TEXT, "`us`, `bytes`, `1/s`, `ratio`, ..."),
        Column("ratio", _NUMBER, "of a comparison: upper by lower"),
        Column("n", pa.int64(), "independent units behind it"),
        Column("verdict", _TEXT, "`distinguishable`, `not_distinguishable`, ...; null where there is none"),
        Column("provenance", _TEXT, "`measured`, `counted`, `translated`, `tried`, `imported`"),
        Column("method", _TEXT, "how it was computed"),
        Column("sentence", _TEXT, "the finding in words"),
        Column("flags", pa.list_(_TEXT), "why it is doubtful"),
        Column("scope", _TEXT, "JSON: all levels that it is about"),
    ),
)
RESPONSES = TableView(
    "responses",
    "measured requests (without warm-up, of trials that went well) beside what their trial was",
    (
        *(column for column in REQUESTS.columns),
        Column("cell", _TEXT, "the trial's cell"),
        Column("mesh", _TEXT, "`none`, `istio`, `linkerd`"),
        Column("posture", _TEXT, "the ladder's name, or `<mtls>+<authorization>`"),
        Column("protocol", _TEXT, "`http1`, `http2`, `grpc`, `tcp`"),
        Column("rate_rps", _NUMBER, "offered requests per second"),
        Column("role", _TEXT, "of the trial: `cell`, `aa`, `twin`, ..."),
        Column("block", pa.int64(), "counts from 0"),
        Column("execution", pa.int64(), "counts from 0"),
        Column("round", pa.int64(), "counts from 0"),
        Column("response_us", _NUMBER, "from the intended time to the whole answer; null if none came"),
        Column("service_us", _NUMBER, "from the actual send to the whole answer; null if none came"),
        Column("lateness_us", _NUMBER, "from the intended time to the actual send; null if never sent"),
    ),
)
VIEWS: tuple[TableView, ...] = (*map(_of_table, TABLES), RESPONSES, FINDINGS)
IMPORT_VIEWS: tuple[TableView, ...] = (*map(_of_table, IMPORTED_TABLES), FINDINGS)
"""Of an import's directory."""

RESPONSES_SQL = """\
SELECT r.trial_id, r.intended_ns, r.sent_ns, r.first_byte_ns, r.done_ns, r.status, r.bytes, r.error,
       t.cell, t.mesh, t.posture, t.protocol, t.rate_rps, t.role, t.block, t.execution, t.round,
       (r.done_ns - r.intended_ns) / 1e3 AS response_us,
       (r.done_ns - r.sent_ns) / 1e3 AS service_us,
       (r.sent_ns - r.intended_ns) / 1e3 AS lateness_us
FROM requests r JOIN trials t ON t.trial_id = r.trial_id
WHERE r.intended_ns >= 0 AND t.status = 'ok' AND t.role <> 'count'
"""


def findings_table(document: Mapping[str, Any]) -> pa.Table:
    """The findings of a findings document as rows. Entries that are none are left out."""
    entries = [entry for entry in document.get("findings") or () if isinstance(entry, Mapping)]
    return pa.Table.from_pylist([_row(entry) for entry in entries], FINDINGS.arrow)


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    scope = entry.get("scope") if isinstance(entry.get("scope"), Mapping) else {}
    assert isinstance(scope, Mapping)
    direct: dict[str, Any] = {column.name: entry.get(column.name) for column in FINDINGS.columns}
    for name in ("estimate", "low", "high", "confidence", "ratio"):
        direct[name] = None if direct[name] is None else float(direct[name])
    told = {name: _said(scope.get(name)) for name in ("mesh", "posture", "protocol", "workload")}
    return (
        direct
        | told
        | {
            "lower": _said(scope.get("from")),
            "upper": _said(scope.get("to")),
            "flags": [str(flag) for flag in entry.get("flags") or ()],
            "scope": json.dumps(scope, sort_keys=True),
        }
    )


def _said(value: object) -> str | None:
    return None if value is None else str(value)


def described(views: Sequence[TableView]) -> list[dict[str, Any]]:
    """Every view as plain values, for `--tables --json`."""
    return [
        {
            "name": view.name,
            "about": view.about,
            "columns": [
                {
                    "name": column.name,
                    "type": type_words(column.type),
                    "unit": unit_of(column.name),
                    "meaning": column.meaning,
                }
                for column in view.columns
            ],
        }
        for view in views
    ]


def type_words(kind: pa.DataType) -> str:
    """As docs/archive.md has them: `text`, `int64`, `list of text`, ..."""
    if pa.types.is_list(kind):
        return f"list of {type_words(kind.value_type)}"
    kind = _plain(kind)
    return {"string": "text", "double": "float64"}.get(str(kind), str(kind))
