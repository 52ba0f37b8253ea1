"""What the study benchmarks share: run a study file by the command and read its findings, or run trials
that no study file can ask for by the same runner and read them back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from meshwise.analysis.contrast import Effect, Naming, evaluate
from meshwise.analysis.grid import Grid
from meshwise.analysis.increment import step
from meshwise.archive.outcome import TrialStatus
from meshwise.archive.rows import trial_of
from meshwise.archive.store import Archive
from meshwise.cli.progress import trouble_of
from meshwise.cli.run import proxy_overrides
from meshwise.cli.wiring import meshes_of
from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import USUAL
from meshwise.findings.metric import MetricKey
from meshwise.measure.trial import TrialResult
from meshwise.runner.blocks import BlockSchedule
from meshwise.runner.loop import Event, RoundFinished
from meshwise.runner.loop import run_study as run_trials
from meshwise.runner.schedule import Done, History, Round
from meshwise.runner.values import stored_result
from meshwise.study.model import Cell, Study, Trial
from meshwise.testbed.applications.seam import Application
from meshwise.testbed.local import calibration
from meshwise.testbed.local.checks import preflight
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world

CHECKOUT = Path(__file__).resolve().parent.parent
MESHWISE = Path(sys.executable).with_name("meshwise")


@dataclass(frozen=True)
class Ran:
    """A finished study: its findings, and the share of wall time inside warm-up or measurement."""

    findings: list[dict[str, Any]]
    trials: int
    wall: str
    measured_share: float


def run_study(study: Path, directory: Path) -> Ran:
    """Run and analyse; the run's own words are passed through. Ends the benchmark if the study fails."""
    done = subprocess.run(
        [MESHWISE, "run", study, "--out", directory],
        cwd=CHECKOUT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    closing = re.search(r"(\d+) trials in (.+?) \((\d+)% of it", done.stderr)
    if done.returncode or not closing:
        sys.exit(f"the study did not finish:\n{done.stderr[-3000:]}")
    subprocess.run([MESHWISE, "analyze", directory, "--quiet"], cwd=CHECKOUT, check=True)
    document = json.loads((directory / "findings.json").read_text())
    return Ran(document["findings"], int(closing[1]), closing[2], int(closing[3]) / 100)


class UntilTime:
    """The blocks of `trials` in order; none is begun once the time is over."""

    def __init__(self, trials: Sequence[Trial], seconds: float) -> None:
        self._blocks = BlockSchedule(trials)
        self._end = time.monotonic() + seconds

    def next(self, history: History) -> Round | Done:
        due = self._blocks.next(history)
        if isinstance(due, Done) or time.monotonic() < self._end:
            return due
        begun = {past.trial.block for past in history.trials.values()}
        return due if due.trials[0].block in begun else Done()


def measure(
    study: Study,
    trials: Sequence[Trial],
    directory: Path,
    seconds: float,
    *,
    application: Application | None = None,
    resume: bool = False,
) -> None:
    """Run these trials on the environments of `study`, as `meshwise run` does, to their end or until no block
    may be begun any more; ends the benchmark if they cannot be run.
    `application`: instead of the study's own."""

    def inside() -> int:
        patience = USUAL.slowed(calibration.slowness(study).factor)
        with (
            LocalTestbed(study, meshes_of(study), application=application, patience=patience) as testbed,
            Archive.start(directory, study, trials, testbed.environment(), resume=resume) as archive,
        ):
            run_trials(study, UntilTime(trials, seconds), testbed, archive, _say)
        return 0

    try:
        preflight(study)
        enter_world(inside, keep=[directory, *proxy_overrides(os.environ)])
    except MeshwiseError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; what is complete is kept where a directory was named")


def _say(event: Event) -> None:
    if trouble := trouble_of(event):
        print(trouble, file=sys.stderr)
    if isinstance(event, RoundFinished):
        trial = event.outcomes[0].trial
        print(f"\rblock {trial.block + 1}, round {trial.round + 1}  ", end="", file=sys.stderr, flush=True)


def results_of(directory: Path) -> list[TrialResult]:
    """Of every stored trial that went well."""
    rows = pq.read_table(directory / "trials.parquet").to_pylist()
    return [stored_result(directory, trial_of(row)) for row in rows if row["status"] == TrialStatus.OK]


def whole_blocks(results: Sequence[TrialResult], design: Sequence[Trial]) -> list[TrialResult]:
    """Of the blocks in which every trial went well, at once or in its second attempt."""
    of_block = Counter(trial.block for trial in design)
    good = Counter(block for block, _ in {(each.trial.block, each.trial.position) for each in results})
    return [each for each in results if good[each.trial.block] == of_block[each.trial.block]]


def step_effect(
    results: Sequence[TrialResult], lower: Cell, upper: Cell, metric: str, *, together: bool
) -> Effect:
    """The step from one cell to another as the analysis computes it: a value per execution."""
    cells = (lower, upper)
    asked = replace(
        step(lower, upper, Naming.of(cells), "benchmark"), across_processes=True, in_rounds=together
    )
    effect = evaluate(Grid.of(results, cells), asked, MetricKey(metric))
    if effect is None:
        sys.exit(f"nothing was measured of {lower.name} and {upper.name}")
    return effect
