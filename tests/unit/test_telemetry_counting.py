"""Counters against the contract of the seam."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.counter_conformance import UNITS, CounterConformance
from tests.support.sampler_conformance import SamplerConformance
from tests.support.worker import UNITS_PER_CALL, Worker, compile_worker

from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import USUAL
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.telemetry.counting import perf_events, valgrind
from meshwise.telemetry.counting.callgrind import CallgrindCounter
from meshwise.telemetry.counting.fake import FakeCounter, difference
from meshwise.telemetry.counting.perf import PerfCounter, PmuSampler
from meshwise.telemetry.counting.perf_events import PAGE_FAULTS, TASK_CLOCK, EventKind
from meshwise.telemetry.counting.seam import ARITHMETIC, Count, CountedProcess, Function
from meshwise.telemetry.seam import Moment, Sampler


class TestFakeCounter(CounterConformance):
    def counter(self) -> FakeCounter:
        self.done = 0
        return FakeCounter(lambda name: Count(100 * self.done, None, {"read": self.done}))

    def work(self, units: int, process: OwnedProcess) -> None:
        self.done += units


class TestFakeCountedProcess(TestFakeCounter):
    """The same, of a fake that tells functions and cycles."""

    def counter(self) -> FakeCounter:
        self.done = 0
        return FakeCounter(
            lambda name: Count(
                100 * self.done, 200 * self.done + 1, {}, {Function("/proxy", "serve"): 100 * self.done}
            )
        )

    def test_it_says_what_it_is(self) -> None:
        assert FakeCounter(lambda name: Count(1), slowness=50).slowness == 50


def test_a_difference_has_only_what_was_done() -> None:
    earlier = Count(5, 3, {"read": 2, "write": 1}, {Function("/a", "f"): 5})
    later = Count(9, 8, {"read": 2, "write": 4}, {Function("/a", "f"): 6, Function("/a", "g"): 3})
    assert difference(later, earlier) == Count(
        4, 5, {"write": 3}, {Function("/a", "f"): 1, Function("/a", "g"): 3}
    )


# --- callgrind -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_worker(tmp_path_factory.mktemp("worker"))


@pytest.fixture(scope="module")
def callgrind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CallgrindCounter]:
    try:
        valgrind.find(os.environ)
    except MeshwiseError as error:
        pytest.skip(str(error))
    with CallgrindCounter(tmp_path_factory.mktemp("scratch"), USUAL, os.environ) as made:
        yield made


class _OnWorker(CounterConformance):
    words: tuple[str, ...] = ()

    @pytest.fixture(autouse=True)
    def _worker(self, tmp_path: Path, program: Path) -> Iterator[None]:
        self.worker = Worker(program, tmp_path, *self.words)
        yield
        self.worker.close()

    def plan(self, directory: Path) -> LaunchPlan:
        return self.worker.plan

    def work(self, units: int, process: OwnedProcess) -> None:
        self.worker.work(units, process.pid)


class TestCallgrindCounter(_OnWorker):
    linear_within = 1e-4

    @pytest.fixture(autouse=True)
    def _counter(self, callgrind: CallgrindCounter) -> None:
        self.callgrind = callgrind

    def counter(self) -> CallgrindCounter:
        return self.callgrind

    def test_system_calls_are_those_that_were_made(
        self, counted: CountedProcess, process: OwnedProcess
    ) -> None:
        for units in UNITS:
            counted.begin()
            self.work(units, process)
            assert counted.end().system_calls == {"getppid": units // UNITS_PER_CALL, "read": 1, "write": 1}

    def test_the_work_is_found_in_its_function(self, counted: CountedProcess, process: OwnedProcess) -> None:
        counted.begin()
        self.work(UNITS[0], process)
        count = counted.end()
        by_name = {each.name: (each.binary, cost) for each, cost in count.functions.items()}
        binary, cost = by_name["units"]
        assert binary == self.worker.plan.argv[0]
        assert cost > 0.95 * count.instructions


class TestCallgrindProcess(TestCallgrindCounter):
    """The work done by threads that are started in the window; making one and waiting for it takes as many
    instructions as it happens to."""

    linear_within = 2e-3
    words = ("threaded",)

    def test_system_calls_are_those_that_were_made(
        self, counted: CountedProcess, process: OwnedProcess
    ) -> None:
        self.window(counted, process, 1)
        counted.begin()
        self.work(UNITS[0], process)
        assert counted.end().system_calls["getppid"] == UNITS[0] // UNITS_PER_CALL


# --- the kernel's counters -------------------------------------------------------------------------

SOFTWARE = (PAGE_FAULTS, TASK_CLOCK)
"""Events that every kernel counts, for machines that have no performance counter: page faults stand for
instructions, nanoseconds for cycles."""


class TestPerfCounter(_OnWorker):
    """With software events: how threads are found and followed is the same."""

    words = ("pages",)
    linear_within = 2e-3

    def counter(self) -> PerfCounter:
        return PerfCounter(SOFTWARE)

    def test_a_unit_is_an_event(self, counted: CountedProcess, process: OwnedProcess) -> None:
        self.window(counted, process, 1)
        assert self.window(counted, process, UNITS[0]) == pytest.approx(UNITS[0], abs=2)


class TestPerfProcess(TestPerfCounter):
    """In threads that are started, and have ended, after the process was attached."""

    words = ("threaded,pages",)

    def test_a_unit_is_an_event(self, counted: CountedProcess, process: OwnedProcess) -> None:
        self.window(counted, process, 1)
        assert self.window(counted, process, UNITS[0]) == pytest.approx(UNITS[0], abs=20)


class TestPerfCounterOfThePmu(_OnWorker):
    linear_within = 1e-3

    def counter(self) -> PerfCounter:
        if reason := perf_events.missing():
            pytest.skip(f"needs a machine that counts instructions: {reason}")
        return PerfCounter()


class TestPmuSampler(SamplerConformance):
    @pytest.fixture(autouse=True)
    def _worker(self, tmp_path: Path, program: Path) -> Iterator[None]:
        self.worker = Worker(program, tmp_path, "pages")
        with OwnedProcess(self.worker.plan) as self.process:
            self.worker.work(1, self.process.pid)
            yield
        self.worker.close()

    def make(self) -> Sampler:
        return PmuSampler({"none/a/node-1/proxy": self.process.pid}, SOFTWARE)

    def end_target(self) -> None:
        self.process.stop()

    def test_what_was_done_between_two_readings(self) -> None:
        with PmuSampler({"none/a/node-1/proxy": self.process.pid}, SOFTWARE) as sampler:
            assert sampler.counts
            before = {each.metric: each.value for each in sampler.sample(Moment.START)}
            self.worker.work(500, self.process.pid)
            after = {each.metric: each.value for each in sampler.sample(Moment.END)}
        assert set(before) == {"page_faults_total", "task_clock_ns_total"}
        assert after["page_faults_total"] - before["page_faults_total"] == pytest.approx(500, abs=2)
        assert after["task_clock_ns_total"] > before["task_clock_ns_total"]

    def test_where_there_is_no_counter_there_is_nothing_to_read(self) -> None:
        def refuse(kind: EventKind, thread: int) -> int:
            raise OSError(errno.ENOENT, "No such file or directory")

        with PmuSampler({"none/a/node-1/proxy": self.process.pid}, opening=refuse) as sampler:
            assert not sampler.counts
            assert sampler.sample(Moment.END) == []

    def test_of_a_process_that_has_ended_there_is_nothing_to_read(self) -> None:
        self.process.stop()
        with PmuSampler({"none/a/node-1/proxy": self.process.pid}, SOFTWARE) as sampler:
            assert not sampler.counts


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOENT, "has no performance counter"),
        (errno.EOPNOTSUPP, "has no performance counter"),
        (errno.EACCES, "kernel.perf_event_paranoid is "),
        (errno.ENOSYS, "perf_event_open: "),
    ],
)
def test_why_nothing_can_be_counted_is_said_in_words(code: int, words: str) -> None:
    def refuse(kind: EventKind, thread: int) -> int:
        raise OSError(code, os.strerror(code))

    assert words in perf_events.missing(opening=refuse)
    with pytest.raises(MeshwiseError) as caught:
        PerfCounter(opening=refuse)
    assert caught.value.code == "MW237"
    assert words in caught.value.what


def test_a_counter_that_was_shared_is_not_believed(tmp_path: Path, program: Path) -> None:
    """Its value is too small by an unknown part: the kernel tells for how long it really counted."""

    def sharing(kind: EventKind, thread: int) -> int:
        descriptor = os.memfd_create("event")
        os.write(descriptor, struct.pack("=QQQ", 100, 2000, 1000) * 2)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    worker = Worker(program, tmp_path)
    with OwnedProcess(worker.plan) as process, closing(worker):
        counted = PerfCounter(opening=sharing).attach(process, tmp_path)
        counted.begin()
        with pytest.raises(MeshwiseError, match="someone else's") as caught:
            counted.end()
        counted.close()
    assert caught.value.code == "MW236"


# --- what makes counts repeatable ------------------------------------------------------------------


def test_neither_the_directory_nor_the_user_moves_what_is_counted(
    tmp_path: Path, callgrind: CallgrindCounter
) -> None:
    """The environment has the same size wherever the files are; addresses are fixed; threads take turns;
    memory is not given back by the clock; the user's own options of valgrind are not read."""
    plan = LaunchPlan("one", ("/bin/true", "word"), {"PATH": "/bin"})
    plans = []
    for name in ("a", "a" * 200):
        (tmp_path / name).mkdir()
        plans.append(callgrind.start(plan, tmp_path / name))
    sizes = [sum(len(key) + len(value) for key, value in each.environment.items()) for each in plans]
    assert sizes[0] == sizes[1]
    for each in plans:
        assert each.fixed_addresses
        assert {"--fair-sched=yes", "--command-line-only=yes", "--vgdb=no"} <= set(each.argv)
        assert each.argv[-2:] == plan.argv
        assert each.environment["_RJEM_MALLOC_CONF"] == "dirty_decay_ms:-1,muzzy_decay_ms:-1"


def test_the_cpu_that_is_presented_is_told(callgrind: CallgrindCounter) -> None:
    told = callgrind.describe()["cpu"]
    assert told.endswith(", as valgrind presents it")
    assert callgrind.describe()["addresses"] == "fixed"
    if " avx2 " in Path("/proc/cpuinfo").read_text():
        assert told.startswith("Intel(R) Core(TM) i7-4910MQ")


def test_what_dense_arithmetic_takes_is_told(callgrind: CallgrindCounter) -> None:
    """Between what a CPU of 6 GHz does with 10 instructions at a time, and one of 1 GHz with one in two."""
    assert 0.015 < float(callgrind.describe()[ARITHMETIC]) < 2


def test_two_starts_in_different_places_count_the_same(
    tmp_path: Path, program: Path, callgrind: CallgrindCounter
) -> None:
    """To the instruction."""
    counts = []
    for name in ("a", "b" * 100):
        home = tmp_path / name
        (home / "counted").mkdir(parents=True)
        with (
            closing(Worker(program, home)) as worker,
            OwnedProcess(callgrind.start(worker.plan, home / "counted")) as process,
            closing(callgrind.attach(process, home / "counted")) as counted,
        ):
            for units in (1, UNITS[0]):
                counted.begin()
                worker.work(units, process.pid)
                count = counted.end()
            counts.append(count.instructions)
    assert counts[0] == counts[1]
