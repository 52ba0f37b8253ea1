"""Where a run writes: files with names in a directory, or files without a name.

A file without a name (memfd_create(2)) lives in memory as long as a process holds it, so a run that is
killed in any way leaves nothing. Its owner passes the descriptor to the processes that write or read it; for
them it is a path below /proc/self/fd, which every function that takes a path can open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from meshwise.core.memory import available_bytes

_DESCRIPTORS = Path("/proc/self/fd")


@dataclass(frozen=True)
class RunFiles:
    """What one run writes: a records file for each of its processes, and the report."""

    records: tuple[Path, ...]
    report: Path

    @classmethod
    def of(cls, directory: Path, processes: int) -> RunFiles:
        """`records`, `records.1`, ... and `report.json` in a directory."""
        further = tuple(directory / f"records.{index}" for index in range(1, processes))
        return cls((directory / "records", *further), directory / "report.json")

    @classmethod
    def of_each(cls, directory: Path, targets: int, processes: int) -> list[RunFiles]:
        """Of several targets each has a directory in it: `0`, `1`, ..."""
        if targets == 1:
            return [cls.of(directory, processes)]
        return [cls.of(directory / str(number), processes) for number in range(targets)]

    @classmethod
    def of_paths(cls, records: Sequence[Path], reports: Sequence[Path]) -> list[RunFiles]:
        """A report of each target, and its records: as many for each."""
        each = len(records) // max(len(reports), 1)
        return [cls(tuple(records[each * n : each * (n + 1)]), path) for n, path in enumerate(reports)]

    def write_report(self, text: str) -> None:
        """Whole or not at all where it has a name; without one its reader waits for the end of the writer."""
        if descriptor_of(self.report) is not None:
            self.report.write_text(text)
            return
        aside = self.report.with_name(self.report.name + ".new")
        aside.write_text(text)
        aside.replace(self.report)


@contextmanager
def nameless(*purposes: str) -> Iterator[list[Path]]:
    """An empty file for each purpose (the word is shown in /proc). Raises OSError."""
    with ExitStack() as stack:
        paths = []
        for purpose in purposes:
            descriptor = os.memfd_create(f"meshwise-{purpose}")
            stack.callback(os.close, descriptor)
            paths.append(_DESCRIPTORS / str(descriptor))
        yield paths


def descriptor_of(path: Path) -> int | None:
    """What must be passed on for another process to open `path`; None for a file with a name."""
    return int(path.name) if path.parent == _DESCRIPTORS else None


def free_bytes(path: Path) -> int:
    """Room where `path` is or is to be: on its file system, or in memory."""
    if descriptor_of(path) is not None:
        return available_bytes()
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize
