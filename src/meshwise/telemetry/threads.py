"""What the kernel knows of each thread of a process: CPU, waiting for a CPU, context switches.

/proc/PID/task/TID/schedstat: CPU time and time runnable without a CPU, in ns, and how often it got one
(Documentation/scheduler/sched-stats.rst). Read at the ends of a trial only, as it takes a file or two per
thread. Threads are told by name and number; one that starts and ends in between is missed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from meshwise.telemetry.labels import write_labels
from meshwise.telemetry.seam import Moment, Sample


class ThreadSampler:
    """Of one process."""

    def __init__(self, source: str, pid: int) -> None:
        self._source, self._tasks = source, Path(f"/proc/{pid}/task")

    @property
    def name(self) -> str:
        return f"threads:{self._source}"

    def sample(self, moment: Moment) -> Sequence[Sample]:
        """Nothing of a process that has ended, and nothing `DURING`."""
        if moment is Moment.DURING:
            return ()
        try:
            threads = os.listdir(self._tasks)  # noqa: PTH208
        except OSError:
            return ()
        found: list[Sample] = []
        for thread in threads:
            try:
                found += self._of(thread)
            except (OSError, ValueError):
                continue  # it has just ended, or the kernel keeps no such numbers
        return found

    def _of(self, thread: str) -> list[Sample]:
        path, now_ns = self._tasks / thread, time.monotonic_ns()
        ran_ns, waited_ns, _ = (path / "schedstat").read_text().split()
        status = dict(
            line.split(":", 1) for line in (path / "status").read_text().splitlines() if ":" in line
        )
        own = {"thread": status["Name"].strip(), "tid": thread}
        values = {
            ("thread_cpu_ns", write_labels(own)): float(ran_ns),
            ("thread_wait_ns", write_labels(own)): float(waited_ns),
        }
        for kind in ("voluntary", "nonvoluntary"):
            labels = write_labels({**own, "kind": kind.replace("nonvoluntary", "involuntary")})
            values["thread_switches_total", labels] = float(status[f"{kind}_ctxt_switches"])
        return [
            Sample(now_ns, self._source, metric, labels, value) for (metric, labels), value in values.items()
        ]
