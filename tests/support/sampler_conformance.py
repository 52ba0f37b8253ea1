"""The contract of `Sampler`, to be run on every implementation and on a fake.

class TestMySampler(SamplerConformance):
    def make(self) -> Sampler: ...          # of a target that lives
    def end_target(self) -> None: ...       # the target is gone from now on
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import pytest

from meshwise.telemetry.counters import is_counter
from meshwise.telemetry.labels import read_labels, write_labels
from meshwise.telemetry.seam import Moment, Sample, Sampler

BUDGET_NS = 50_000_000
_UNITS = ("_ns", "_bytes", "_total", "_s", "_1m")
_COUNTS = frozenset(
    {"alive", "reachable", "threads", "workers", "tasks_running", "downstream_connections",
     "downstream_requests", "upstream_connections", "upstream_requests", "depth"}
)  # fmt: skip
"""Metrics that are numbers of things at a moment, and so have no unit."""


class SamplerConformance:
    """Subclass it; `make` is called once per test."""

    def make(self) -> Sampler:
        raise NotImplementedError

    def end_target(self) -> None:
        raise NotImplementedError

    @pytest.fixture
    def sampler(self) -> Sampler:
        return self.make()

    @pytest.mark.parametrize("moment", list(Moment))
    def test_samples_are_well_formed(self, sampler: Sampler, moment: Moment) -> None:
        before_ns = time.monotonic_ns()
        samples = sampler.sample(moment)
        after_ns = time.monotonic_ns()
        for sample in samples:
            assert before_ns <= sample.t_ns <= after_ns, sample
            assert sample.source
            assert sample.metric.endswith(_UNITS) or sample.metric in _COUNTS, sample
            assert math.isfinite(sample.value)
            assert sample.value >= 0
            assert write_labels(read_labels(sample.labels)) == sample.labels
        keys = [(sample.source, sample.metric, sample.labels) for sample in samples]
        assert len(keys) == len(set(keys))

    def test_start_and_end_read_the_same(self, sampler: Sampler) -> None:
        start, end = sampler.sample(Moment.START), sampler.sample(Moment.END)
        assert _keys(start)
        assert _keys(start) <= _keys(end)
        assert _keys(sampler.sample(Moment.DURING)) <= _keys(end)

    def test_counters_never_fall_while_the_target_lives(self, sampler: Sampler) -> None:
        last: dict[tuple[str, str, str], float] = {}
        for moment in (Moment.START, Moment.DURING, Moment.DURING, Moment.END):
            for sample in sampler.sample(moment):
                if is_counter(sample.metric):
                    key = (sample.source, sample.metric, sample.labels)
                    assert sample.value >= last.get(key, 0.0), sample
                    last[key] = sample.value

    def test_it_costs_little(self, sampler: Sampler) -> None:
        sampler.sample(Moment.START)  # what is made once is made now
        costs = []
        for _ in range(5):
            begun_ns = time.thread_time_ns()
            sampler.sample(Moment.END)
            costs.append(time.thread_time_ns() - begun_ns)
        assert min(costs) < BUDGET_NS

    def test_a_target_that_has_ended_is_no_error(self, sampler: Sampler) -> None:
        living = sampler.sample(Moment.START)
        self.end_target()
        for moment in Moment:
            for sample in sampler.sample(moment):
                assert sample.source in {one.source for one in living}
                if sample.metric in ("alive", "reachable"):
                    assert sample.value == 0.0

    def test_it_has_a_name(self, sampler: Sampler) -> None:
        assert sampler.name
        assert sampler.name == sampler.name.strip()


def _keys(samples: Sequence[Sample]) -> set[tuple[str, str, str]]:
    return {(sample.source, sample.metric, sample.labels) for sample in samples}
