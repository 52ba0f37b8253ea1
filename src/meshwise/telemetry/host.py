"""What else the machine was doing: CPU time by kind, steal, pressure, softirqs, load.

Steal is what the hypervisor took away; pressure (PSI, Documentation/accounting/psi.rst) is how long tasks
stood still for want of a resource; softirq time is where the kernel's network stack runs, which no process
is charged for by name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from meshwise.telemetry.labels import write_labels
from meshwise.telemetry.seam import Moment, Sample

SOURCE = "host"
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")

_Values = dict[tuple[str, str], float]
"""(metric, labels) -> value"""
_Parse = Callable[[str], _Values]


def parse_stat(text: str) -> _Values:
    """/proc/stat: CPU time of all CPUs by mode (in ticks), context switches, runnable tasks."""
    values: _Values = {}
    for line in text.splitlines():
        fields = line.split()
        if line.startswith("cpu "):
            for mode, ticks in zip(_MODES, fields[1:], strict=False):
                values["host_cpu_ns", write_labels({"mode": mode})] = float(int(ticks) * _TICK_NS)
        elif line.startswith("ctxt "):
            values["host_context_switches_total", ""] = float(fields[1])
        elif line.startswith("procs_running "):
            values["tasks_running", ""] = float(fields[1])
    return values


def parse_idle(text: str) -> _Values:
    """/proc/stat: time each CPU had nothing to do; with pinning only this tells how busy the pods are."""
    values: _Values = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 5 and line.startswith("cpu") and (number := fields[0][3:]).isdigit():
            idle_ticks = int(fields[4]) + int(fields[5])
            values["cpu_idle_ns", write_labels({"cpu": number})] = float(idle_ticks * _TICK_NS)
    return values


def parse_pressure(resource: str, text: str) -> _Values:
    """/proc/pressure/RESOURCE: time stood still since boot; the kernel's running averages are left out."""
    values: _Values = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        total_us = dict(pair.split("=") for pair in pairs)["total"]
        values["pressure_stall_ns", write_labels({"resource": resource, "kind": kind})] = (
            float(total_us) * 1e3
        )
    return values


def parse_softirqs(text: str) -> _Values:
    """/proc/softirqs, summed over CPUs."""
    values: _Values = {}
    for line in text.splitlines()[1:]:
        kind, _, counts = line.partition(":")
        label = write_labels({"kind": kind.strip()})
        values["softirqs_total", label] = float(sum(map(int, counts.split())))
    return values


def parse_loadavg(text: str) -> _Values:
    return {("load_1m", ""): float(text.split()[0])}


def parse_meminfo(text: str) -> _Values:
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return {("memory_available_bytes", ""): float(int(line.split()[1]) * 1024)}
    return {}


class HostSampler:
    """Reads /proc (or another directory, for tests)."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc

    @property
    def name(self) -> str:
        return SOURCE

    def sample(self, moment: Moment) -> Sequence[Sample]:
        """`DURING`: load and pressure; each CPU, softirqs and memory at the ends. What a kernel lacks is left
        out."""
        t_ns = time.monotonic_ns()
        values: _Values = self._read("stat", parse_stat)
        for resource in ("cpu", "memory", "io"):
            values |= self._read(f"pressure/{resource}", partial(parse_pressure, resource))
        if moment is not Moment.DURING:
            values |= self._read("stat", parse_idle)
            values |= self._read("softirqs", parse_softirqs)
            values |= self._read("loadavg", parse_loadavg)
            values |= self._read("meminfo", parse_meminfo)
        return [Sample(t_ns, SOURCE, metric, labels, value) for (metric, labels), value in values.items()]

    def _read(self, name: str, parse: _Parse) -> _Values:
        try:
            return parse((self._proc / name).read_text())
        except OSError:
            return {}  # pressure needs CONFIG_PSI, and can be switched off
