"""Running the instrument in tests: small, on loopback, and read back as a table and a report."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from meshwise.load.dealt import Dealt
from meshwise.load.engine import Engine
from meshwise.load.intended import intended_times
from meshwise.load.lane import RunFacts, Share
from meshwise.load.records import RecordFile, open_columns, read_records
from meshwise.load.report import LoadReport, report
from meshwise.load.spec import LoadSpec
from meshwise.study.model import Arrivals, Protocol
from meshwise.study.protocol import Streaming

MS = 10**6


def load_spec(port: int, protocol: Protocol = Protocol.HTTP1, **changes: object) -> LoadSpec:
    """100 requests in half a second over 4 connections, answers due within half a second."""
    spec = LoadSpec(
        address="127.0.0.1", port=port, authority=f"127.0.0.1:{port}", protocol=protocol, method="GET",
        path="/", headers=(), body_bytes=0, rate_rps=200, arrivals=Arrivals.CONSTANT, seed=1, warmup_ns=0,
        duration_ns=500 * MS, connections=4, streams=1, timeout_ns=500 * MS,
    )  # fmt: skip
    return dataclasses.replace(spec, **changes)  # type: ignore[arg-type]


@contextmanager
def started(dealt: Dealt, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The instrument's process, sending; it is killed if the test leaves it running."""
    (directory / "spec.json").write_text(dealt.to_json())
    argv = [sys.executable, "-m", "meshwise.load", "--spec", str(directory / "spec.json")]
    with subprocess.Popen(
        [*argv, "--out", str(directory)], stdout=subprocess.PIPE, process_group=0
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "started"
            yield process
        finally:
            process.kill()


def run_dealt(dealt: Dealt, directory: Path) -> list[tuple[pa.Table, LoadReport]]:
    """What the instrument's process recorded and reported of each target."""
    with started(dealt, directory) as process:
        assert process.wait(60) == 0
    ran = []
    for number in range(len(dealt.targets)):
        own = directory / str(number)
        found = LoadReport.from_json((own / "report.json").read_text())
        ran.append((read_records(own), found))
    return ran


@dataclass(frozen=True)
class Ran:
    table: pa.Table
    report: LoadReport
    facts: RunFacts
    wall_s: float

    def errors(self) -> list[str]:
        return [str(error) for error in self.table["error"].to_pylist()]


def run_here(spec: LoadSpec, directory: Path, meanwhile: Callable[[Engine], None] | None = None) -> Ran:
    """One run in this very process; `meanwhile` runs beside it in a thread."""
    began = time.monotonic()
    closed = spec.arrivals is Arrivals.CLOSED
    times = None if closed else intended_times(spec)
    rows = 200_000 if times is None else times.size
    streams = spec.streaming is not Streaming.NONE
    records = RecordFile(directory / "records", rows, messages=streams, addresses=spec.targets)
    with Engine([Share(spec, spec.connections)]) as engine:
        engine.connect(1000 * MS)
        start_ns = time.monotonic_ns() + 5 * MS
        records.begin(times, start_ns, spec.warmup_ns)
        helper = threading.Thread(target=meanwhile, args=(engine,)) if meanwhile else None
        if helper:
            helper.start()
        [facts] = engine.run([records], start_ns)
        if helper:
            helper.join()
        if len(spec.targets) > 1:
            records.note_addresses(facts.setups.attempts, on_demand=spec.requests_per_connection > 0)
    records.close()
    found = report(spec, [open_columns(directory / "records")], [facts])
    return Ran(read_records(directory), found, facts, time.monotonic() - began)
