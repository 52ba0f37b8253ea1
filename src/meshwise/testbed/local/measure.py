"""One round: the instrument in the clients' pods, samplers beside it, and every process watched.

An arm fails when a process of its own ends that should not, or when the instrument cannot connect to it: then
the round begins again at once with the others. All fail when the instrument does not start or does not end in
its time. What was recorded until then is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import starmap

import pyarrow as pa
import pyarrow.compute as pc

from meshwise.core.errors import MeshwiseError
from meshwise.core.process import OwnedProcess, wait_any
from meshwise.study.sampling import Sampling
from meshwise.study.timeline import Timeline
from meshwise.telemetry.counting.perf import PmuSampler
from meshwise.telemetry.host import HostSampler
from meshwise.telemetry.process import CpuSampler, ProcessSampler, TreeCpuSampler
from meshwise.telemetry.record import SCHEMA as TELEMETRY_SCHEMA
from meshwise.telemetry.record import Recording, Window
from meshwise.telemetry.seam import Sampler
from meshwise.telemetry.threads import ThreadSampler
from meshwise.testbed.local.between import brisk
from meshwise.testbed.local.happening import Happenings
from meshwise.testbed.local.instrument import Instrument, NotStarted
from meshwise.testbed.seam import LiveProgress, Measurement, Observe

OBSERVE_S = 0.5
STORE = "store"
"""Role of a database or cache: many processes, of which only the CPU is told."""

_TIME_COLUMNS = ("intended_ns", "sent_ns", "first_byte_ns", "done_ns")


@dataclass(frozen=True)
class Failure:
    """Why a trial failed, and the end of the log of the process that caused it."""

    what: str
    log_tail: str = ""


@dataclass
class Arm:
    """One trial of a round, while it is measured."""

    trial_id: str
    environment: str
    """Its name, which begins the names of its processes and sources: `istio/a`."""
    processes: list[OwnedProcess]
    """Of its environment; they must live."""
    used_pods: Collection[str]
    """Only processes in these are sampled, for only they serve the trial's topology."""
    samplers: Sequence[Sampler]
    """Of the mesh."""
    instruments: Sequence[Instrument] = ()
    failure: Failure | None = None
    zero_ns: int = 0
    """Its time 0 on CLOCK_MONOTONIC."""


Looking = Callable[[Mapping[str, int]], AbstractContextManager[object]]
_USUAL, _NOTHING = Sampling(), Timeline()

StartInstruments = Callable[[Sequence[int], ExitStack], Sequence[Sequence[Instrument]]]
"""Starts the instruments of the arms with these numbers, whose processes it gives to the stack."""


def measure(
    arms: Sequence[Arm],
    start_instruments: StartInstruments,
    observe: Observe,
    happenings: Happenings | None = None,
    sampling: Sampling = _USUAL,
    timeline: Timeline = _NOTHING,
    beside: Mapping[str, int] | None = None,
    looking: Looking = nullcontext,
) -> Mapping[str, Measurement]:
    """Warm up, measure, gather; by trial_id. Several arms share one process. `happenings`: what is done to
    some of the arms meanwhile, by `timeline`. `sampling`: how often telemetry is read. `beside`: process ids
    of what is in no arm, by the source under which all have it. `looking`: what else looks at the processes
    (source -> pid) while telemetry is read."""
    with ExitStack() as stack:
        if happenings:
            happenings.foresee()
        zeros_ns = _begin(arms, start_instruments, stack)
        begun = [arm for arm in arms if arm.failure is None]
        instruments = [instrument for arm in begun for instrument in arm.instruments]
        telemetry = TELEMETRY_SCHEMA.empty_table()
        # One reading of both clocks: wall-clock time of a moment on the monotonic one.
        offset_ns = time.time_ns() - time.monotonic_ns()
        if begun:
            spec = instruments[0].spec
            window = Window(zeros_ns[0], zeros_ns[0] + spec.duration_ns, sampling.interval_ns)
            # Only this thread reaps, so one that is running here still has its entry in /proc.
            serving = [
                process
                for arm in begun
                for process in arm.processes
                if process.name.rpartition("/")[0] in arm.used_pods
            ]
            pids = {p.name: p.pid for p in (*serving, *_own(instruments)) if p.running} | dict(beside or {})
            trees = {name: pids.pop(name) for name in list(pids) if name.endswith(f"/{STORE}")}
            of_meshes = [sampler for arm in begun for sampler in arm.samplers]
            others: list[Sampler] = [*starmap(ProcessSampler, pids.items()), *of_meshes, HostSampler()]
            others += starmap(ThreadSampler, pids.items())
            pmu = stack.enter_context(PmuSampler(pids))
            clocks = CpuSampler(pids)
            exact: list[Sampler] = [clocks, *starmap(TreeCpuSampler, trees.items())]
            exact += [pmu] if pmu.counts else []
            between = brisk(sampling, clocks, instruments[0].directory, window, timeline)
            if happenings:
                happenings.begin(window.t0_ns, {arm.environment for arm in begun})
                stack.callback(happenings.end)
            with looking(pids), Recording(window, exact, others, between) as recording:
                _watch(begun, window.t0_ns, observe, happenings)
                if happenings:
                    happenings.end()
                for arm in begun:
                    _look(arm, happenings)
                if all(arm.failure for arm in begun):
                    recording.stop()
                telemetry = recording.result()
        for process in _own(instruments):
            process.stop()
        zero_ns = zeros_ns[0] if zeros_ns else time.monotonic_ns()
        for arm in arms:
            arm.zero_ns = zero_ns
        shifts = dict(zip(map(id, instruments), (own_ns - zero_ns for own_ns in zeros_ns), strict=False))
        shared = len(begun) if len(begun) > 1 else 0
        return {
            arm.trial_id: Measurement(
                requests=joined([(one.requests(), shifts.get(id(one), 0)) for one in arm.instruments]),
                telemetry=of_arm(telemetry, arm.environment, instruments[0].process.name, shared)
                if arm in begun
                else TELEMETRY_SCHEMA.empty_table(),
                started_unix_ns=zero_ns + offset_ns,
                instrument=flat_reports({one.client: one.report() for one in arm.instruments}),
                failure=arm.failure.what if arm.failure else "",
                log_tail=arm.failure.log_tail if arm.failure else "",
                flags=happenings.flags_of(arm.environment) if happenings else (),
                events=happenings.events_of(arm.environment) if happenings else None,
            )
            for arm in arms
        }


def of_arm(telemetry: pa.Table, environment: str, instrument: str, shared: int) -> pa.Table:
    """What was sampled of one environment, and of the host. `instrument`: name of the process that all arms
    share, `shared` in number (0: none does). Each gets its part of what that used: all send equally many."""
    if not shared:
        return telemetry
    source = telemetry["source"].cast(pa.string())
    own = pc.starts_with(source, f"{environment}/")
    of_instrument = pc.equal(source, instrument)
    host = pc.invert(pc.match_substring(source, "/"))
    rest = telemetry.filter(pc.or_(pc.and_(own, pc.invert(of_instrument)), host))
    part = telemetry.filter(of_instrument)
    value = part.schema.get_field_index("value")
    used = pc.if_else(
        pc.equal(part["metric"].cast(pa.string()), "cpu_ns"), pc.divide(part["value"], shared), part["value"]
    )
    part = part.set_column(value, part.schema.field(value), used)
    name = part.schema.get_field_index("source")
    mine = pa.array([name_in(environment, instrument)] * part.num_rows)
    part = part.set_column(name, part.schema.field(name), mine.cast(part.schema.field(name).type))
    return pa.concat_tables([rest, part]).unify_dictionaries().sort_by("t_ns")


def name_in(environment: str, instrument: str) -> str:
    """What an arm of that environment calls the process that it may share with others."""
    return f"{environment}/{instrument.split('/', 2)[-1]}"


def _own(instruments: Iterable[Instrument]) -> tuple[OwnedProcess, ...]:
    """Each process once."""
    return tuple({id(one.process): one.process for one in instruments}.values())


def _begin(arms: Sequence[Arm], start_instruments: StartInstruments, owner: ExitStack) -> list[int]:
    """Wait until the instruments of all arms have connected; the time 0 (end of warm-up) of each. An arm to
    which there is no connection, or of which a process has ended, fails, and the others begin again."""
    left = list(range(len(arms)))
    while left:
        for number, own in zip(left, start_instruments(left, owner), strict=True):
            arms[number].instruments = own
        zeros_ns, found = [], dict[int, Failure | None]()
        for number in left:
            zeros, found[number] = _start(arms[number])
            zeros_ns += zeros
        if not any(found.values()):
            return zeros_ns
        for process in _own(one for number in left for one in arms[number].instruments):
            process.stop()
        for number in left:
            arms[number].failure = _ended(arms[number].processes) or found[number]
        left = [number for number in left if arms[number].failure is None]
    return []


def _start(arm: Arm) -> tuple[list[int], Failure | None]:
    """When the time 0 of its instruments is, or why it cannot be measured. Neither, if that is because of
    others."""
    zeros_ns = []
    for instrument in arm.instruments:
        try:
            zeros_ns.append(instrument.wait_started() + instrument.spec.warmup_ns)
        except (MeshwiseError, NotStarted) as error:
            if isinstance(error, NotStarted) and error.for_others:
                return [], None
            words = error.what if isinstance(error, MeshwiseError) else str(error)
            name = name_in(arm.environment, instrument.process.name)
            return [], Failure(f"{name}: {words}", instrument.process.log_tail())
    return zeros_ns, None


def _watch(arms: Sequence[Arm], zero_ns: int, observe: Observe, happenings: Happenings | None) -> None:
    """Until every instrument has ended, or no arm is left that could still be measured."""
    instruments = [instrument for arm in arms for instrument in arm.instruments]
    spec = instruments[0].spec
    late_ns = max(one.spec.timeout_ns + one.patience.report_s * 1e9 for one in instruments)
    deadline_ns = zero_ns + spec.duration_ns + late_ns
    running = list(instruments)
    while running:
        living = [arm for arm in arms if arm.failure is None]
        watched = [each for arm in living for each in arm.processes if not each.asked_to_stop]
        wait_any([*watched, *_own(running)], OBSERVE_S)
        for arm in living:  # proxies and services first: without them the instrument would end as well
            arm.failure = _ended(arm.processes)
        if (failure := _ended(_failed(running))) is not None:
            _fail(arms, failure)
        for arm in living:
            _look(arm, happenings)
        if all(arm.failure for arm in arms):
            return
        running = [instrument for instrument in running if instrument.process.running]
        if time.monotonic_ns() > deadline_ns:
            late = running[0].process if running else instruments[0].process
            _fail(arms, Failure(f"{late.name} did not come to its end", late.log_tail()))
            return
        completed, p50_us = instruments[0].peek()
        elapsed_s = (time.monotonic_ns() - zero_ns + spec.warmup_ns) / 1e9
        observe(LiveProgress(elapsed_s, completed, p50_us))


def _look(arm: Arm, happenings: Happenings | None) -> None:
    """Whether what was to happen to it could be done; a reason of its own comes first."""
    words = happenings.failure_of(arm.environment) if happenings else ""
    if words and arm.failure is None:
        arm.failure = Failure(words)


def _fail(arms: Iterable[Arm], failure: Failure) -> None:
    """Of what all arms share; an arm that failed by itself keeps its own reason."""
    for arm in arms:
        arm.failure = arm.failure or failure


def _ended(processes: Iterable[OwnedProcess]) -> Failure | None:
    """The first that does not run any more, though no one asked it to end."""
    for process in processes:
        if not process.running and not process.asked_to_stop:
            return Failure(f"{process.name} {process.ending} during the trial", process.log_tail())
    return None


def _failed(instruments: Iterable[Instrument]) -> list[OwnedProcess]:
    """Those that have ended otherwise than with status 0."""
    return [one.process for one in instruments if one.process.ending not in ("", "ended with status 0")]


def joined(tables: Sequence[tuple[pa.Table, int]]) -> pa.Table:
    """All clients' requests on one clock, by intended time; a column that one of them lacks is null there. A
    table comes with its zero minus the trial's."""
    shifted = []
    for table, shift_ns in tables:
        for name in _TIME_COLUMNS if shift_ns else ():
            column = pc.add(table.column(name), pa.scalar(shift_ns, pa.int64()))
            index = table.schema.get_field_index(name)
            table = table.set_column(index, table.schema.field(index), column)
        shifted.append(table)
    if len(shifted) == 1:
        return shifted[0]
    return pa.concat_tables(shifted, promote_options="default").unify_dictionaries().sort_by("intended_ns")


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
