"""A compiled program that does known work on demand (worker.c), for tests of counters."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from meshwise.core.process import LaunchPlan

SOURCE = Path(__file__).with_name("worker.c")
NAME = "none/a/node-1/proxy"
UNITS_PER_CALL = 100


def compile_worker(directory: Path, *flags: str) -> Path:
    """Skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: apt-get install gcc libc6-dev")
    made = directory / "worker"
    subprocess.run([compiler, "-O1", *flags, "-o", made, SOURCE, "-lpthread"], check=True)
    return made


class Worker:
    """The two FIFOs through which a worker is told what to do."""

    def __init__(self, program: Path, directory: Path, *words: str) -> None:
        self._paths = (directory / "wanted", directory / "done")
        for path in self._paths:
            os.mkfifo(path)
        self._wanted, self._done = (os.open(path, os.O_RDWR) for path in self._paths)
        self.plan = LaunchPlan(
            NAME,
            (str(program), *map(str, self._paths), *words),
            {"PATH": os.environ["PATH"]},
            directory / "worker.log",
        )

    def work(self, units: int, pid: int) -> None:
        """Returns when the units are done and the worker sleeps in its read again."""
        os.write(self._wanted, units.to_bytes(8, "little"))
        assert os.read(self._done, 8) == units.to_bytes(8, "little")
        while not self._reads(pid):
            time.sleep(0.001)

    def _reads(self, pid: int) -> bool:
        """Whether the main thread waits in read(2) on its FIFO (proc(5), /proc/PID/syscall)."""
        words = Path(f"/proc/{pid}/syscall").read_text().split()
        if len(words) < 2 or words[0] != "0":
            return False
        descriptor = Path(f"/proc/{pid}/fd/{int(words[1], 16)}")
        return descriptor.readlink() == self._paths[0]

    def close(self) -> None:
        os.close(self._wanted)
        os.close(self._done)
