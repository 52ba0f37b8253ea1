"""What the display of steps costs a study that runs: CPU of this process per round, all of it between rounds.

    python benchmarks/live_cost.py [--rate 100] [--blocks 12]

Eleven cells of two meshes and their controls, 12 s a round, on the fake testbed (nothing else is timed).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from io import StringIO
from pathlib import Path

from rich.console import Console

from meshwise.archive.store import Archive
from meshwise.cli.progress import progress
from meshwise.runner.loop import Event, RoundFinished, run_study, schedule_of
from meshwise.study.design.blocks import design
from meshwise.study.file.read import parse_study
from meshwise.testbed.fake import FakeTestbed

STUDY = """
name: live-cost
environments: [none, istio, linkerd]
arrangement: together
alone: 0
factors:
  posture: [none, plaintext, permissive, strict, strict+namespace, strict+fine]
  rate: {rate}/s
trial: {{warmup: 2s, duration: 12s}}
blocks: {blocks}
"""


def spent_ms(rate: int, blocks: int, directory: Path, *, terminal: bool) -> tuple[int, list[float]]:
    """Arms of a round, and the CPU of every round."""
    study = parse_study(STUDY.format(rate=rate, blocks=blocks), "live-cost.yaml")
    trials = design(study)
    console = Console(file=StringIO(), force_terminal=terminal, width=120)
    rounds, sofar = [], 0.0
    with (
        FakeTestbed(study) as testbed,
        Archive.start(directory, study, trials, testbed.environment()) as archive,
        progress(console, study, trials) as observe,
    ):

        def timed(event: Event) -> None:
            nonlocal sofar
            before = time.process_time()
            observe(event)
            sofar += time.process_time() - before
            if isinstance(event, RoundFinished):
                rounds.append(1e3 * sofar)
                sofar = 0.0

        run_study(study, schedule_of(study, trials), testbed, archive, timed)
    return len(trials) // blocks, rounds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=100, help="requests per second and arm")
    parser.add_argument("--blocks", type=int, default=12)
    asked = parser.parse_args()
    for terminal in (True, False):
        with tempfile.TemporaryDirectory(prefix="meshwise-live-") as name:
            arms, rounds = spent_ms(asked.rate, asked.blocks, Path(name) / "study", terminal=terminal)
        middle, shown = statistics.median(rounds), "terminal" if terminal else "log"
        ends = f"first {rounds[0]:.0f}, last {rounds[-1]:.0f}"
        print(f"{shown:8} {arms} arms: {middle:.0f} ms of CPU per round ({ends})")


if __name__ == "__main__":
    main()
