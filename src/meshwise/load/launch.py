"""The instrument as a child process, for one run on this machine (`meshwise load`, benchmarks)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meshwise.core import messages
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.core.patience import USUAL
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.load.files import RunFiles, descriptor_of, nameless
from meshwise.load.instrument import check_spec
from meshwise.load.report import LoadReport
from meshwise.load.spec import LoadSpec


@dataclass(frozen=True)
class RunningLoad:
    """A run that has started; `files` is readable with `load.records` at any time."""

    process: OwnedProcess
    files: RunFiles
    spec: LoadSpec
    start_ns: int

    def report(self) -> LoadReport:
        """After the end of the process. Raises MW309 when it did not end well."""
        try:
            return LoadReport.from_json(self.files.report.read_text())
        except ValueError:  # empty, or cut off
            tail = self.process.log_tail().strip() or "it said nothing"
            raise messages.INSTRUMENT_DIED.error(ending=self.process.ending, tail=tail) from None


@contextmanager
def running_load(spec: LoadSpec) -> Iterator[RunningLoad]:
    """Starts the instrument and waits until it sends. Its files are in memory and have no name: however this
    process ends, nothing is left.

    Raises what the instrument raised: MW303 to MW310.
    """
    check_spec(spec)
    records = [f"records-{index}" for index in range(spec.processes)]
    with nameless("spec", "log", "report", *records) as (spec_file, log, report, *rows):
        spec_file.write_text(spec.to_json())
        argv = (sys.executable, "-m", "meshwise.load", "--spec", str(spec_file), "--report", str(report))
        further = [Path(spec.trace)] if spec.trace else []
        passed = map(descriptor_of, (spec_file, report, *rows, *further))
        plan = LaunchPlan(
            "instrument",
            (*argv, "--records", *map(str, rows)),
            dict(os.environ),
            log=log,
            descriptors=tuple(descriptor for descriptor in passed if descriptor is not None),
        )
        with OwnedProcess(plan, pipe_stdout=True) as process:
            yield RunningLoad(process, RunFiles(tuple(rows), report), spec, _wait_started(process))


def _wait_started(process: OwnedProcess) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()  # its end, if it has to be, comes as an end of file
    if not line:
        process.wait(USUAL.start_s)
        tail = process.log_tail().strip() or "it said nothing"
        raise messages.INSTRUMENT_DIED.error(ending=process.ending, tail=tail)
    event = json.loads(line)
    if event.pop("event") == "failed":
        raise MeshwiseError(**{**event, "fault": Fault(event["fault"])})
    return int(event["start_ns"])
