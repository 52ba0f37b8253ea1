"""What a rotation of certificates does under load, and how small a disturbance of real trials would be seen.

    python benchmarks/event_rotation.py [--archive DIR] [--studies 200] [--json]

Runs strict Istio and Linkerd, 500/s in each arm (1000/s in a round), certificates of all sidecars rotated at
the same moment every 5 s, 60 s, 5 repetitions, each beside its twin (a quarter of an hour; `--archive`: of
such a study that is there already). Then, on its requests:

- resolution: in each cell a P99 that is higher by 1 ms for 200 ms is planted around every rotation (one in a
  hundred of the requests meanwhile, nothing else), and must be found, against placebo times and the twin;
- a single failed request is planted in one trial, and must be told;
- nothing: random times of the twins, to which nothing was done, are analysed as if they were events; claims
  must stay at the nominal rate of 5 %, give or take 3 sqrt(p (1 - p) / studies).

Exit 1 if one does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.simulate import Rate

from meshwise.analysis.contrast import Naming
from meshwise.analysis.event_cohorts import events_of, moments_in
from meshwise.analysis.event_findings import event_findings
from meshwise.analysis.findings import outcomes_of
from meshwise.analysis.grid import Grid
from meshwise.analysis.settings import Settings
from meshwise.archive.read import ArchiveReader
from meshwise.findings.finding import Finding
from meshwise.findings.subject import Against, EventEffect
from meshwise.measure.events import measure_events
from meshwise.measure.trial import TELEMETRY_METRICS, TrialResult
from meshwise.stats.quantile import quantile
from meshwise.stats.verdict import Verdict
from meshwise.study.model import Role, Trial

STUDY = """\
name: event-rotation
seed: 20251201
environments: [istio, linkerd]
factors: {posture: strict, protocol: http1, rate: 500/s, response: 1KiB, connections: 16}
events: [{rotate: leaf, every: 5s}]
arrangement: together
alone: 0
trial: {warmup: 2s, duration: 60s}
pin: true
workers: 1
blocks: 5
"""
DISTURBED = "event_disturbed_requests"
LASTS_NS, MORE_US = 200_000_000, 1000.0
Change = Callable[[pl.DataFrame, Trial], pl.DataFrame]


@dataclass(frozen=True)
class Measured:
    """An archive in memory, as far as events are concerned."""

    trials: tuple[Trial, ...]
    requests: Mapping[str, pl.DataFrame]
    telemetry: Mapping[str, pl.DataFrame]
    events: pl.DataFrame
    duration_ns: int
    settings: Settings

    @classmethod
    def of(cls, reader: ArchiveReader) -> Measured:
        good = [each.trial for each in outcomes_of(reader.timed()) if each.status == "ok"]
        trials = tuple(each for each in good if each.role in (Role.CELL, Role.TWIN))
        study = reader.study()
        wanted = pl.col("metric").cast(pl.String).is_in(TELEMETRY_METRICS)
        return cls(
            trials,
            {each.trial_id: reader.scan_requests([each.trial_id]).collect() for each in trials},
            {
                each.trial_id: reader.scan_telemetry([each.trial_id]).filter(wanted).collect()
                for each in trials
            },
            reader.events(), study.trial.duration_ns, Settings.of(study, reader.timed_design),
        )  # fmt: skip

    def found(self, change: Change | None = None) -> list[Finding]:
        """Findings about events, of requests that `change` altered."""
        moments = moments_in(self.trials, self.events, self.duration_ns)
        results = []
        for trial in self.trials:
            if trial.trial_id in moments:
                rows = self.requests[trial.trial_id]
                rows = change(rows, trial) if change else rows
                told = self.telemetry[trial.trial_id]
                around = measure_events(trial, rows, told, moments[trial.trial_id])
                results.append(TrialResult(trial, {}, events=around))
        settings = self.settings
        grid = Grid.of(results, settings.cells)
        looked = list(events_of(grid, settings.arrangement, settings.seed, settings.confidence))
        return event_findings(looked, Naming.of(settings.cells), settings)

    def begun(self, trial: Trial) -> list[int]:
        mine = self.events.filter(pl.col("trial_id").cast(pl.String) == trial.trial_id)
        return sorted(set(mine["begun_ns"].drop_nulls().to_list()))

    def of_twins(self, seed: int) -> Measured:
        """The twins as cells of their own, with as many events at random times."""
        random = np.random.default_rng(seed)
        twins = [each for each in self.trials if each.role is Role.TWIN]
        rows = []
        for trial in twins:
            count = max(1, len(self.begun(_cell_of(trial, self.trials))))
            room = self.duration_ns // count
            for number in range(count):
                at = number * room + int(random.integers(room // 4, room // 2))
                times = dict.fromkeys(("intended_ns", "begun_ns", "done_ns"), at)
                row = {"trial_id": trial.trial_id, "event": "nothing", "occurrence": number, "entry": 0}
                rows.append(row | times | {"detail": "{}"})
        return replace(
            self, trials=tuple(replace(each, role=Role.CELL) for each in twins), events=pl.DataFrame(rows)
        )


def _cell_of(twin: Trial, trials: tuple[Trial, ...]) -> Trial:
    place = twin.round, twin.cell, twin.attempt
    cells = (each for each in trials if each.role is Role.CELL)
    return next(each for each in cells if (each.round, each.cell, each.attempt) == place)


def slower(measured: Measured) -> Change:
    """Of each hundred requests after every event one takes the P99 and 1 ms more."""

    def change(rows: pl.DataFrame, trial: Trial) -> pl.DataFrame:
        if trial.role is not Role.CELL:
            return rows
        intended = rows["intended_ns"].to_numpy()
        response = (rows["done_ns"].fill_null(0).to_numpy() - intended)[intended >= 0]
        slow_ns = quantile(np.sort(response[response > 0].astype(float)), 0.99) + MORE_US * 1e3
        after = np.zeros(len(intended), dtype=np.bool_)
        for begun in measured.begun(trial):
            after |= (intended >= begun) & (intended < begun + LASTS_NS)
        chosen = np.flatnonzero(after & (rows["error"].cast(pl.String) == "").to_numpy())[::100]
        hit = np.zeros(len(intended), dtype=np.bool_)
        hit[chosen] = True
        later = pl.Series(intended + round(slow_ns))
        return rows.with_columns(
            pl.when(pl.Series(hit)).then(later).otherwise(pl.col("done_ns")).alias("done_ns")
        )

    return change


def one_fails(measured: Measured) -> Change:
    """The first request after one event of one trial."""
    victim = next(each for each in measured.trials if each.role is Role.CELL)
    at = measured.begun(victim)[len(measured.begun(victim)) // 2]

    def change(rows: pl.DataFrame, trial: Trial) -> pl.DataFrame:
        if trial != victim:
            return rows
        first = int(np.flatnonzero(rows["intended_ns"].to_numpy() >= at)[0])
        hit = pl.int_range(rows.height, eager=True) == first
        return rows.with_columns(
            pl.when(hit).then(pl.lit("reset")).otherwise(pl.col("error").cast(pl.String)).alias("error")
        )

    return change


def chosen(found: list[Finding], metric: str, against: Against) -> list[Finding]:
    return [
        each for each in found
        if each.metric == metric and isinstance(each.subject, EventEffect) and each.subject.against is against
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        archive = options.archive or _run(Path(scratch))
        measured = Measured.of(ArchiveReader.open(archive))
        rows, wrong = _shown(measured, options.studies)
    print(json.dumps(rows, indent=1) if options.json else "\n".join(f"{what}: {told}" for what, told in rows))
    return 1 if wrong else 0


def _run(scratch: Path) -> Path:
    (scratch / "study.yaml").write_text(STUDY)
    command = [sys.executable, "-m", "meshwise", "run", str(scratch / "study.yaml"), "--out"]
    subprocess.run([*command, str(scratch / "archive")], check=True)
    return scratch / "archive"


def _failed(found: list[Finding]) -> int:
    return sum(f.event.failures for f in chosen(found, "event_failures", Against.PLACEBO) if f.event)


def _shown(measured: Measured, studies: int) -> tuple[list[tuple[str, str]], int]:
    rows, wrong = [], 0
    for each in measured.found():
        if each.metric in (DISTURBED, "event_p99_us", "event_failures", "event_converge_ms", "event_cpu_ms"):
            rows.append(("as measured", each.sentence))
    for against in (Against.PLACEBO, Against.ARM):
        for each in chosen(measured.found(slower(measured)), DISTURBED, against):
            seen = each.verdict is Verdict.DISTINGUISHABLE
            wrong += not seen
            rows.append((f"planted 1 ms, {'found' if seen else 'NOT FOUND'}", each.sentence))
    told = _failed(measured.found(one_fails(measured))) - _failed(measured.found())
    wrong += told != 1
    rows.append(("planted one failed request", f"{told} more told"))
    claims = asked = 0
    for seed in range(studies):
        for each in chosen(measured.of_twins(seed).found(), DISTURBED, Against.PLACEBO):
            asked += 1
            claims += each.verdict is Verdict.DISTINGUISHABLE
    rate = Rate("nothing", claims, asked, 0.05)
    wrong += not rate.at_most
    rows.append(("random times of the twins", f"{claims} of {asked} claimed (nominal 5 %)"))
    return rows, wrong


if __name__ == "__main__":
    sys.exit(main())
