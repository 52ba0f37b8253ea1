"""What limited a system that broke: the sidecars, the services, the CPUs that they share, the instrument, the
host; or nothing that was looked at, and then it says so. Pure.

Rules of this file:
- It looks at trials that broke: at the lowest rate that broke, and where they do not tell, at the higher ones
  up to CLEAR times it, where whatever limits is at its limit for certain.
- A process limits when it uses NEAR of what it can: a sidecar as many CPUs as it has workers, a service one
  (each is one event loop, `service/loop.py`), and neither more than the pods' CPUs.
- Else the pods' CPUs limit when they are NEAR used up, and then the role that used more than half of
  what the study used of them. With pinning these are theirs alone; without it the instrument shares them.
- Else the host limits when tasks stood still for memory or disk for STALLED of the time.
- Else it is not CPU (a lock, a pool of connections, waiting) and stays unattributed.
- Trials that the instrument or the host spoiled were found by `measure.window` when they ran.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import polars as pl

from meshwise.findings.reason import Blame, Reason
from meshwise.study.model import Trial
from meshwise.telemetry.labels import read_labels
from meshwise.telemetry.source import Source

NEAR = 0.85
STALLED = 0.2
CLEAR = 1.6
HOST = "host"
ATTRIBUTED_METRICS = ("cpu_ns", "cpu_idle_ns", "pressure_stall_ns")
LEAD_NS = -(10**9)
"""Readings at the start are made before time 0, the earlier the more processes there are."""


class Limit(StrEnum):
    """Who was at the limit; the first four are of the system under study."""

    PROXY = "proxy"
    SERVICE = "service"
    CPUS = "cpus"
    """Sidecars and services share CPUs that were used up, and none used more than half of them."""
    CONTROLLER = "controller"
    INSTRUMENT = "instrument"
    HOST = "host"
    STUDY = "study"
    """The study's own `limit` ended the search."""
    UNKNOWN = "unknown"


SYSTEM = (Limit.PROXY, Limit.SERVICE, Limit.CPUS, Limit.CONTROLLER)
WHO = {
    Limit.PROXY: "the sidecars",
    Limit.SERVICE: "the services",
    Limit.CPUS: "the CPUs that sidecars and services share",
    Limit.CONTROLLER: "the control plane",
    Limit.INSTRUMENT: "the instrument",
    Limit.HOST: "the host",
    Limit.STUDY: "the study's own limit",
    Limit.UNKNOWN: "nothing that was looked at",
}


@dataclass(frozen=True)
class Usage:
    """CPU used within one trial's window, in CPUs (1: one CPU all the time)."""

    by_process: Mapping[Source, float] = field(default_factory=dict)
    """CPUs of the trial's own processes."""
    idle: Mapping[int, float] = field(default_factory=dict)
    """Number of the CPU -> share of the time that it was idle."""
    stalled: float = 0.0
    """The largest share of the time in which some task stood still for memory or disk."""

    @classmethod
    def of(cls, trial: Trial, telemetry: pl.DataFrame) -> Usage:
        """`telemetry` as in `archive.schema`; without the column `labels` nothing is known of the host."""
        by_process: dict[Source, float] = {}
        idle: dict[int, float] = {}
        stalled = 0.0
        for text, metric, labels, share in _shares(telemetry):
            source = Source.read(text)
            if metric == "cpu_ns" and source is not None and source.is_of(trial):
                by_process[source] = share
            elif metric == "cpu_idle_ns":
                idle[int(read_labels(labels)["cpu"])] = min(1.0, share)
            elif metric == "pressure_stall_ns" and _is_of_memory_or_disk(labels):
                stalled = max(stalled, share)
        return cls(by_process, idle, stalled)


def _is_of_memory_or_disk(labels: str) -> bool:
    found = read_labels(labels)
    return found.get("kind") == "some" and found.get("resource") in ("memory", "io")


def _shares(telemetry: pl.DataFrame) -> list[tuple[str, str, str, float]]:
    """(source, metric, labels, growth of the counter over the time between its first and last reading)."""
    frame = telemetry.with_columns(pl.col("source", "metric").cast(pl.String))
    labels = pl.col("labels").cast(pl.String) if "labels" in frame.columns else pl.lit("")
    chosen = frame.with_columns(labels.alias("labels")).filter(
        pl.col("metric").is_in(ATTRIBUTED_METRICS) & (pl.col("t_ns") >= LEAD_NS)
    )
    grown = (
        chosen.sort("t_ns")
        .group_by("source", "metric", "labels", maintain_order=True)
        .agg(
            (pl.col("value").last() - pl.col("value").first()).alias("grown"),
            (pl.col("t_ns").last() - pl.col("t_ns").first()).alias("over_ns"),
        )
        .filter((pl.col("over_ns") > 0) & (pl.col("grown") >= 0))
    )
    return [
        (source, metric, label, value / over_ns)
        for source, metric, label, value, over_ns in grown.select(
            "source", "metric", "labels", "grown", "over_ns"
        ).iter_rows()
    ]


@dataclass(frozen=True)
class Machine:
    """What runs where, from `environment.json`."""

    pods: tuple[int, ...] = ()
    """CPUs that only pods use; empty: not pinned, they share all with the instrument."""
    cpus: int | None = None
    workers: int | None = None
    """Of each sidecar."""

    @classmethod
    def of(cls, environment: Mapping[str, Any]) -> Machine:
        placed, machine = environment.get("cpus"), environment.get("machine")
        pods = placed.get("others") if isinstance(placed, Mapping) else None
        cpus = machine.get("cpus") if isinstance(machine, Mapping) else None
        workers = environment.get("workers")
        return cls(
            tuple(int(cpu) for cpu in pods or ()),
            cpus if isinstance(cpus, int) else None,
            workers if isinstance(workers, int) else None,
        )

    @property
    def pinned(self) -> bool:
        return bool(self.pods)

    @property
    def pod_cpus(self) -> int | None:
        return len(self.pods) or self.cpus

    def busy(self, idle: Mapping[int, float]) -> float | None:
        """Share of the pods' CPUs that was not idle, whoever used it; None unless each of them was read."""
        own = self.pods or tuple(idle)
        known = [idle[cpu] for cpu in own if cpu in idle]
        return 1 - sum(known) / len(known) if known and len(known) == (self.pod_cpus or len(known)) else None

    def used_share(self, usage: Usage) -> float | None:
        """How far the pods' CPUs were used up in all; None if it cannot be told."""
        if (busy := self.busy(usage.idle)) is not None:
            return busy
        counted = _pods(usage, instrument=not self.pinned)
        return sum(counted.values()) / self.pod_cpus if self.pod_cpus and counted else None

    def ceiling(self, role: str) -> float | None:
        """The most CPUs that one process of this role can use; None where nothing is known of it."""
        if self.pod_cpus is None:
            return None
        if role == "proxy":
            return float(min(self.workers or self.pod_cpus, self.pod_cpus))
        return 1.0 if role == "service" else None


def _pods(usage: Usage, *, instrument: bool) -> dict[Source, float]:
    """Those who use the pods' CPUs."""
    return {who: used for who, used in usage.by_process.items() if instrument or who.role != "instrument"}


@dataclass(frozen=True)
class Attribution:
    limit: Limit
    words: str
    """With the numbers that say so; for a sentence that says who and at which rate."""
    used: float | None = None
    """Share of the pods' CPUs that was used."""


def attribute(usage: Usage, machine: Machine) -> Attribution:
    """One trial that broke, though neither instrument nor host spoiled it."""
    used = machine.used_share(usage)
    if used is None:
        return Attribution(Limit.UNKNOWN, "there is no reading of CPU")
    usage_words = _usage_words(usage, machine, used)
    for who, spent in sorted(usage.by_process.items(), key=lambda each: -each[1]):
        role, most = who.role, machine.ceiling(who.role)
        if most and spent >= NEAR * most and role in ("proxy", "service"):
            of = "its one CPU" if most == 1 else f"the {most:g} CPUs that it can use"
            return Attribution(
                Limit(role), f"{who.workload}/{role} used {spent / most:.0%} of {of}; {usage_words}", used
            )
    if used >= NEAR:
        return Attribution(_dominant(usage, machine, used), usage_words, used)
    if usage.stalled >= STALLED:
        return Attribution(
            Limit.HOST, f"tasks stood still for memory or disk for {usage.stalled:.0%} of the time", used
        )
    return Attribution(Limit.UNKNOWN, f"{usage_words}, and no process was near the CPU that it can use", used)


_LIMIT_OF_ROLE = {
    "proxy": Limit.PROXY,
    "service": Limit.SERVICE,
    "controller": Limit.CONTROLLER,
    "instrument": Limit.INSTRUMENT,
}


def _dominant(usage: Usage, machine: Machine, used: float) -> Limit:
    """Whose the CPUs were that are used up."""
    by_role = _by_role(usage, machine)
    total = sum(by_role.values())
    if machine.pod_cpus and total < 0.5 * used * machine.pod_cpus:
        return Limit.HOST  # most of it was used by no process of the study
    role, most = max(by_role.items(), key=lambda each: each[1], default=("", 0.0))
    return _LIMIT_OF_ROLE.get(role, Limit.SERVICE) if most > 0.5 * total else Limit.CPUS


def _by_role(usage: Usage, machine: Machine) -> dict[str, float]:
    by_role: dict[str, float] = {}
    for who, spent in _pods(usage, instrument=not machine.pinned).items():
        by_role[who.role] = by_role.get(who.role, 0.0) + spent
    return by_role


_MANY = {"proxy": "sidecars", "service": "services", "controller": "the control plane"}


def _usage_words(usage: Usage, machine: Machine, used: float) -> str:
    """`the pods' CPU was 97 % used: 71 % by sidecars, 17 % by services`."""
    cpus = machine.pod_cpus or 1
    parts = [
        f"{spent / cpus:.0%} by {_MANY.get(role, f'the {role}')}"
        for role, spent in sorted(_by_role(usage, machine).items(), key=lambda each: -each[1])
    ]
    whose = "the pods' CPU" if machine.pinned else "the CPU that all share"
    return f"{whose} was {used:.0%} used" + (f": {', '.join(parts)}" if parts else "")


@dataclass(frozen=True)
class SearchTrial:
    """One trial of a search, as far as it says what limited."""

    rate_rps: float
    result: str
    reasons: tuple[Reason, ...]
    usage: Usage | None


def limit_of_search(
    broken_rps: float | None, limited: bool, steps: Sequence[SearchTrial], machine: Machine
) -> Attribution:
    """What limited one search. `broken_rps`: the lowest rate that broke."""
    if limited or broken_rps is None:
        return _limit_from_outside(steps)
    attributed: list[Attribution] = []
    rates = sorted({step.rate_rps for step in steps if broken_rps <= step.rate_rps <= CLEAR * broken_rps})
    for rate in rates:
        own = [
            attribute(step.usage, machine)
            for step in steps
            if step.rate_rps == rate and step.result == "broken" and step.usage is not None
        ]
        attributed += own
        known = Counter(each.limit for each in own if each.limit is not Limit.UNKNOWN)
        if known:
            winner = known.most_common(1)[0][0]
            found = next(each for each in own if each.limit is winner)
            return Attribution(winner, f"at {rate:g}/s, which broke, {found.words}", found.used)
    if attributed:
        return Attribution(
            Limit.UNKNOWN, f"at {broken_rps:g}/s, which broke, {attributed[0].words}", attributed[0].used
        )
    return Attribution(Limit.UNKNOWN, "no trial that broke has a reading of CPU")


def _limit_from_outside(steps: Sequence[SearchTrial]) -> Attribution:
    """Of a search that no break of the system ended."""
    invalid = [step for step in steps if step.result == "invalid"]
    kinds: Counter[Limit] = Counter()
    words: dict[Limit, str] = {}
    for step in invalid:
        kind = _LIMIT_OF_BLAME[step.reasons[0].kind.blame] if step.reasons else Limit.UNKNOWN
        kinds[kind] += 1
        words.setdefault(kind, f"at {step.rate_rps:g}/s {step.reasons[0].words if step.reasons else ''}")
    if not kinds:
        return Attribution(Limit.STUDY, "no rate up to it broke")
    winner = kinds.most_common(1)[0][0]
    return Attribution(winner, words[winner])


_LIMIT_OF_BLAME = {
    Blame.INSTRUMENT: Limit.INSTRUMENT,
    Blame.HOST: Limit.HOST,
    Blame.SYSTEM: Limit.UNKNOWN,
    Blame.UNKNOWN: Limit.UNKNOWN,
}
"""What spoiled a window was its instrument or its host."""
