"""Trials to which something was done, of known truth: requests, events and telemetry made up from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from meshwise.analysis.contrast import Naming
from meshwise.analysis.event_cohorts import EventOfCell, events_of, moments_in
from meshwise.analysis.event_findings import event_findings
from meshwise.analysis.grid import Grid
from meshwise.analysis.settings import Settings
from meshwise.findings.finding import Finding
from meshwise.findings.subject import Against, EventEffect
from meshwise.measure.events import measure_events
from meshwise.measure.trial import TrialResult
from meshwise.stats.arrays import FloatArray, IntArray
from meshwise.study.model import Arrangement, Cell, Role, Trial
from tests.support.synthetic import cell

ROTATE = "rotate leaf"
MS = 10**6


@dataclass(frozen=True)
class World:
    """One study, as it was simulated."""

    executions: int = 5
    occurrences: int = 6
    rate_rps: int = 200
    period_ms: int = 2000
    lasts_ms: int = 200
    share: float = 0.0
    """Of the requests meanwhile that take `added_us` more."""
    added_us: float = 1000.0
    tail_only: bool = False
    """What takes more has a response at the P99 to begin with: nothing but the tail is moved."""
    failures: Sequence[tuple[int, int]] = ()
    """Execution and occurrence around which one request fails."""
    twin: bool = False
    stalls_per_s: float = 0.3
    """Of the machine, 5 to 60 ms long, which hold up all arms."""
    heavy: float = 0.02
    """Share of the requests with a Pareto tail."""


Requests = tuple[pl.DataFrame, pl.DataFrame]
P99_US = 1800.0
"""About, of what is undisturbed."""


def trials_of(world: World) -> list[Trial]:
    roles = [Role.CELL, *([Role.TWIN] if world.twin else [])]
    return [
        Trial(f"b{e:03}-p{p:02}", e, e, p, _cell(world), role, round=e, arm=p)
        for e in range(world.executions)
        for p, role in enumerate(roles)
    ]


def _cell(world: World) -> Cell:
    return cell(rate_rps=float(world.rate_rps))


def begun_ns(world: World, execution: int) -> IntArray:
    jitter = np.random.default_rng([execution, 5]).integers(0, 20 * MS, world.occurrences)
    return np.asarray(
        (np.arange(1, world.occurrences + 1) * world.period_ms - world.period_ms // 2) * MS + jitter
    )


def duration_ns(world: World) -> int:
    return world.occurrences * world.period_ms * MS


def events_frame(world: World, took_ms: float = 30.0) -> pl.DataFrame:
    rows = [
        {
            "trial_id": trial.trial_id, "event": ROTATE, "target": f"istio/a/node-{target}/proxy",
            "intended_ns": int(begun), "begun_ns": int(begun),
            "done_ns": int(begun + took_ms * MS * (0.5 + 0.5 * target)), "detail": "{}", "entry": 0,
            "occurrence": number,
        }
        for trial in trials_of(world)
        if trial.role is Role.CELL
        for number, begun in enumerate(begun_ns(world, trial.execution))
        for target in (0, 1)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def requests_of(world: World, seed: int, trial: Trial) -> pl.DataFrame:
    """Both arms of a round meet the same stalls and the same wandering of the machine's speed."""
    machine = np.random.default_rng([seed, trial.execution, 1])
    own = np.random.default_rng([seed, trial.execution, 2, trial.arm])
    end = duration_ns(world)
    intended = np.sort(own.integers(0, end, world.rate_rps * end // 10**9))
    wander = np.interp(intended, np.linspace(0, end, 30), machine.normal(0, 0.08, 30).cumsum() * 0.3)
    level = float(np.exp(own.normal(0, 0.02)))
    response = 500.0 * level * np.exp(wander + own.normal(0, 0.5, len(intended)))
    slow = own.random(len(intended)) < world.heavy
    response[slow] += 800.0 * own.pareto(2.5, int(slow.sum()))
    for start in machine.integers(0, end, machine.poisson(world.stalls_per_s * end / 1e9)):
        stop = start + machine.integers(5, 60) * MS
        held = (intended >= start) & (intended < stop)
        response[held] += (stop - intended[held]) / 1e3
    error = np.full(len(intended), "", dtype=object)
    if trial.role is Role.CELL:
        for number, begun in enumerate(begun_ns(world, trial.execution)):
            meanwhile = np.flatnonzero((intended >= begun) & (intended < begun + world.lasts_ms * MS))
            hit = meanwhile[own.random(len(meanwhile)) < world.share]
            response[hit] = (P99_US if world.tail_only else response[hit]) + world.added_us
            if (trial.execution, number) in world.failures and len(meanwhile):
                error[meanwhile[0]] = "reset"
    done = pl.Series(intended + (response * 1e3).astype(np.int64))
    failed = pl.Series(error != "")
    frame = pl.DataFrame(
        {"intended_ns": intended, "sent_ns": intended, "done_ns": done, "error": error.astype(str)}
    )
    return frame.with_columns(pl.when(failed).then(None).otherwise(pl.col("done_ns")).alias("done_ns"))


def telemetry_of(
    world: World, trial: Trial, cpu_ms: float = 0.0, handshakes: int = 0, read_ms: int = 100
) -> pl.DataFrame:
    """Read every `read_ms`; each event costs CPU and handshakes at once."""
    read = np.arange(0, duration_ns(world) + 1, read_ms * MS)
    happened = np.searchsorted(begun_ns(world, trial.execution), read, side="right")
    happened = happened * (trial.role is Role.CELL)
    source = f"istio/{trial.process_set}/node-1/proxy"
    values: Mapping[str, FloatArray] = {
        "cpu_ns": np.asarray(1e9 + read * 0.1 + happened * cpu_ms * 1e6, dtype=np.float64),
        "tls_handshakes_total": np.asarray(50.0 + happened * handshakes, dtype=np.float64),
    }
    return pl.concat(
        [
            pl.DataFrame({"t_ns": read, "source": source, "metric": metric, "labels": "", "value": value})
            for metric, value in values.items()
        ]
    )


def results_of(
    world: World, seed: int, *, cpu_ms: float = 0.0, handshakes: int = 0, read_ms: int = 100
) -> list[TrialResult]:
    trials = trials_of(world)
    moments = moments_in(trials, events_frame(world), duration_ns(world))
    return [
        TrialResult(
            trial,
            {},
            events=measure_events(
                trial,
                requests_of(world, seed, trial),
                telemetry_of(world, trial, cpu_ms, handshakes, read_ms),
                moments[trial.trial_id],
            ),
        )
        for trial in trials
    ]


def settings_of(world: World, seed: int) -> Settings:
    arrangement = Arrangement.TOGETHER if world.twin else Arrangement.APART
    return Settings("simulated", seed, ("response_p50_us",), cells=(_cell(world),), arrangement=arrangement)


def looked(world: World, seed: int, **more: float) -> EventOfCell:
    settings = settings_of(world, seed)
    grid = Grid.of(results_of(world, seed, **more), settings.cells)  # type: ignore[arg-type]
    (found,) = events_of(grid, settings.arrangement, seed, settings.confidence)
    return found


def findings_of(world: World, seed: int, **more: float) -> dict[tuple[str, Against], Finding]:
    """By metric and what it is told from."""
    settings = settings_of(world, seed)
    found = event_findings([looked(world, seed, **more)], Naming.of(settings.cells), settings)
    result = {}
    for each in found:
        assert isinstance(each.subject, EventEffect)
        result[str(each.key), each.subject.against] = each
    return result
