"""10 million request rows in 1000 trial files -> findings, in under 10 s and under 1 GiB.

    python benchmarks/analysis_rows.py [--trials 1000] [--rows 10000] [--json]

The files are written first (not timed) as the archive writes them; then a fresh process analyses them, and
its wall time, CPU time and peak memory are printed, beside what merely reading the same files takes (both in
one run, because wall time depends on the machine and what else it does).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from meshwise.archive.store import Archive
from meshwise.runner.loop import run_study, schedule_of
from meshwise.study.design.blocks import design
from meshwise.study.file.read import parse_study
from meshwise.testbed.fake import FakeTestbed

STUDY = """
name: rows
environments: [none, istio, linkerd]
factors:
  posture: [none, plaintext, permissive, strict, strict+namespace]
  protocol: [http1, http2, grpc]
  rate: {rate}/s
trial: {{warmup: 0s, duration: 1s}}
control: {{same: none, twin: none}}
blocks: {blocks}
"""
CELLS = 27
LIMIT_S, LIMIT_BYTES = 10.0, 2**30

READ_ONLY = """
import sys, polars as pl
from pathlib import Path
rows = 0
for path in sorted(Path(sys.argv[1], "requests").iterdir()):
    rows += pl.read_parquet(path, columns=["intended_ns", "sent_ns", "done_ns", "error"]).height
print(rows)
"""

ANALYZE = """
import sys
from pathlib import Path
from meshwise.cli.analyze import analyze
analyze(Path(sys.argv[1]))
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


def write(directory: Path, trials: int, rows: int) -> int:
    """An archive of about `trials` trials with `rows` requests each; returns how many trials."""
    study = parse_study(STUDY.format(rate=rows, blocks=max(2, round(trials / CELLS))), "rows.yaml")
    order = design(study)
    with (
        FakeTestbed(study) as testbed,
        Archive.start(directory, study, order, testbed.environment()) as archive,
    ):
        run_study(study, schedule_of(study, order), testbed, archive, lambda event: None)
    return len(order)


def timed(argv: list[str]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds, and the number on the last line that a child prints.

    Its peak memory must come from itself: `ru_maxrss` of a child starts at its parent's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    printed = subprocess.run(
        argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout
    wall = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, int(printed.split()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000, help="requests per trial")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="meshwise-rows-") as name:
        directory = Path(name) / "study"
        trials = write(directory, asked.trials, asked.rows)
        read_wall, read_cpu, _ = timed([sys.executable, "-c", READ_ONLY, str(directory)])
        wall, cpu, peak = timed([sys.executable, "-c", ANALYZE, str(directory)])
        found = len(json.loads((directory / "findings.json").read_text())["findings"])
    figures = {
        "rows": trials * asked.rows,
        "trials": trials,
        "findings": found,
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "peak_mib": round(peak / 2**20),
        "read_only_wall_s": round(read_wall, 2),
        "read_only_cpu_s": round(read_cpu, 2),
        "ratio_to_reading": round(wall / read_wall, 2),
        "within_limits": wall < LIMIT_S and peak < LIMIT_BYTES,
    }
    if asked.json:
        print(json.dumps(figures))
    else:
        print(
            f"{figures['rows']:,} rows in {trials} trials -> {found} findings: "
            f"{wall:.1f} s wall, {cpu:.1f} s CPU, "
            f"{peak / 2**20:.0f} MiB peak (limits: {LIMIT_S:.0f} s, 1 GiB)\n"
            f"reading the same columns alone: {read_wall:.1f} s wall, {read_cpu:.1f} s CPU; "
            f"ratio {wall / read_wall:.1f}"
        )
    return 0 if figures["within_limits"] else 1


if __name__ == "__main__":
    sys.exit(main())
