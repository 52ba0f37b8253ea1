"""Trials and outcomes as rows, cells as columns and back. Pure."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from meshwise.archive.outcome import Check, Proof, ProtectionTry, TrialOutcome
from meshwise.archive.schema import DESIGN, PROTECTION, TRIALS
from meshwise.findings.protection import AttemptOutcome
from meshwise.study.factors import FACTORS
from meshwise.study.model import Cell, Phase, Role, Trial

Row = dict[str, Any]


def cell_row(cell: Cell) -> Row:
    row: Row = {"cell": cell.name}
    for factor in FACTORS:
        row |= factor.to_columns(cell)
    return row


def cell_of(row: Mapping[str, Any]) -> Cell:
    """The inverse of `cell_row`; archives from before a factor have no such column. Raises KeyError,
    ValueError for a row that is none."""
    return Cell(**{factor.field: factor.of_columns(row) for factor in FACTORS})


def trial_row(trial: Trial) -> Row:
    return {
        "trial_id": trial.trial_id,
        "block": trial.block,
        "execution": trial.execution,
        "position": trial.position,
        "role": str(trial.role),
        "process_set": trial.process_set,
        "round": trial.round,
        "arm": trial.arm,
    } | cell_row(trial.cell)


def trial_of(row: Mapping[str, Any]) -> Trial:
    """The inverse of `trial_row`."""
    return Trial(
        trial_id=row["trial_id"],
        block=row["block"],
        execution=row["execution"],
        position=row["position"],
        cell=cell_of(row),
        role=Role(row["role"]),
        attempt=row.get("attempt") or 0,
        search=row.get("search") or "",
        step=row.get("step"),
        phase=Phase(row["phase"]) if row.get("phase") else None,
        round=row["round"],
        arm=row["arm"],
        process_set=row["process_set"],
    )


def with_rounds(table: pa.Table, design: pa.Table) -> pa.Table:
    """A table of trials whose archive is from before there were rounds: each is a round of one, numbered by
    its place in the design."""
    if table["round"].null_count == 0:
        return table
    per_block = (pc.max(design["position"]).as_py() or 0) + 1
    numbers = pc.add(pc.multiply(table["block"], per_block), table["position"])
    arms = pa.repeat(pa.scalar(0, pa.int64()), table.num_rows)
    for name, values in (("round", numbers), ("arm", arms)):
        index = table.schema.get_field_index(name)
        table = table.set_column(
            index, table.schema.field(index), values.cast(table.schema.field(index).type)
        )
    return table


def design_table(trials: Iterable[Trial]) -> pa.Table:
    return pa.Table.from_pylist([trial_row(trial) for trial in trials], schema=DESIGN.arrow)


def outcome_row(outcome: TrialOutcome, files: Row) -> Row:
    """The row of `trials.parquet`; `files` are the columns about the trial's own files."""
    measurement = outcome.measurement
    return (
        trial_row(outcome.trial)
        | {
            "attempt": outcome.trial.attempt,
            "status": str(outcome.status),
            "failure": outcome.failure,
            "log_tail": measurement.log_tail if measurement else "",
            "flags": list(measurement.flags) if measurement else [],
            "proof": proof_json(outcome.proof),
            "instrument": json.dumps(dict(measurement.instrument)) if measurement else "{}",
            "checks": checks_json(measurement.checks) if measurement else "[]",
            "started_unix_ns": measurement.started_unix_ns if measurement else None,
            "stored_unix_ns": time.time_ns(),
            "apply_ns": outcome.apply_ns,
            "prove_ns": outcome.prove_ns,
            "measure_ns": outcome.measure_ns,
            "search": outcome.trial.search,
            "step": outcome.trial.step,
            "phase": str(outcome.trial.phase) if outcome.trial.phase else None,
            "result": outcome.result,
            "reason": outcome.reason,
        }
        | files
    )


def proof_json(proof: Proof) -> str:
    return json.dumps(
        {
            "passed": proof.passed,
            "checks": [asdict(check) for check in proof.checks],
            "facts": dict(proof.facts),
            "duration_ns": proof.duration_ns,
        }
    )


def checks_json(checks: Iterable[Check]) -> str:
    return json.dumps([asdict(check) for check in checks])


def trials_table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TRIALS.arrow)


def protection_table(tries: Sequence[ProtectionTry]) -> pa.Table:
    rows = [
        {
            "mesh": one.mesh, "posture": one.posture, "protocol": one.protocol, "attempt": one.attempt,
            "execution": one.execution, "try": one.number, "outcome": one.outcome, "evidence": one.evidence,
            "duration_ns": one.duration_ns,
        }
        for one in tries
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, PROTECTION.arrow)


def tries_of(rows: Iterable[Mapping[str, Any]]) -> tuple[ProtectionTry, ...]:
    """The rows of `protection.parquet`. Raises ValueError for one that is no try."""
    found = []
    for row in rows:
        if row["outcome"] not in tuple(AttemptOutcome):
            raise ValueError(f"`outcome` is `{row['outcome']}`")
        if not isinstance(json.loads(row["evidence"]), dict):
            raise ValueError("`evidence` is no JSON object")
        found.append(ProtectionTry(**{"number" if name == "try" else name: row[name] for name in row}))
    return tuple(found)
