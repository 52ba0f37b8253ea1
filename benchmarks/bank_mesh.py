"""The bank in pods, behind sidecars: transfers that it carries, where the CPU goes, whether its books agree.

    python benchmarks/bank_mesh.py            both, as below
    python benchmarks/bank_mesh.py carry [--environment istio] [--posture strict] [--protocol http1]
    python benchmarks/bank_mesh.py accidents [--transfers 100000] [--rate 100] [--every 10]

`carry`: transfers only, open loop, Poisson. Reached when at least 150 a second were answered, in every trial,
with fewer than 1 % errors. The table is CPU of each process per transfer, from the study's own telemetry.

`accidents`: transfers while a sidecar is killed every so many seconds, one after the other, and all of them
get new certificates as often, in trials of two minutes. Reached when that many transfers were asked for and
no trial found money or an acknowledged transfer lost or doubled. 100000 transfers take about a quarter of an
hour; `--transfers 12000` shows the same in two minutes.

Exit status 1 when a figure was missed.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

from _study import CHECKOUT, MESHWISE
from meshwise.archive.read import ArchiveReader
from meshwise.core.errors import ExitStatus

WANTED_RPS = 150.0
MOST_ERRORS = 0.01
TRIAL_S = 120

STUDY = """\
name: bank-{name}
seed: 11
environments: [{environment}]
topology: bank
factors: {{posture: {posture}, protocol: {protocol}, rate: {rate:g}/s, {connections}}}
load:
  arrivals: poisson
  timeout: 5s
  mix: {{transfer: 1}}
trial: {{warmup: {warmup}, duration: {duration:g}s}}
{events}
blocks: {blocks}
executions: 1
workers: 1
control: {{same: none, twin: none}}
"""


def run(text: str, directory: Path) -> tuple[ArchiveReader, bool]:
    """The archive of a study, and whether the run ended with status 0 (1 is a violation)."""
    study = directory / "study.yaml"
    study.write_text(text)
    command = [MESHWISE, "run", study, "--out", directory / "out"]
    status = subprocess.run(command, cwd=CHECKOUT, check=False).returncode
    if status not in (ExitStatus.DONE, ExitStatus.ANSWER_IS_NO):
        sys.exit(f"the study did not finish: exit status {status}")
    return ArchiveReader.open(directory / "out"), status == ExitStatus.DONE


def study_text(options: argparse.Namespace, name: str, **values: object) -> str:
    connections = "connections: 16" if options.protocol == "http1" else "connections: 2, streams: 64"
    return STUDY.format(
        name=name,
        environment=options.environment,
        posture="none" if options.environment == "none" else options.posture,
        protocol=options.protocol,
        rate=options.rate,
        connections=connections,
        **values,
    )


def answered(reader: ArchiveReader) -> pl.DataFrame:
    """By trial that went well: transfers asked, answers per second, share of errors, response times in ms."""
    good_trials = reader.trials().filter(pl.col("status") == "ok")["trial_id"].to_list()
    measured = reader.scan_requests(good_trials).filter(pl.col("intended_ns") >= 0)
    good = pl.col("error").cast(pl.String) == ""
    response_ms = (pl.col("done_ns") - pl.col("intended_ns")) / 1e6
    end_s = pl.max_horizontal(pl.col("intended_ns").max(), pl.col("done_ns").filter(good).max()) / 1e9
    return (
        measured.group_by(pl.col("trial_id").cast(pl.String))
        .agg(
            asked=pl.len(),
            per_s=good.sum() / end_s,
            errors=1 - good.mean(),
            p50_ms=response_ms.filter(good).quantile(0.5),
            p99_ms=response_ms.filter(good).quantile(0.99),
        )
        .sort("trial_id")
        .collect()
    )


def cpu_table(reader: ArchiveReader) -> pl.DataFrame:
    """CPU in us per answered transfer, by process, over all trials."""
    reads = (
        reader.scan_telemetry()
        .filter(pl.col("metric").cast(pl.String) == "cpu_ns")
        .with_columns(pl.col("source").cast(pl.String), pl.col("trial_id").cast(pl.String))
        .group_by("trial_id", "source")
        .agg(
            spent_ns=pl.col("value").sort_by("t_ns").last() - pl.col("value").sort_by("t_ns").first(),
            over_ns=pl.col("t_ns").max() - pl.col("t_ns").min(),
        )
        .collect()
    )
    count = answered(reader)["per_s"].mean()
    assert isinstance(count, float)
    return (
        reads.with_columns(us=pl.col("spent_ns") / pl.col("over_ns") * 1e6 / count)
        .group_by("source")
        .agg(pl.col("us").mean())
        .sort("us", descending=True)
    )


def carry(options: argparse.Namespace, directory: Path) -> int:
    text = study_text(options, "carry", warmup="5s", duration=options.seconds, events="", blocks=2)
    reader, content = run(text, directory)
    trials, cpu = answered(reader), cpu_table(reader)
    for row in trials.iter_rows(named=True):
        print(
            f"{row['trial_id']}: {row['per_s']:.1f} transfers/s, {row['errors']:.2%} errors,"
            f" p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms"
        )
    print("\nCPU per transfer")
    for source, us in cpu.iter_rows():
        print(f"  {source:40} {us:8.0f} us")
    print(f"  {'all':40} {cpu['us'].sum():8.0f} us")
    slowest, worst = trials["per_s"].min(), trials["errors"].max()
    assert isinstance(slowest, float)
    assert isinstance(worst, float)
    reached = content and slowest >= WANTED_RPS and worst < MOST_ERRORS
    print(f"\n{slowest:.1f} transfers/s, at least {WANTED_RPS:g}: {'reached' if reached else 'missed'}")
    return 0 if reached else 1


def accidents(options: argparse.Namespace, directory: Path) -> int:
    blocks = max(2, math.ceil(options.transfers / options.rate / TRIAL_S))
    duration = math.ceil(options.transfers / options.rate / blocks * 1.01) + 1
    often = f"every: {options.every:g}s"
    events = f"events: [{{restart: proxy, {often}}}, {{rotate: leaf, {often}}}]"
    reader, content = run(
        study_text(options, "accidents", warmup="1s", duration=duration, events=events, blocks=blocks),
        directory,
    )
    asked = int(answered(reader)["asked"].sum())
    events_done = reader.events().filter(pl.col("done_ns").is_not_null())
    counted = events_done.group_by(pl.col("event").cast(pl.String)).len()
    happened = dict(counted.iter_rows())
    restarts, renewed = happened.get("restart proxy", 0), happened.get("rotate leaf", 0)
    for row in reader.trials().iter_rows(named=True):
        print(f"{row['trial_id']} {row['status']}: {row['failure'] or row['checks']}")
    meshed = options.environment != "none"
    reached = content and asked >= options.transfers and (not meshed or min(restarts, renewed) > 0)
    verdict = "nothing lost or doubled" if content else "the run was not content"
    print(f"\n{asked} transfers, {restarts} proxies killed, {renewed} certificates renewed; {verdict}")
    print("reached" if reached else "missed")
    return 0 if reached else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("carry", "accidents", "both"), nargs="?", default="both")
    parser.add_argument("--environment", choices=("none", "istio", "linkerd"), default="istio")
    parser.add_argument("--posture", default="strict")
    parser.add_argument("--protocol", choices=("http1", "http2", "grpc"), default="http1")
    parser.add_argument("--rate", type=float, help="transfers per second [default: 160, accidents: 100]")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--transfers", type=int, default=100_000)
    parser.add_argument("--every", type=float, default=10.0)
    parser.add_argument(
        "--keep", type=Path, help="a directory for the archive, which is thrown away otherwise"
    )
    options = parser.parse_args()
    wanted = (
        (carry, accidents)
        if options.what == "both"
        else ({"carry": carry, "accidents": accidents}[options.what],)
    )
    given, statuses = options.rate, []
    for each in wanted:
        options.rate = given or (160.0 if each is carry else 100.0)
        with tempfile.TemporaryDirectory() as scratch:
            directory = (options.keep or Path(scratch)) / each.__name__
            directory.mkdir(parents=True, exist_ok=True)
            statuses.append(each(options, directory))
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
