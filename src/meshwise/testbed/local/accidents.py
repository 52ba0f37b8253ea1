"""What is done to a trial while it runs: processes that are killed and started again.

The one that watches the trial does it, in its own thread, because what a thread started ends with it
(`core.process`); while a process starts the others are not watched, for about a second.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from meshwise.core.process import OwnedProcess

SCHEMA = pa.schema(
    [
        ("t_ns", pa.int64()),
        ("kind", pa.string()),
        ("target", pa.string()),
        ("duration_ns", pa.int64()),
        ("detail", pa.string()),
    ]
)
RESTART = "restart"


@dataclass
class Accidents:
    """A restart of one target after the other, `every_ns` from the trial's time 0 on."""

    every_ns: int
    targets: Sequence[str]
    """Names of processes, in order; after the last comes the first."""
    start_again: Callable[[OwnedProcess], OwnedProcess]
    """Kills one and returns its successor, ready. Raises MeshwiseError."""
    _done: list[tuple[int, str, str, int, str]] = field(default_factory=list)

    def due_ns(self, zero_ns: int) -> int:
        """When the next one is due."""
        return zero_ns + (len(self._done) + 1) * self.every_ns

    def happen(self, zero_ns: int, running: list[OwnedProcess]) -> None:
        """The next one, now. Its successor takes its place in `running`."""
        name = self.targets[len(self._done) % len(self.targets)]
        process = next(each for each in running if each.name == name)
        begun_ns, former = time.monotonic_ns(), process.pid
        again = self.start_again(process)
        running[running.index(process)] = again
        detail = json.dumps({"signal": "SIGKILL", "former_pid": former, "pid": again.pid})
        took_ns = time.monotonic_ns() - begun_ns
        self._done.append((begun_ns - zero_ns, RESTART, name, took_ns, detail))

    def events(self) -> pa.Table:
        """What was done, as the archive keeps it."""
        return pa.Table.from_pylist(
            [dict(zip(SCHEMA.names, row, strict=True)) for row in self._done], schema=SCHEMA
        )
