"""What a study will take and what it will be able to show. Pure; rough on purpose, and said so by `plan`."""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.study.design import block_tasks
from meshwise.study.model import Study

TRIAL_OVERHEAD_S = 0.7
"""Changing and proving a posture, starting the instrument, storing: per trial, on two cores."""

RESTART_S = 2.5
"""Starting every environment's processes: per execution."""

REQUEST_ROW_BYTES = 14.0
"""A request in compressed Parquet (tests/unit/test_archive_store.py holds it to that)."""

TRIAL_FILE_BYTES = 60_000
"""What a trial costs beside its requests: telemetry, its row, Parquet's own parts."""


@dataclass(frozen=True)
class Estimate:
    trials: int
    wall_s: float
    measured_s: float
    """Time inside warm-up or measurement."""
    disk_bytes: int


def estimate(study: Study) -> Estimate:
    trials = study.blocks * len(block_tasks(study))
    measured_s = trials * (study.trial.warmup_ns + study.trial.duration_ns) / 1e9
    return Estimate(
        trials=trials,
        wall_s=measured_s + trials * TRIAL_OVERHEAD_S + study.executions * RESTART_S,
        measured_s=measured_s,
        disk_bytes=disk_bytes(study, trials),
    )


def disk_bytes(study: Study, trials: int) -> int:
    """For so many of the study's trials; takes each as an average one."""
    tasks = block_tasks(study)
    seconds = (study.trial.warmup_ns + study.trial.duration_ns) / 1e9
    rows = sum(cell.rate_rps for cell, _ in tasks) / max(len(tasks), 1) * seconds
    return int(trials * (rows * REQUEST_ROW_BYTES + TRIAL_FILE_BYTES))


@dataclass(frozen=True)
class Resolution:
    """What n blocks can show, in units of s_d: the standard deviation of the paired difference of two
    cells within a block (statistics: 4.1)."""

    n: int
    half_width: float
    """Of one confidence interval."""
    simultaneous_half_width: float
    """Of each of `family` intervals that hold together (Bonferroni)."""
    family: int
    detectable: float
    """The smallest true difference found in 80 % of studies."""


def resolution(n: int, family: int, confidence: float, power: float = 0.8) -> Resolution:
    """For a paired t over n blocks (or executions), n >= 2."""
    from scipy import optimize, stats  # slow to import, and only `plan` needs it

    alpha = 1 - confidence
    critical = stats.t.ppf(1 - alpha / 2, n - 1)

    def missing_power(dz: float) -> float:
        shift = dz * n**0.5
        upper, lower = stats.nct.sf(critical, n - 1, shift), stats.nct.cdf(-critical, n - 1, shift)
        # nct gives NaN far from its centre, where the power is 1 and the other tail 0
        return (1.0 if upper != upper else float(upper)) + (0.0 if lower != lower else float(lower)) - power

    return Resolution(
        n=n,
        half_width=float(critical / n**0.5),
        simultaneous_half_width=float(stats.t.ppf(1 - alpha / max(family, 1) / 2, n - 1) / n**0.5),
        family=family,
        detectable=float(optimize.brentq(missing_power, 1e-3, 200.0)),
    )
