"""Studies whose truth is known: trial results straight from a noise model, and raw tables of one trial.

`synthetic_study` draws y[cell, block] = truth * exp(E[execution, cell] + b[block] + drift + carry + eps), the
model of which every interval of the analysis claims to know the coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from meshwise.findings.metric import MetricKey
from meshwise.measure.trial import TrialResult
from meshwise.study.model import (
    LADDER,
    NO_MESH,
    Cell,
    KeyType,
    MeshName,
    MtlsMode,
    Posture,
    Protocol,
    Role,
    TopologyKind,
    Trial,
)

STRICT = Posture(MtlsMode.STRICT)


def cell(mesh: MeshName = MeshName.ISTIO, posture: Posture = STRICT, **levels: Any) -> Cell:
    """A cell with the quickstart's levels unless told otherwise."""
    usual: dict[str, Any] = {
        "protocol": Protocol.HTTP1, "rate_rps": 800.0, "request_bytes": 0, "response_bytes": 1024,
        "connections": 8, "streams": 1, "shape": TopologyKind.CHAIN, "length": 1,
        "key_type": KeyType.ECDSA_P256 if mesh is MeshName.LINKERD else KeyType.RSA_2048,
        "policy_count": 0, "plaintext_share": 0.0,
    }  # fmt: skip
    return Cell(mesh=mesh, posture=NO_MESH if mesh is MeshName.NONE else posture, **(usual | levels))


def ladder_cells(*meshes: MeshName, **levels: Any) -> tuple[Cell, ...]:
    """`none` and the whole ladder of each mesh, in one setting."""
    rungs = [cell(mesh, posture, **levels) for mesh in meshes for posture in LADDER]
    return (cell(MeshName.NONE, NO_MESH, **levels), *rungs)


def synthetic_study(
    cells: Sequence[Cell],
    *,
    seed: int,
    K: int = 8,
    B: int = 1,
    s_E: float = 0.0,
    s_b: float = 0.03,
    s_block: float = 0.05,
    drift: float = 0.0,
    tail: float = 0.0,
    carry: float = 0.0,
    truth: Sequence[float] | None = None,
    metrics: Sequence[str] = ("response_p50_us",),
    same: Sequence[Cell] = (),
    twin: Sequence[Cell] = (),
) -> list[TrialResult]:
    """K executions of B blocks in random order. Noise on logs: `s_E` per execution and
    cell (memory layout), `s_block` per block, `s_b` per trial; `tail` share of trials three times as slow;
    `drift` over a block from first to last place; `carry` from the first cell to whatever follows it. `truth`
    per cell, default 200."""
    random = np.random.default_rng(seed)
    level = dict(zip(cells, truth or [200.0] * len(cells), strict=True))
    results = []
    for block in range(K * B):
        execution = block // B
        if block % B == 0:
            layouts = {
                name: {metric: {c: random.normal(0, s_E) for c in cells} for metric in metrics}
                for name in "ab"
            }
        in_block = {metric: random.normal(0, s_block) for metric in metrics}
        places = (
            [(c, Role.CELL) for c in cells] + [(c, Role.AA) for c in same] + [(c, Role.TWIN) for c in twin]
        )
        order = random.permutation(len(places))
        for position, index in enumerate(order):
            here, role = places[index]
            trial = Trial(f"b{block:03d}-p{position:02d}", block, execution, position, here, role)
            follows = position > 0 and places[order[position - 1]][0] == cells[0]
            values = {
                metric: level[here]
                * float(
                    np.exp(
                        layouts[trial.process_set][metric][here]
                        + in_block[metric]
                        + drift * position / len(order)
                        + carry * follows
                        + random.normal(0, s_b)
                    )
                )
                * (3.0 if random.random() < tail else 1.0)
                for metric in metrics
            }
            keyed = {MetricKey(metric): value for metric, value in values.items()}
            results.append(TrialResult(trial, keyed))
    return results


def requests_frame(
    response_us: Sequence[float] | np.ndarray,
    *,
    gap_us: float = 1000.0,
    warmup: int = 0,
    late_us: float = 20.0,
    errors: dict[int, str] | None = None,
    trial_id: str = "b000-p00",
) -> pl.DataFrame:
    """Requests at a constant pace with these response times; the first `warmup` are intended before 0.
    `errors` by index; an erroneous request still ends, as the archive records it."""
    n = len(response_us)
    intended = ((np.arange(n) - warmup) * gap_us * 1000).astype(np.int64)
    done = intended + (np.asarray(response_us) * 1000).astype(np.int64)
    kinds = [(errors or {}).get(i, "") for i in range(n)]
    return pl.DataFrame(
        {
            "trial_id": pl.Series([trial_id] * n, dtype=pl.Categorical),
            "intended_ns": intended,
            "sent_ns": intended + int(late_us * 1000),
            "first_byte_ns": done - 1000,
            "done_ns": done,
            "status": pl.Series([0 if kind else 200 for kind in kinds], dtype=pl.Int32),
            "bytes": np.full(n, 1024),
            "error": pl.Series(kinds, dtype=pl.Categorical),
        }
    )


def telemetry_frame(
    trial: Trial, *, end_ns: int, cpu_us: dict[str, float], rss_bytes: float = 5e7
) -> pl.DataFrame:
    """Two readings (at 0 and at the end) of every process; `cpu_us` spent in between, by role."""
    rows: list[dict[str, object]] = []
    for workload in trial.cell.topology.workloads:
        for role, spent_us in cpu_us.items():
            if role == "proxy" and trial.cell.mesh is MeshName.NONE:
                continue
            if (role == "instrument") != (workload.name == "client") and role != "proxy":
                continue
            source = f"{trial.cell.mesh}/{trial.process_set}/{workload.name}/{role}"
            for t_ns, cpu_ns in ((0, 7e9), (end_ns, 7e9 + spent_us * 1000)):
                rows.append(
                    {"t_ns": t_ns, "source": source, "metric": "cpu_ns", "labels": "", "value": cpu_ns}
                )
                rows.append(
                    {"t_ns": t_ns, "source": source, "metric": "rss_bytes", "labels": "", "value": rss_bytes}
                )
    return pl.DataFrame(rows).with_columns(trial_id=pl.lit(trial.trial_id))
