"""What does adaptive telemetry keep, what does it cost, and does it say the same of an event?

    python benchmarks/adaptive_sampling.py [--blocks 2] [--seconds 60]

Istio, strict: policies are pushed twice in each trial, which costs the proxies CPU for some tenths of a
second. The same study runs with telemetry read slowly (each second), fast (each 10 ms) and adaptively.
Figures: adaptive keeps at most 25 % of the rows of fast (of what was read while the trial ran; all read
the same at its ends), and the CPU that an event takes agrees: the 95 % intervals over events overlap.
What slow says of it stands beside.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats

from meshwise.archive.read import ArchiveReader
from meshwise.telemetry.labels import read_labels

MESHWISE = Path(sys.executable).with_name("meshwise")
KINDS = ("slow", "fast", "adaptive")
PROXY = "istio/a/node-1/proxy"
AROUND_NS = (-100 * 10**6, 1_500 * 10**6)
MOST_SHARE = 0.25
STUDY = """\
name: sampled-{kind}
environments: [istio]
factors: {{posture: strict, rate: 200/s}}
arrangement: apart
trial: {{warmup: 1s, duration: {seconds}s}}
blocks: {blocks}
control: {{same: none, twin: none}}
telemetry: {{sampling: {kind}}}
events: [{{push: policies, count: 300, relevant: true, at: [{first}s, {second}s]}}]
"""


@dataclass(frozen=True)
class Kept:
    rows: float
    """Of a trial, read while it ran."""
    bytes: float
    """Of a trial's file."""
    cpu_share: float
    """That reading took, of one CPU."""
    event_ms: list[float]
    """CPU of the server's proxy in each event beyond its own usual."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = {kind: _run(Path(scratch) / kind, kind, given.blocks, given.seconds) for kind in KINDS}
    for kind, kept in found.items():
        low, high = _interval(kept.event_ms)
        print(
            f"{kind:9} {kept.rows:8.0f} rows, {kept.bytes / 1024:6.0f} KiB a trial; reading takes "
            f"{kept.cpu_share:.2%} of a CPU; an event takes {np.mean(kept.event_ms):6.1f} ms of CPU "
            f"[{low:.1f}, {high:.1f}], n = {len(kept.event_ms)}"
        )
    share = found["adaptive"].rows / found["fast"].rows
    added = (found["adaptive"].rows - found["slow"].rows) / (found["fast"].rows - found["slow"].rows)
    (low, high), (other_low, other_high) = (_interval(found[kind].event_ms) for kind in ("fast", "adaptive"))
    agree = low <= other_high and other_low <= high
    print(
        f"adaptive keeps {share:.1%} of the rows of fast (at most {MOST_SHARE:.0%}), and "
        f"{added:.1%} of what fast adds to slow"
    )
    print(f"the intervals of an event's CPU {'overlap' if agree else 'do NOT overlap'}")
    return 0 if share <= MOST_SHARE and agree else 1


def _run(directory: Path, kind: str, blocks: int, seconds: int) -> Kept:
    study = directory.with_suffix(".yaml")
    first, second = round(0.3 * seconds), round(0.7 * seconds)
    text = STUDY.format(kind=kind, blocks=blocks, seconds=seconds, first=first, second=second)
    study.write_text(text)
    subprocess.run([MESHWISE, "run", study, "--out", directory], check=True, stderr=subprocess.DEVNULL)
    reader = ArchiveReader.open(directory)
    events = reader.events()
    rows, sizes, shares, event_ms = [], [], [], []
    for trial_id in reader.timed()["trial_id"]:
        telemetry = (
            reader.scan_telemetry([trial_id])
            .collect()
            .with_columns(pl.col("metric", "source", "labels").cast(pl.String))
        )
        rows.append(telemetry.filter((pl.col("t_ns") > 0) & (pl.col("t_ns") < seconds * 10**9)).height)
        sizes.append((directory / "telemetry" / f"{trial_id}.parquet").stat().st_size)
        shares.append(_cost_ns(telemetry) / (seconds * 1e9))
        clock = telemetry.filter((pl.col("metric") == "cpu_ns") & (pl.col("source") == PROXY)).sort("t_ns")
        own = events.filter(pl.col("trial_id").cast(pl.String) == trial_id)
        begun = sorted({value for value in own["begun_ns"].to_list() if value is not None})
        event_ms += [_beyond_ms(clock, at_ns, begun) for at_ns in begun]
    return Kept(float(np.mean(rows)), float(np.mean(sizes)), float(np.mean(shares)), event_ms)


def _cost_ns(telemetry: pl.DataFrame) -> float:
    """CPU of readings while the trial ran."""
    costs = telemetry.filter(pl.col("metric") == "sampling_cpu_ns").select("labels", "value")
    return sum(
        value for labels, value in costs.iter_rows() if read_labels(labels)["moment"] in ("during", "between")
    )


def _beyond_ms(clock: pl.DataFrame, at_ns: int, events: list[int]) -> float:
    """CPU around an event, beyond what the process takes in as much of the quiet time."""
    times, used = clock["t_ns"].to_numpy(), clock["value"].to_numpy()

    def spent(begin_ns: float, end_ns: float) -> float:
        return float(np.diff(np.interp([begin_ns, end_ns], times, used))[0])

    begin_ns, end_ns = at_ns + AROUND_NS[0], at_ns + AROUND_NS[1]
    quiet_ns = (10**9, min(events) - 10**9)
    usual = spent(*quiet_ns) / (quiet_ns[1] - quiet_ns[0])
    return (spent(begin_ns, end_ns) - usual * (end_ns - begin_ns)) / 1e6


def _interval(values: list[float]) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


if __name__ == "__main__":
    sys.exit(main())
