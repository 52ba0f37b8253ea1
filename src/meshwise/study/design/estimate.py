"""What a study will take and what it will be able to show. Pure; rough on purpose, and said so by `plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from meshwise.study.design.alone import alone_in
from meshwise.study.design.counting import counting_design, planned_windows
from meshwise.study.design.needs import spans_of
from meshwise.study.design.overhead import ROUND_S, arm_s, rounds_s, start_s
from meshwise.study.design.rounds import CROWDED_SHARE, Task, block_rounds, block_tasks
from meshwise.study.design.search import INVALID_TRIES, most_steps, usual_steps
from meshwise.study.graph.sums import asked_errors
from meshwise.study.load.rate import rate_over_time
from meshwise.study.model import NO_MESH, Arrangement, Cell, MeshName, Search, Study

COUNTED_REQUEST_S, COUNTED_TRIAL_S, COUNTED_START_S = 0.008, 4.5, 5.5
"""CPU of a client's and a service's Envoy under callgrind: a request, the rest of a trial (posture, proof,
translation), a start. A Linkerd takes two thirds."""
COUNTING_CPUS, COUNTING_MORE = 2, 1.15
"""CPUs that a machine should have free for it, and what services, clients and waiting add."""

REQUEST_ROW_BYTES = 14.0
"""A request in compressed Parquet (tests/unit/test_archive_store.py holds it to that)."""

SPAN_ROW_BYTES = 70.0
"""A span, whose ids hardly compress."""

TRIAL_FILE_BYTES = 60_000
"""What a trial costs beside its requests: telemetry, its row, Parquet's own parts."""

NEEDED_REQUESTS = {"p50": 100, "p90": 400, "p99": 2_000, "p999": 20_000}
"""Ten *effective* exceedances are the least for a percentile (docs/findings.md). They come in bursts:
in trials of 600/s one beyond the P99 was worth half, one beyond the P90 or the median a quarter."""


SEARCHED_TIMES = 6.0
"""The mean rate of a search's trials, as a multiple of its start: a guess, for the disk."""

SIDECARS_US = (400, 900)
"""CPU per request of two sidecars, by mesh, posture, machine (docs/results.md); in a chain for each hop."""


@dataclass(frozen=True)
class Estimate:
    """Of the trials that are timed; `counting_estimate` tells of those that count."""

    trials: int
    wall_s: float
    measured_s: float
    """Time inside warm-up or measurement."""
    disk_bytes: int


@dataclass(frozen=True)
class CountingEstimate:
    cells: int
    trials: int
    executions: int
    """Lives of each mesh's proxies."""
    wall_s: float


def counting_estimate(study: Study) -> CountingEstimate:
    """Nothing for a study that counts nothing."""
    trials, counting = counting_design(study), study.counting
    if counting is None:
        return CountingEstimate(0, 0, 0, 0.0)
    lives = {(trial.cell.mesh, trial.life): trial.cell for trial in trials}
    sidecars = [len(trial.cell.topology.workloads) / 2 for trial in trials]
    requests = sum(window.requests for window in planned_windows(counting, trials[0].cell))
    busy_s = sum(sidecars) * (requests * COUNTED_REQUEST_S + COUNTED_TRIAL_S)
    busy_s += sum(len(cell.topology.workloads) / 2 for cell in lives.values()) * COUNTED_START_S
    return CountingEstimate(
        cells=len({trial.cell for trial in trials}),
        trials=len(trials),
        executions=counting.executions,
        wall_s=busy_s * COUNTING_MORE / COUNTING_CPUS,
    )


def estimate(study: Study) -> Estimate:
    alone, steps = len(alone_in(study, 0)), usual_steps(study.search) if study.search else 1
    trials = study.blocks * (len(block_tasks(study)) + alone) * steps
    rounds = study.blocks * (len(block_rounds(study)) + alone) * steps
    measured_s = rounds * _trial_s(study)
    if study.search:
        measured_s += study.blocks * len(block_tasks(study)) * _longer_soak_s(study, study.search)
    return Estimate(
        trials=trials,
        wall_s=measured_s
        + steps * rounds_s(study)
        + (trials * study.search.idle_ns / 1e9 if study.search else 0.0)
        + study.executions * start_s(study),
        measured_s=measured_s,
        disk_bytes=disk_bytes(study, trials),
    )


def _trial_s(study: Study) -> float:
    return (study.trial.warmup_ns + study.trial.duration_ns) / 1e9


def _longer_soak_s(study: Study, search: Search) -> float:
    """By how much a search's soak is longer than another trial."""
    return (search.soak_ns - study.trial.duration_ns) / 1e9 if search.soak_ns else 0.0


def _mean_rps(study: Study, cell: Cell) -> float:
    """Of the measured window, where the load may move."""
    shape = study.trial.shape
    moving = rate_over_time(shape, cell.rate_rps, study.trial.duration_ns).mean if shape else 1.0
    return cell.rate_rps * moving


def longest_search_s(study: Study, search: Search) -> float:
    """The time of a search that needs every trial it may have; the rests after invalid trials not counted."""
    heaviest_s = max(arm_s(cell) for cell in study.cells)
    trial_s = _trial_s(study) + search.idle_ns / 1e9 + ROUND_S + heaviest_s
    return most_steps(search) * trial_s + INVALID_TRIES * _longer_soak_s(study, search)


def disk_bytes(study: Study, trials: int) -> int:
    """For so many of the study's trials; takes each as an average one."""
    tasks = block_tasks(study)
    seconds = _trial_s(study)
    if study.search:
        seconds += _longer_soak_s(study, study.search) / usual_steps(study.search)
    rates = [
        study.search.start_rps * SEARCHED_TIMES if study.search else _mean_rps(study, cell)
        for cell, _ in tasks
    ]
    rows = sum(rates) / max(len(tasks), 1) * seconds
    spans = sum(
        rate * cell.traced_share * spans_of(cell) for rate, (cell, _) in zip(rates, tasks, strict=True)
    )
    span_rows = spans / max(len(tasks), 1) * seconds
    return int(trials * (rows * REQUEST_ROW_BYTES + span_rows * SPAN_ROW_BYTES + TRIAL_FILE_BYTES))


@dataclass(frozen=True)
class Resolution:
    """What n blocks can show, in units of s_d: the standard deviation of the paired difference of two
    cells within a block (docs/findings.md)."""

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


def ladder_steps(study: Study) -> int:
    """Increments in the longest ladder of the study: the family that its intervals must hold for together."""
    per_setting = Counter(replace(cell, mesh=MeshName.NONE, posture=NO_MESH) for cell in study.cells)
    return max(1, max(per_setting.values(), default=1) - 1)


def doubts(study: Study) -> tuple[str, ...]:
    """What will limit the study's answers, each with a remedy; for `plan`, before an hour is spent."""
    found = []
    if study.executions < 6:
        found.append(
            f"{study.executions} executions: below 6 there is no rank interval, and t intervals are wide;"
            " 8 blocks with an execution each are the usual least"
        )
    apart = study.arrangement is Arrangement.APART
    if not study.control.same and not study.search and apart:
        found.append(
            "no A/A control on the same processes: there will be no noise floor; set `control: same`"
        )
    if not study.control.twin and not study.search:
        found.append(
            "no twin processes: layout bias stays unseen, so meshes cannot be compared; set `control: twin`"
            if apart
            else "no twin arm: there will be no noise floor; set `control: twin`"
        )
    if study.control.halves:
        found.append(
            "`control: halves` tells of response and service times; CPU and memory are read of whole"
            " processes and cannot be divided"
        )
    found += _together_doubts(study)
    found += study.notes
    asked = max((asked_errors(graph) for cell in study.cells if (graph := cell.topology.graph)), default=0.0)
    if asked:
        found.append(
            f"the service graph makes {100 * asked:.3g} % of the requests fail on purpose: percentiles above"
            " what is left cannot be told, and a saturation study counts them as failures"
        )
    if study.search:
        return (*found, *_search_doubts(study))
    fewest = (
        min((_mean_rps(study, cell) for cell in study.cells), default=0.0) * study.trial.duration_ns / 1e9
    )
    for metric in study.primary_metrics:
        needed = NEEDED_REQUESTS.get(metric.split("_")[1], 0)
        if fewest < needed:
            found.append(
                f"`{metric}` is primary, but a trial has {fewest:.0f} requests and needs at least {needed};"
                " longer trials or a higher rate"
            )
    return tuple(found)


def _together_doubts(study: Study) -> list[str]:
    """Of what a request costs `plan` knows no more than a range, so it warns; what was so busy is flagged."""
    busiest = max(
        (_through_sidecars(arms) for arms in block_rounds(study) if len(arms) > 1), default=(0.0, 0.0)
    )
    hops_rps, most_rps = busiest
    least, most = (hops_rps * cost_us / 1e6 for cost_us in SIDECARS_US)
    if most <= CROWDED_SHARE:
        return []
    return [
        f"the arms of a round have {most_rps:g} requests/s through sidecars, which take {least:.1f} to"
        f" {most:.1f} CPUs: where that is above {CROWDED_SHARE:.0%} of those that the pods have, arms wait"
        " for one another and comparisons of tails are flagged; lower `rate`, or `arrangement: apart`"
    ]


def _through_sidecars(arms: Sequence[Task]) -> tuple[float, float]:
    """Of a round: hops between two sidecars per second, and the requests that make them. Every workload but
    the client is called once for a request."""
    meshed = [task.cell for task in arms if task.cell.mesh is not MeshName.NONE]
    hops_rps = sum(cell.rate_rps * (len(cell.topology.workloads) - 1) for cell in meshed)
    return hops_rps, sum(cell.rate_rps for cell in meshed)


def _search_doubts(study: Study) -> list[str]:
    assert study.search is not None
    found = []
    fewest = study.search.start_rps * study.trial.duration_ns / 1e9
    for p, _ in study.search.objective.quantiles:
        if fewest * (1 - p) < 10:
            found.append(
                f"at {study.search.start_rps:g}/s a trial has {fewest:.0f} requests, and p{100 * p:g} needs"
                f" {10 / (1 - p):.0f}; longer trials or a higher `search: start`"
            )
    return found
