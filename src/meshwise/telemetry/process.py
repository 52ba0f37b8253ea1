"""What the kernel knows of one process: CPU, memory, context switches, network.

Rules of this file:
- CPU comes from the process CPU clock: nanoseconds, all threads, ended ones included (clock_getcpuclockid's
  clock id, `(~pid << 3) | 2`; linux/include/linux/posix-timers.h). It costs a microsecond to read, so it is
  a sampler of its own that is read at the exact moments a trial begins and ends.
- A pid can be given to another process; its start time (field 22 of /proc/PID/stat) tells them apart.
- A process that has ended is said to have ended (`alive` 0); nothing else is claimed of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from meshwise.telemetry.labels import write_labels
from meshwise.telemetry.seam import Moment, Sample

_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_ns(pid: int) -> int:
    """CPU time of a process so far. Raises OSError when there is no such process."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def start_ticks(pid: int) -> int:
    """When it was started, in clock ticks since boot. Raises OSError when there is no such process."""
    return int(_stat_fields(pid)[19])


def _stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat behind the command's name (which may contain anything): field 3, `state`, is [0]."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError as error:
        raise FileNotFoundError(error.errno, f"process {pid} has ended") from error
    return text.rpartition(")")[2].split()


class CpuSampler:
    """The exact reading: `cpu_ns` of several processes within microseconds of each other, nothing else."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        """`processes`: source -> pid. Raises OSError when one does not exist."""
        self._clocks = [(source, pid, (~pid << 3) | 2) for source, pid in processes.items()]
        self._started = {source: start_ticks(pid) for source, pid in processes.items()}

    @property
    def name(self) -> str:
        return "cpu"

    def sample(self, moment: Moment) -> Sequence[Sample]:
        """A process that has ended is left out."""
        read, now = time.clock_gettime_ns, time.monotonic_ns
        samples: list[tuple[int, Sample]] = []
        for source, pid, clock in self._clocks:
            try:
                value = float(read(clock))
            except OSError:
                continue
            samples.append((pid, Sample(now(), source, "cpu_ns", "", value)))
        if moment is Moment.DURING:
            return [sample for _, sample in samples]
        return [sample for pid, sample in samples if self._is_the_same(pid, sample.source)]

    def _is_the_same(self, pid: int, source: str) -> bool:
        """Looked up after all clocks were read, as it takes a hundred times as long."""
        try:
            return start_ticks(pid) == self._started[source]
        except OSError:
            return False


class ProcessSampler:
    """The rest: memory, context switches, threads, network, and CPU by user and system."""

    def __init__(self, source: str, pid: int) -> None:
        """Raises OSError when there is no such process."""
        self._source = source
        self._pid = pid
        self._started = start_ticks(pid)
        self._switches: dict[int, tuple[int, int]] = {}
        """Last seen per thread, so that a thread that ends takes nothing away from the sum."""

    @property
    def name(self) -> str:
        return f"process:{self._source}"

    def sample(self, moment: Moment) -> Sequence[Sample]:
        """`DURING`: one read of /proc/PID/stat. PSS, which walks the page tables, at the ends only."""
        t_ns = time.monotonic_ns()
        try:
            fields = _stat_fields(self._pid)
            alive = int(fields[19]) == self._started and fields[0] not in "ZX"
        except OSError:
            alive = False
        if not alive:
            return (Sample(t_ns, self._source, "alive", "", 0.0),)
        values: dict[tuple[str, str], float] = {
            ("alive", ""): 1.0,
            ("cpu_user_ns", ""): float(int(fields[11]) * _TICK_NS),
            ("cpu_system_ns", ""): float(int(fields[12]) * _TICK_NS),
            ("threads", ""): float(fields[17]),
            ("rss_bytes", ""): float(int(fields[21]) * _PAGE_BYTES),
        }
        if moment is not Moment.DURING:
            for read in (self._memory, self._context_switches, self._network):
                try:
                    values |= read()
                except OSError:
                    continue  # it ended, or the kernel does not show it: what can be read is recorded
        return [
            Sample(t_ns, self._source, metric, labels, value) for (metric, labels), value in values.items()
        ]

    def _memory(self) -> dict[tuple[str, str], float]:
        wanted = {b"Pss": "pss_bytes", b"Rss": "rss_bytes"}
        values: dict[tuple[str, str], float] = {}
        for line in Path(f"/proc/{self._pid}/smaps_rollup").read_bytes().splitlines():
            name, _, rest = line.partition(b":")
            if name in wanted:
                values[wanted[name], ""] = float(int(rest.split()[0]) * 1024)
        return values

    def _context_switches(self) -> dict[tuple[str, str], float]:
        """Of the threads that were ever seen; one that started and ended between two readings is missed."""
        for thread in os.listdir(f"/proc/{self._pid}/task"):  # noqa: PTH208
            try:
                self._switches[int(thread)] = _switches(self._pid, thread)
            except OSError:
                continue  # the thread has just ended
        voluntary = sum(pair[0] for pair in self._switches.values())
        involuntary = sum(pair[1] for pair in self._switches.values())
        return {
            ("context_switches_total", write_labels({"kind": "voluntary"})): float(voluntary),
            ("context_switches_total", write_labels({"kind": "involuntary"})): float(involuntary),
        }

    def _network(self) -> dict[tuple[str, str], float]:
        """Of the whole network namespace in which the process lives."""
        values: dict[tuple[str, str], float] = {}
        for line in Path(f"/proc/{self._pid}/net/dev").read_text().splitlines()[2:]:
            interface, _, rest = line.partition(":")
            fields = rest.split()
            label = write_labels({"interface": interface.strip()})
            names = {"net_received_bytes_total": 0, "net_received_packets_total": 1,
                     "net_sent_bytes_total": 8, "net_sent_packets_total": 9}  # fmt: skip
            if any(int(fields[index]) for index in names.values()):
                values |= {(metric, label): float(fields[index]) for metric, index in names.items()}
        return values


def _switches(pid: int, thread: str) -> tuple[int, int]:
    status = Path(f"/proc/{pid}/task/{thread}/status").read_bytes()
    at = status.index(b"voluntary_ctxt_switches:")
    numbers = [int(line.rpartition(b":")[2]) for line in status[at:].splitlines()[:2]]
    return numbers[0], numbers[1]


class TreeCpuSampler:
    """`cpu_ns` of a process and all its descendants as one source: a server that forks for its clients.

    A child that has ended counts as its parent waited for it, in clock ticks; a living one to the nanosecond.
    """

    def __init__(self, source: str, pid: int) -> None:
        """Raises OSError when there is no such process."""
        self._source = source
        self._pid = pid
        self._started = start_ticks(pid)

    @property
    def name(self) -> str:
        return f"cpu:{self._source}"

    def sample(self, moment: Moment) -> Sequence[Sample]:
        """Empty when the process has ended."""
        t_ns = time.monotonic_ns()
        try:
            if start_ticks(self._pid) != self._started:
                return ()
            value = self._with_children(self._pid)
        except OSError:
            return ()
        return (Sample(t_ns, self._source, "cpu_ns", "", float(value)),)

    def _with_children(self, pid: int) -> int:
        fields = _stat_fields(pid)
        total = cpu_ns(pid) + (int(fields[13]) + int(fields[14])) * _TICK_NS
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                try:
                    total += self._with_children(int(child))
                except OSError:
                    continue  # it has just ended: the parent will have its time at the next reading
        return total
