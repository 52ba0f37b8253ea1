"""How a trial went beside the other arms of its round: was there CPU to spare, was it saturated itself. Pure.

Rules of this file:
- The pods' CPUs are those that the instrument does not use (`environment.json`, `cpus.others`; without
  pinning all). Busy is whatever is not idle, whoever used it, what a hypervisor took among it.
- An arm is saturated if more of its requests failed than FAILED_SHARE beside those that the study asks to
  fail, or if its response times surely rose over the window (`measure.window.backlog_growth`) by more than
  their own median.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from meshwise.measure.attribution import LEAD_NS, Machine
from meshwise.measure.window import backlog_growth
from meshwise.stats.arrays import FloatArray, IntArray
from meshwise.study.graph.sums import asked_errors
from meshwise.study.model import Cell
from meshwise.telemetry.labels import read_labels

FAILED_SHARE = 0.01


def pods_busy(telemetry: pl.DataFrame, machine: Machine) -> float | None:
    """Share of the pods' CPUs that was used in the measured window; None if it was not read."""
    return machine.busy(_idle(telemetry))


def _idle(telemetry: pl.DataFrame) -> dict[int, float]:
    """CPU -> share of the time between its first and last reading in which it was idle."""
    if "labels" not in telemetry.columns:
        return {}
    chosen = telemetry.filter(
        (telemetry["metric"].cast(pl.String) == "cpu_idle_ns") & (telemetry["t_ns"] >= LEAD_NS)
    )
    readings: dict[str, list[tuple[int, float]]] = {}
    for label, t_ns, value in zip(
        chosen["labels"].cast(pl.String).to_list(),
        chosen["t_ns"].to_list(),
        chosen["value"].to_list(),
        strict=True,
    ):
        readings.setdefault(label, []).append((t_ns, value))
    found = {}
    for label, each in readings.items():
        (first_ns, first), (last_ns, last) = min(each), max(each)
        if last_ns > first_ns:
            found[int(read_labels(label)["cpu"])] = min(1.0, (last - first) / (last_ns - first_ns))
    return found


def saturation(cell: Cell, intended_ns: IntArray, response_us: FloatArray) -> str:
    """By what the arm was saturated, in words; empty if it was not. Both arrays of the same requests after
    warm-up, by intended time; a failed request took inf."""
    if not len(response_us):
        return ""
    asked = asked_errors(cell.topology.graph) if cell.topology.graph else 0.0
    failed = float(np.isinf(response_us).mean())
    if failed > asked + FAILED_SHARE:
        return f"{100 * failed:.3g} % of its requests failed"
    growth_us = backlog_growth(intended_ns / 1e9, response_us)
    if growth_us is not None and growth_us > float(np.median(response_us)):
        return f"its response times rose by {growth_us / 1e3:.1f} ms within a trial"
    return ""
