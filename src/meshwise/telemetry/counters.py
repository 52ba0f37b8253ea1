"""Which metrics only ever count up, and what it means when one does not.

A counter starts again at zero when its process does. The difference of two readings across that point is
no measurement; it must be seen, not turn into a negative rate. `CounterWatch` sees it while recording;
`change` refuses it when reading.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshwise.telemetry.labels import write_labels
from meshwise.telemetry.seam import Sample

_CUMULATIVE = frozenset(
    {
        "cpu_ns",
        "cpu_user_ns",
        "cpu_system_ns",
        "host_cpu_ns",
        "pressure_stall_ns",
        "thread_cpu_ns",
        "thread_wait_ns",
    }
)

RESET_METRIC = "counter_reset"
RESET_SOURCE = "telemetry"


def is_counter(metric: str) -> bool:
    return metric.endswith("_total") or metric in _CUMULATIVE


def change(before: float, after: float) -> float | None:
    """What a counter counted between two readings, or None when it was reset in between."""
    return after - before if after >= before else None


class CounterWatch:
    """Sees readings in order, and says which counters have fallen."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str, str], float] = {}

    def resets(self, samples: Iterable[Sample]) -> list[Sample]:
        """One sample (value 1) per counter that is lower than when it was last read."""
        found = []
        for sample in samples:
            if not is_counter(sample.metric):
                continue
            key = (sample.source, sample.metric, sample.labels)
            if sample.value < self._last.get(key, sample.value):
                labels = write_labels({"source": sample.source, "metric": sample.metric, "of": sample.labels})
                found.append(Sample(sample.t_ns, RESET_SOURCE, RESET_METRIC, labels, 1.0))
            self._last[key] = sample.value
        return found
