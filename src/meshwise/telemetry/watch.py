"""Notices while a trial runs that something changes: the CPU that a process uses, or how long answers take.

Rules of this file:
- It costs microseconds: CPU clocks have been read anyway; of the requests only those are looked at that were
  answered since the last time.
- What it notices decides how often telemetry is kept, and nothing else: no number of a trial is made here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from meshwise.load.records import open_columns, record_paths
from meshwise.stats.change import Cusum
from meshwise.telemetry.seam import Sample

BIN_NS = 50 * 10**6
"""Over which CPU and answers are averaged."""
_ROWS = 1 << 14
"""Looked at in one bin: at most so many requests are under way, or were answered in it."""


class ChangeWatch:
    """Sees CPU clocks and response times; says when one of them changes."""

    def __init__(self, response_us: Callable[[], float | None] | None = None) -> None:
        """`response_us`: of what was answered since it was last asked; None: nothing was."""
        self._response_us = response_us
        self._begun: dict[str, Sample] = {}
        self._levels: dict[str, Cusum] = {}

    def see(self, now_ns: int, samples: Sequence[Sample]) -> bool:
        clocks = {sample.source: sample for sample in samples if sample.metric == "cpu_ns"}
        if not self._begun:
            self._begun = clocks
            return False
        if now_ns - min(sample.t_ns for sample in self._begun.values()) < BIN_NS:
            return False
        values = {
            source: (now.value - then.value) / (now.t_ns - then.t_ns)
            for source, now in clocks.items()
            if (then := self._begun.get(source)) and now.t_ns > then.t_ns and now.value >= then.value
        }
        if self._response_us is not None and (taken_us := self._response_us()):
            values["response"] = math.log(taken_us)
        self._begun = clocks
        changed = [self._levels.setdefault(name, Cusum()).see(value) for name, value in values.items()]
        return any(changed)


class LiveResponses:
    """Reads an instrument's records while it writes them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._first: dict[Path, int] = {}
        """Row before which all have ended, by file."""
        self._asked_ns = 0

    def __call__(self) -> float | None:
        """Mean response time in us of what was answered since the last call; at least as long as the oldest
        request waits that has no answer. None if there is neither. Raises MW311, MW312 without records."""
        taken: list[np.ndarray] = []
        oldest_ns, newest_ns = 0, self._asked_ns
        for path in record_paths(self._directory):
            columns = open_columns(path)
            first = self._first.get(path, 0)
            rows = slice(first, first + _ROWS)
            intended, sent, done = columns.intended[rows], columns.sent[rows], columns.done[rows]
            ended = (done != 0) | (columns.outcome[rows] != 0)
            fresh = done > self._asked_ns
            taken.append((done - intended)[fresh])
            newest_ns = max(newest_ns, int(done.max(initial=0)))
            waiting = np.flatnonzero(~ended)
            self._first[path] = first + (int(waiting[0]) if waiting.size else len(ended))
            open_sent = (sent > 0) & ~ended
            if open_sent.any():
                oldest_ns = max(oldest_ns, newest_ns - int(intended[open_sent].min()))
        self._asked_ns = newest_ns
        times = np.concatenate(taken) if taken else np.empty(0)
        mean_ns = float(times.mean()) if times.size else 0.0
        return max(mean_ns, float(oldest_ns)) / 1e3 or None
