"""Counters against the contract of the seam."""

from __future__ import annotations

from tests.support.counter_conformance import CounterConformance

from meshwise.telemetry.counting.fake import FakeCounter, difference
from meshwise.telemetry.counting.seam import Count, Function


class TestFakeCounter(CounterConformance):
    def counter(self) -> FakeCounter:
        self.done = 0
        return FakeCounter(lambda name: Count(100 * self.done, None, {"read": self.done}))

    def work(self, units: int) -> None:
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
