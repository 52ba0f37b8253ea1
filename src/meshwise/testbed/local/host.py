"""What can be known about this machine, read from /proc and /sys; None where the kernel does not say.

Used twice: `environment.json` of every archive, and `meshwise doctor`. Paths are under `root`, so that tests
can lay out a machine of their own.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from meshwise.telemetry.counting import perf_events

_ROOT = Path("/")


@dataclass(frozen=True)
class CpuTime:
    """Jiffies since boot over all CPUs, from the first line of /proc/stat."""

    busy: int
    idle: int
    stolen: int

    def since(self, former: CpuTime) -> tuple[float, float]:
        """(busy share, stolen share) of the time between two readings; zeros if there was none."""
        busy, idle, stolen = (
            self.busy - former.busy,
            self.idle - former.idle,
            self.stolen - former.stolen,
        )
        total = busy + idle + stolen
        return (busy / total, stolen / total) if total > 0 else (0.0, 0.0)


def cpu_time(root: Path = _ROOT) -> CpuTime:
    """user nice system idle iowait irq softirq steal (proc(5)); guest time is contained in user."""
    first = (root / "proc/stat").read_text().splitlines()[0]
    user, nice, system, idle, iowait, irq, softirq, steal = (int(word) for word in first.split()[1:9])
    return CpuTime(user + nice + system + irq + softirq, idle + iowait, steal)


def load_over(interval_s: float, root: Path = _ROOT) -> tuple[float, float]:
    """Watch the machine for a moment: (busy share, stolen share)."""
    before = cpu_time(root)
    time.sleep(interval_s)
    return cpu_time(root).since(before)


def cpu_model(root: Path = _ROOT) -> str | None:
    for line in (root / "proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model\t")):
            return line.partition(":")[2].strip()
    return None


def governor(root: Path = _ROOT) -> str | None:
    """None: the machine (as most virtual ones) does not let its guest choose."""
    return _word(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def clock_source(root: Path = _ROOT) -> str | None:
    return _word(root / "sys/devices/system/clocksource/clocksource0/current_clocksource")


def hypervisor(root: Path = _ROOT) -> bool:
    """Whether the CPU says that it is a guest's."""
    for line in (root / "proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return "hypervisor" in line.split()
    return False


def smt_active(root: Path = _ROOT) -> bool | None:
    word = _word(root / "sys/devices/system/cpu/smt/active")
    return None if word is None else word == "1"


def pressure(root: Path = _ROOT) -> float | None:
    """Share of the last 10 s in which some task waited for a CPU; None without PSI."""
    text = _word(root / "proc/pressure/cpu")
    if text is None or not text.startswith("some "):
        return None
    return float(text.split()[1].removeprefix("avg10=")) / 100


def memory_bytes(key: str, root: Path = _ROOT) -> int:
    """`MemTotal` or `MemAvailable` of /proc/meminfo."""
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            return int(rest.split()[0]) * 1024
    raise KeyError(key)


def free_bytes(path: Path) -> int:
    """Space that this user may fill on the file system of `path`, or of its nearest existing parent."""
    while not path.exists():
        path = path.parent
    fs = os.statvfs(path)
    return fs.f_bavail * fs.f_frsize


def clock_cost_ns(readings: int = 2000) -> float:
    """What one reading of the clock costs: tens of nanoseconds, or a system call when the source is slow."""
    begun = time.perf_counter_ns()
    for _ in range(readings):
        time.monotonic_ns()
    return (time.perf_counter_ns() - begun) / readings


def facts(root: Path = _ROOT) -> dict[str, object]:
    """The machine's part of `environment.json`."""
    return {
        "hostname": platform.node(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu_model": cpu_model(root),
        "cpus": len(os.sched_getaffinity(0)),
        "smt": smt_active(root),
        "virtual": hypervisor(root),
        "governor": governor(root),
        "clock_source": clock_source(root),
        "memory_bytes": memory_bytes("MemTotal", root),
        "load_average": list(os.getloadavg()),
        "cpu_pressure": pressure(root),
        "performance_counter": perf_events.missing() or "instructions and cycles of every process",
        "open_files_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    }


def _word(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
