"""How long until a Prometheus answers from a study's export, and whether it agrees with DuckDB; and how fast,
in how much memory, a query passes over ten million requests.

    python benchmarks/prometheus_ingest.py [--blocks 8] [--rate 200] [--rows 10000000] [--real DIR]

The study is the fake testbed's (three environments, 10 s a trial) unless `--real` names the archive of
another one. Time counts from the start of the command to an answer about the trial that is stored last.
Needs `prometheus` and `promtool` (apt-get install prometheus). Target: under 30 s.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.fake_study import run_fake
from tests.support.prometheus import Prometheus, prometheus

from meshwise.archive.query import answering, sources_of
from meshwise.archive.read import ArchiveReader
from meshwise.study.file.read import parse_study

STUDY = """
name: ingested
environments: [none, istio, linkerd]
arrangement: together
alone: 0
factors:
  posture: [none, plaintext, permissive, strict, strict+namespace, strict+fine]
  rate: {rate}/s
trial: {{warmup: 1s, duration: 10s}}
blocks: {blocks}
"""
MESHWISE = Path(sys.executable).with_name("meshwise")
TARGET_S = 30.0
ROWS_OF_A_BLOCK = 13 * 11 * 10_000
"""Eleven cells and two controls, 11 s with their warm-up, at 10,000/s."""


def last_trial(archive: Path) -> tuple[str, int, float]:
    """Of the trial that is stored last: id, requests, and a moment after its end (s since 1970)."""
    sql = (
        "SELECT trial_id, count(*), max(done_ns) / 1e9 + max(started_unix_ns) / 1e9 FROM responses "
        "JOIN trials USING (trial_id) GROUP BY trial_id ORDER BY 3 DESC LIMIT 1"
    )
    with answering(sources_of(ArchiveReader.open(archive)), sql) as answer:
        ((trial_id, count, end_s),) = next(answer.rows)
    return str(trial_id), int(count), float(end_s)


def agrees(server: Prometheus, archive: Path) -> bool:
    trial_id, count, end_s = last_trial(archive)
    query = f'sum(last_over_time(meshwise_requests_total{{trial="{trial_id}"}}[1m]))'
    return server.number(query, end_s + 3) == count


def export(archive: Path, *words: str) -> float:
    begun = time.monotonic()
    subprocess.run([MESHWISE, "export", archive, *words], check=True, capture_output=True)
    return time.monotonic() - begun


def by_remote_write(archive: Path, place: Path) -> tuple[float, bool]:
    with prometheus(place) as server:
        begun = time.monotonic()
        export(archive, "--format", "prometheus-remote-write", "--url", f"{server.url}/api/v1/write")
        agreed = agrees(server, archive)
        return time.monotonic() - begun, agreed


def by_blocks(archive: Path, place: Path) -> tuple[float, float, float, bool]:
    """Export, blocks, start of a Prometheus until it answers; and whether it agrees."""
    text = place / "study.om"
    (place / "data").mkdir(parents=True)
    exported_s = export(archive, "--format", "openmetrics", "--out", str(text))
    begun = time.monotonic()
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(place / "data")]
    subprocess.run(made, check=True, capture_output=True)
    blocks_s = time.monotonic() - begun
    begun = time.monotonic()
    with prometheus(place) as server:
        agreed = agrees(server, archive)
        return exported_s, blocks_s, time.monotonic() - begun, agreed


def many_rows(rows: int, place: Path) -> dict[str, float]:
    """A study with so many requests, asked by the command; its peak of memory."""
    study = STUDY.format(rate=10_000, blocks=max(2, -(-rows // ROWS_OF_A_BLOCK)))
    run_fake(place, parse_study(study, "many.yaml"))
    what = "mesh, posture, count(*) AS n, quantile_cont(response_us, 0.99) AS p99"
    sql = f"SELECT {what} FROM responses GROUP BY ALL"
    begun = time.monotonic()
    told = subprocess.run(
        [MESHWISE, "query", place, sql, "--json"], check=True, capture_output=True, text=True
    )
    asked_s = time.monotonic() - begun
    aggregate_peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    begun = time.monotonic()
    out = place.parent / "rows.csv"
    every = "SELECT trial_id, intended_ns, done_ns FROM requests"
    subprocess.run([MESHWISE, "query", place, every, "--csv", "--out", out], check=True, capture_output=True)
    passed_s = time.monotonic() - begun
    with out.open("rb") as stream:
        lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b"")) - 1
    return {
        "measured rows": float(sum(row["n"] for row in json.loads(told.stdout))),
        "aggregate_s": asked_s, "aggregate_peak_mib": aggregate_peak / 1024,
        "rows passed": float(lines), "all_rows_s": passed_s,
        "all_rows_peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }  # fmt: skip


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--blocks", type=int, default=8)
    asked.add_argument("--rate", type=int, default=200)
    asked.add_argument("--rows", type=int, default=10_000_000, help="0: no query over many rows")
    asked.add_argument("--real", type=Path, help="the archive of a study to export instead")
    options = asked.parse_args()
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        print("no Prometheus here: apt-get install prometheus")
        return 3
    with tempfile.TemporaryDirectory() as scratch:
        archive = options.real or Path(scratch) / "study"
        if not options.real:
            text = STUDY.format(rate=options.rate, blocks=options.blocks)
            run_fake(archive, parse_study(text, "ingested.yaml"))
        trials = ArchiveReader.open(archive).trials().height
        written_s, first = by_remote_write(archive, Path(scratch) / "remote")
        exported_s, blocks_s, answered_s, second = by_blocks(archive, Path(scratch) / "blocks")
        with (Path(scratch) / "blocks/study.om").open("rb") as text_of:
            samples = sum(not line.startswith(b"#") for line in text_of)
        print(f"{trials} trials, {samples:,} samples")
        print(f"remote write: answered after {written_s:.1f} s; agrees with DuckDB: {first}")
        print(
            f"blocks: export {exported_s:.1f} s, promtool {blocks_s:.1f} s, start and answer "
            f"{answered_s:.1f} s; agrees with DuckDB: {second}"
        )
        whole_s = exported_s + blocks_s + answered_s
        held = max(written_s, whole_s) < TARGET_S and first and second
        print(f"target of {TARGET_S:g} s {'held' if held else 'NOT held'}")
        if options.rows:
            for name, value in many_rows(options.rows, Path(scratch) / "many").items():
                print(f"{name}: {value:,.1f}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
