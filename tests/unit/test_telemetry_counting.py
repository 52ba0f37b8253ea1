"""Counters against the contract of the seam."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.counter_conformance import UNITS, CounterConformance
from tests.support.worker import UNITS_PER_CALL, Worker, compile_worker

from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import USUAL
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.telemetry.counting import valgrind
from meshwise.telemetry.counting.callgrind import CallgrindCounter
from meshwise.telemetry.counting.fake import FakeCounter, difference
from meshwise.telemetry.counting.seam import Count, CountedProcess, Function


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
