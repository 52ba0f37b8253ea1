"""A trial that profilers look at: what they saw, as the archive's table, and what they could not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import pyarrow as pa

from meshwise.core.modes import PRIVATE_DIRECTORY, make_directory
from meshwise.findings.flag import NOT_PROFILED
from meshwise.study.model import Role, Trial
from meshwise.telemetry.profiling import HERTZ, Profile, profiling
from meshwise.testbed.seam import Measurement


@dataclass
class Profilers:
    """Of the trials that are measured together; those that are not to be profiled are let alone."""

    directory: Path
    """For their files."""
    wanted: bool
    _found: Profile = field(default_factory=Profile)

    @classmethod
    def of(cls, trials: Sequence[Trial], directory: Path) -> Self:
        return cls(directory / "profile", trials[0].role is Role.PROFILE)

    @contextmanager
    def looking(self, processes: Mapping[str, int]) -> Iterator[None]:
        """Look at these (source -> pid) while the block runs."""
        if not self.wanted:
            yield
            return
        make_directory(self.directory, PRIVATE_DIRECTORY)
        python = [source for source, pid in processes.items() if _is_python(pid)]
        with profiling(processes, python, self.directory) as self._found:
            yield

    def told(self, measured: Mapping[str, Measurement]) -> Mapping[str, Measurement]:
        """With what was seen, and a flag for each profiler that saw nothing."""
        if not self.wanted:
            return measured
        stacks = self._found.stacks
        table = pa.table(
            {
                "source": [each.source for each in stacks],
                "tool": [each.tool for each in stacks],
                "hertz": pa.array([HERTZ[each.tool] for each in stacks], pa.int64()),
                "thread": [each.thread for each in stacks],
                "stack": [";".join(each.frames) for each in stacks],
                "samples": pa.array([each.samples for each in stacks], pa.int64()),
            }
        )
        flags = [str(NOT_PROFILED(tool=tool, why=why)) for tool, why in self._found.missing.items()]
        return {
            name: replace(each, profiles=table, flags=(*each.flags, *flags))
            for name, each in measured.items()
        }


def _is_python(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.startswith("python")
    except OSError:
        return False  # it has ended, or is another user's
