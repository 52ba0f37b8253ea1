"""The instrument as a child process, for one run on this machine (`meshwise load`, benchmarks)."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meshwise.core import messages
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.load.instrument import check_spec
from meshwise.load.report import LoadReport
from meshwise.load.spec import LoadSpec

_START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RunningLoad:
    """A run that has started; `directory` is readable with `load.records` at any time."""

    process: OwnedProcess
    directory: Path
    spec: LoadSpec
    start_ns: int

    def report(self) -> LoadReport:
        """After the end of the process. Raises MW309 when it did not end well."""
        path = self.directory / "report.json"
        if not path.exists():
            tail = self.process.log_tail().strip() or "it said nothing"
            raise messages.INSTRUMENT_DIED.error(ending=self.process.ending, tail=tail)
        return LoadReport.from_json(path.read_text())


@contextmanager
def running_load(spec: LoadSpec) -> Iterator[RunningLoad]:
    """Starts the instrument and waits until it sends. Its files (in memory if there is room) go at the end.

    Raises what the instrument raised: MW303 to MW310.
    """
    check_spec(spec)
    with tempfile.TemporaryDirectory(prefix="meshwise-load-", dir=_roomy_directory()) as name:
        directory = Path(name)
        spec_file = directory / "spec.json"
        spec_file.write_text(spec.to_json())
        argv = (sys.executable, "-m", "meshwise.load", "--spec", str(spec_file), "--out", name)
        plan = LaunchPlan("instrument", argv, dict(os.environ), log=directory / "log")
        with OwnedProcess(plan, pipe_stdout=True) as process:
            yield RunningLoad(process, directory, spec, _wait_started(process))


def _wait_started(process: OwnedProcess) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()  # its end, if it has to be, comes as an end of file
    if not line:
        process.wait(_START_TIMEOUT_S)
        tail = process.log_tail().strip() or "it said nothing"
        raise messages.INSTRUMENT_DIED.error(ending=process.ending, tail=tail)
    event = json.loads(line)
    if event.pop("event") == "failed":
        raise MeshwiseError(**{**event, "fault": Fault(event["fault"])})
    return int(event["start_ns"])


def _roomy_directory() -> str | None:
    """Memory-backed if there is a gigabyte of it, so that writing back records never disturbs a run."""
    shm = Path("/dev/shm")
    if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 2**30:
        return str(shm)
    return None
