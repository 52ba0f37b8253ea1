"""The contract of `Counter` and `CountedProcess`, to be run on every implementation.

class TestMyCounter(CounterConformance):
    def counter(self) -> Counter: ...
    def work(self, units: int, process: OwnedProcess) -> None: ...   # does equal units, and is idle again

The process is `plan`'s; one that really works is in tests/support/worker.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshwise.core.errors import MeshwiseError
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.telemetry.counting.seam import CountedProcess, Counter

UNITS = (1000, 2000, 4000)


class CounterConformance:
    linear_within = 0.0
    """Twice the work is twice the count, and the same work the same count, but for this share."""

    def counter(self) -> Counter:
        raise NotImplementedError

    def work(self, units: int, process: OwnedProcess) -> None:
        raise NotImplementedError

    def plan(self, directory: Path) -> LaunchPlan:
        program = "import time; time.sleep(3600)"
        return LaunchPlan("none/a/node-1/proxy", (sys.executable, "-c", program), dict(os.environ))

    @pytest.fixture
    def process(self, tmp_path: Path) -> Iterator[OwnedProcess]:
        (tmp_path / "counted").mkdir()
        self.counting = self.counter()
        plan = self.counting.start(self.plan(tmp_path), tmp_path / "counted")
        with OwnedProcess(plan) as running:
            yield running

    @pytest.fixture
    def counted(self, process: OwnedProcess, tmp_path: Path) -> Iterator[CountedProcess]:
        made = self.counting.attach(process, tmp_path / "counted")
        yield made
        made.close()

    def window(self, counted: CountedProcess, process: OwnedProcess, units: int) -> int:
        counted.begin()
        self.work(units, process)
        return counted.end().instructions

    def test_same_work_same_count_and_twice_the_work_twice_the_count(
        self, counted: CountedProcess, process: OwnedProcess
    ) -> None:
        self.window(counted, process, 1)  # what is done once only: pages, symbols looked up
        one, two, four, again = (self.window(counted, process, units) for units in (*UNITS, UNITS[0]))
        assert 0 < one < two < four
        assert four - two == pytest.approx(2 * (two - one), rel=self.linear_within)
        assert again == pytest.approx(one, rel=self.linear_within)

    def test_what_is_done_between_windows_does_not_count(
        self, counted: CountedProcess, process: OwnedProcess
    ) -> None:
        self.window(counted, process, 1)
        first = self.window(counted, process, UNITS[0])
        self.work(10 * UNITS[0], process)
        assert self.window(counted, process, UNITS[0]) == pytest.approx(first, rel=0.01)

    def test_windows_after_a_pause_count_as_before_it(
        self, counted: CountedProcess, process: OwnedProcess
    ) -> None:
        self.window(counted, process, 1)
        first = self.window(counted, process, UNITS[0])
        counted.pause()
        self.work(UNITS[1], process)
        assert self.window(counted, process, UNITS[0]) == pytest.approx(first, rel=0.01)

    def test_a_window_without_work_is_shorter_than_any_with(
        self, counted: CountedProcess, process: OwnedProcess
    ) -> None:
        worked = self.window(counted, process, UNITS[0])
        counted.begin()
        assert 0 <= counted.end().instructions < worked / 10

    def test_functions_add_up_and_system_calls_are_named(
        self, counted: CountedProcess, process: OwnedProcess
    ) -> None:
        counted.begin()
        self.work(UNITS[0], process)
        count = counted.end()
        assert all(name and number > 0 for name, number in count.system_calls.items())
        assert all(number > 0 for number in count.functions.values())
        if count.functions:
            assert sum(count.functions.values()) == count.instructions
        assert count.cycles is None or count.cycles > 0

    def test_a_process_that_ended_is_said_to_have_ended(
        self, counted: CountedProcess, process: OwnedProcess
    ) -> None:
        counted.begin()
        process.stop()
        with pytest.raises(MeshwiseError) as caught:
            counted.end()
        assert caught.value.code == "MW235"
        assert process.name in caught.value.what

    def test_a_window_that_has_not_begun_does_not_end(
        self, counted: CountedProcess, process: OwnedProcess
    ) -> None:
        with pytest.raises(ValueError, match="has not begun"):
            counted.end()
        self.window(counted, process, 1)
        with pytest.raises(ValueError, match="has not begun"):
            counted.end()

    def test_letting_go_in_a_window_leaves_the_process_as_it_is(
        self, counted: CountedProcess, process: OwnedProcess, tmp_path: Path
    ) -> None:
        counted.begin()
        counted.close()
        assert process.running
        assert state(process.pid) in "SR"
        again = self.counting.attach(process, tmp_path / "counted")
        assert self.window(again, process, UNITS[0]) > 0
        again.close()

    def test_it_says_what_it_is(self) -> None:
        counter = self.counter()
        assert counter.name == counter.name.strip() != ""
        assert counter.slowness >= 1
        assert {"tool", "version", "counts", "cpu"} <= set(counter.describe())
        assert all(counter.describe().values())


def state(pid: int) -> str:
    """R, S, D, T (stopped), t (traced), Z: proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
