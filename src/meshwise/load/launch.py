"""The instrument as a child process, for one run on this machine (`meshwise load`, benchmarks)."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meshwise.core import messages
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.core.notice import Notice
from meshwise.core.patience import USUAL
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.load.dealt import Dealt
from meshwise.load.files import RunFiles, descriptor_of, nameless
from meshwise.load.instrument import check
from meshwise.load.report import LoadReport
from meshwise.load.spec import LoadSpec


@dataclass(frozen=True)
class RunningLoad:
    """A run that has started; the files of each target are readable with `load.records` at any time."""

    process: OwnedProcess
    files_of_each: tuple[RunFiles, ...]
    dealt: Dealt
    start_ns: int

    @property
    def files(self) -> RunFiles:
        """Of the first target."""
        return self.files_of_each[0]

    @property
    def spec(self) -> LoadSpec:
        return self.dealt.first

    def reports(self) -> list[LoadReport]:
        """After the end of the process. Raises MW309 when it did not end well."""
        try:
            return [LoadReport.from_json(files.report.read_text()) for files in self.files_of_each]
        except ValueError:  # empty, or cut off
            tail = self.process.log_tail().strip() or "it said nothing"
            raise messages.INSTRUMENT_DIED.error(ending=self.process.ending, tail=tail) from None

    def report(self) -> LoadReport:
        """Of the first target."""
        return self.reports()[0]


@contextmanager
def running_load(load: LoadSpec | Dealt) -> Iterator[RunningLoad]:
    """Starts the instrument and waits until it sends. Its files are in memory and have no name: however this
    process ends, nothing is left.

    Raises what the instrument raised: MW303 to MW310, MW315.
    """
    dealt = load if isinstance(load, Dealt) else Dealt.one(load)
    check(dealt)
    count, processes = len(dealt.targets), dealt.first.processes
    reports = [f"report-{number}" for number in range(count)]
    records = [f"records-{number}-{index}" for number in range(count) for index in range(processes)]
    with nameless("spec", "log", *reports, *records) as (spec_file, log, *files):
        spec_file.write_text(dealt.to_json())
        argv = (sys.executable, "-m", "meshwise.load", "--spec", str(spec_file))
        of_each = RunFiles.of_paths(files[count:], files[:count])
        further = [Path(path) for spec in dealt.targets for path in (spec.trace, spec.network) if path]
        passed = map(descriptor_of, (spec_file, *files, *further))
        plan = LaunchPlan(
            "instrument",
            (*argv, "--report", *map(str, files[:count]), "--records", *map(str, files[count:])),
            dict(os.environ),
            log=log,
            descriptors=tuple({descriptor for descriptor in passed if descriptor is not None}),
        )
        with OwnedProcess(plan, pipe_stdout=True) as process:
            yield RunningLoad(process, tuple(of_each), dealt, _wait_started(process, dealt))


def _wait_started(process: OwnedProcess, dealt: Dealt) -> int:
    assert process.stdout is not None
    servers = ", ".join(dict.fromkeys(f"{spec.address}:{spec.port}" for spec in dealt.targets))
    limit_s = max(spec.connect_ns for spec in dealt.targets) / 1e9
    notice = Notice(f"{servers} to take connections", limit_s)
    if not select.select([process.stdout], [], [], notice.left_s)[0]:
        notice.look()
    line = process.stdout.readline()  # its end, if it has to be, comes as an end of file
    if not line:
        process.wait(USUAL.start_s)
        tail = process.log_tail().strip() or "it said nothing"
        raise messages.INSTRUMENT_DIED.error(ending=process.ending, tail=tail)
    event = json.loads(line)
    if event.pop("event") == "failed":
        event.pop("targets")  # the error says the first of them
        raise MeshwiseError(**{**event, "fault": Fault(event["fault"])})
    return int(event["start_ns"])
