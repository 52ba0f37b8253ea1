"""One trial: the instrument in the client's pod, samplers beside it, and a watch on every process.

A trial fails when a process ends that should not, or when the instrument cannot connect or
does not end; what was recorded until then is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import starmap

import pyarrow as pa
import pyarrow.compute as pc

from meshwise.core.errors import MeshwiseError
from meshwise.core.process import OwnedProcess, wait_any
from meshwise.telemetry.host import HostSampler
from meshwise.telemetry.process import CpuSampler, ProcessSampler, TreeCpuSampler
from meshwise.telemetry.record import SCHEMA as TELEMETRY_SCHEMA
from meshwise.telemetry.record import Recording, Window
from meshwise.telemetry.seam import Sampler
from meshwise.testbed.local.accidents import Accidents
from meshwise.testbed.local.instrument import Instrument
from meshwise.testbed.seam import LiveProgress, Measurement, Observe

SAMPLE_INTERVAL_NS = 10**9
"""A proxy pays about 1.2 ms of CPU for telling its statistics, so this is 0.1 % of a core for each."""
OBSERVE_S = 0.5
STORE = "store"
"""Role of a database or cache: many processes, of which only the CPU is told."""

_TIME_COLUMNS = ("intended_ns", "sent_ns", "first_byte_ns", "done_ns")


@dataclass(frozen=True)
class Failure:
    """Why a trial failed, and the end of the log of the process that caused it."""

    what: str
    log_tail: str = ""


def measure(
    start_instruments: Callable[[ExitStack], Sequence[Instrument]],
    processes: Sequence[OwnedProcess],
    used_pods: Collection[str],
    mesh_samplers: Sequence[Sampler],
    observe: Observe,
    accidents: Accidents | None = None,
) -> Measurement:
    """Warm up, measure, gather. `processes`: those of the trial's environment, which must live; of these
    the ones in `used_pods` are sampled, for only they serve the trial's topology. `accidents`: what is done
    to them meanwhile."""
    processes = list(processes)
    with ExitStack() as stack:
        instruments = start_instruments(stack)
        telemetry = TELEMETRY_SCHEMA.empty_table()
        failure, zeros_ns = _start(instruments)
        if failure is not None:  # it may have ended because another did
            failure = _ended(processes) or failure
        # One reading of both clocks: wall-clock time of a moment on the monotonic one.
        offset_ns = time.time_ns() - time.monotonic_ns()
        if failure is None:
            spec = instruments[0].spec
            window = Window(zeros_ns[0], zeros_ns[0] + spec.duration_ns, SAMPLE_INTERVAL_NS)
            # Only this thread reaps, so one that is running here still has its entry in /proc.
            serving = [process for process in processes if process.name.rpartition("/")[0] in used_pods]
            pids = {p.name: p.pid for p in (*serving, *_own(instruments)) if p.running}
            trees = {name: pids.pop(name) for name in list(pids) if name.endswith(f"/{STORE}")}
            others: list[Sampler] = [*starmap(ProcessSampler, pids.items()), *mesh_samplers, HostSampler()]
            exact: list[Sampler] = [CpuSampler(pids), *starmap(TreeCpuSampler, trees.items())]
            with Recording(window, exact, others) as recording:
                failure = _watch(instruments, processes, window.t0_ns, observe, accidents)
                if failure is not None:
                    recording.stop()
                telemetry = recording.result()
        for instrument in instruments:
            instrument.process.stop()
        zero_ns = zeros_ns[0] if zeros_ns else time.monotonic_ns()
        tables = [instrument.requests() for instrument in instruments]
        shifts = [own_ns - zero_ns for own_ns in zeros_ns] or [0] * len(tables)
        return Measurement(
            requests=joined(list(zip(tables, shifts, strict=True))),
            telemetry=telemetry,
            started_unix_ns=zero_ns + offset_ns,
            instrument=flat_reports({instrument.client: instrument.report() for instrument in instruments}),
            failure=failure.what if failure else "",
            log_tail=failure.log_tail if failure else "",
            events=accidents.events() if accidents else None,
        )


def _own(instruments: Sequence[Instrument]) -> tuple[OwnedProcess, ...]:
    return tuple(instrument.process for instrument in instruments)


def _start(instruments: Sequence[Instrument]) -> tuple[Failure | None, list[int]]:
    """Wait until all have connected; the time 0 (end of warm-up) of each."""
    zeros_ns = []
    for instrument in instruments:
        try:
            zeros_ns.append(instrument.wait_started() + instrument.spec.warmup_ns)
        except (MeshwiseError, ValueError) as error:
            words = error.what if isinstance(error, MeshwiseError) else str(error)
            return Failure(f"{instrument.process.name}: {words}", instrument.process.log_tail()), []
    return None, zeros_ns


def _watch(
    instruments: Sequence[Instrument],
    processes: list[OwnedProcess],
    zero_ns: int,
    observe: Observe,
    accidents: Accidents | None,
) -> Failure | None:
    """Until every instrument has ended, or something has gone wrong."""
    spec = instruments[0].spec
    late_ns = max(one.spec.timeout_ns + one.patience.report_s * 1e9 for one in instruments)
    deadline_ns = zero_ns + spec.duration_ns + late_ns
    end_ns = zero_ns + spec.duration_ns
    running = list(instruments)
    while running:
        watched = [*processes, *_own(running)]
        wait_any(watched, _patience_s(accidents, zero_ns, end_ns))
        # Proxies and services first: without them the instrument would end as well.
        if (failure := _ended(processes) or _ended(_failed(running))) is not None:
            return failure
        if accidents and accidents.due_ns(zero_ns) <= time.monotonic_ns() < end_ns:
            try:
                accidents.happen(zero_ns, processes)
            except MeshwiseError as error:
                return Failure(error.what)
        running = [instrument for instrument in running if instrument.process.running]
        if time.monotonic_ns() > deadline_ns:
            late = running[0].process if running else instruments[0].process
            return Failure(f"{late.name} did not come to its end", late.log_tail())
        completed, p50_us = instruments[0].peek()
        elapsed_s = (time.monotonic_ns() - zero_ns + spec.warmup_ns) / 1e9
        observe(LiveProgress(elapsed_s, completed, p50_us))
    return None


def _patience_s(accidents: Accidents | None, zero_ns: int, end_ns: int) -> float:
    """Until the next accident, at most `OBSERVE_S`."""
    due_ns = accidents.due_ns(zero_ns) if accidents else end_ns
    left_s = (due_ns - time.monotonic_ns()) / 1e9
    return min(OBSERVE_S, max(left_s, 0.001)) if due_ns < end_ns else OBSERVE_S


def _ended(processes: Iterable[OwnedProcess]) -> Failure | None:
    """The first that does not run any more, though no one asked it to end."""
    for process in processes:
        if not process.running:
            return Failure(f"{process.name} {process.ending} during the trial", process.log_tail())
    return None


def _failed(instruments: Iterable[Instrument]) -> list[OwnedProcess]:
    """Those that have ended otherwise than with status 0."""
    return [one.process for one in instruments if one.process.ending not in ("", "ended with status 0")]


def joined(tables: Sequence[tuple[pa.Table, int]]) -> pa.Table:
    """All clients' requests on one clock, by intended time. A table comes with its zero minus the trial's."""
    shifted = []
    for table, shift_ns in tables:
        for name in _TIME_COLUMNS if shift_ns else ():
            column = pc.add(table.column(name), pa.scalar(shift_ns, pa.int64()))
            index = table.schema.get_field_index(name)
            table = table.set_column(index, table.schema.field(index), column)
        shifted.append(table)
    if len(shifted) == 1:
        return shifted[0]
    return pa.concat_tables(shifted).unify_dictionaries().sort_by("intended_ns")


def flat_reports(reports: Mapping[str, Mapping[str, object]]) -> dict[str, float | str]:
    """The first client's report as plain facts, percentiles as `lateness_p99_us`; others' with a prefix."""
    found: dict[str, float | str] = {}
    for number, (client, report) in enumerate(reports.items()):
        prefix = f"{client}_" if number else ""
        for name, value in report.items():
            if isinstance(value, Mapping):
                stem, unit = (name[:-3], "_us") if name.endswith("_us") else (name, "")
                parts = {f"{prefix}{stem}_{key}{unit}": part for key, part in value.items()}
            else:
                parts = {f"{prefix}{name}": "; ".join(value) if isinstance(value, tuple | list) else value}
            found |= {key: part for key, part in parts.items() if isinstance(part, float | int | str)}
    return found
