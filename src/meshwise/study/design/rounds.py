"""Which trials of a block run at the same time: the rounds of a study that is arranged together. Pure.

The arms of a round meet the same traffic at the same moments and differ in what a mesh is or is told: their
differences lose what the machine does to all of them at once (duet benchmarking: Bulej et al., ICPE 2020,
arXiv 2001.05811). Each arm has a set of processes of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from meshwise.study.factor import FactorRole
from meshwise.study.factors import FACTORS
from meshwise.study.model import (
    Arrangement,
    Arrivals,
    Cell,
    MeshName,
    Role,
    Search,
    Study,
    Trial,
    TrialPlan,
)

MOST_SIDECARS = 28
"""Of one round: 14 arms from point to point. Two of Istio's hold 147 MiB, and an arm beyond the reach
of the caches measures another machine; larger rounds are divided, and share a reference arm."""
CROWDED_SHARE = 0.7
"""Of the pods' CPUs. Above it a round says nothing of tails: whoever is behind a slow request waits for it,
whichever arm it belongs to."""
LEAST_ARMS = 3
"""A cell, its twin and the reference, however large the topology."""


@dataclass(frozen=True)
class Task:
    """A trial of a block before it has a place in it."""

    cell: Cell
    role: Role
    process_set: str


def block_rounds(study: Study) -> list[list[Task]]:
    """The rounds of every block, before anything is shuffled; a trial apart is a round of one."""
    rounds: dict[Any, list[tuple[Cell, Role]]] = {}
    for cell, role in _tasks(study):
        apart = study.arrangement is Arrangement.APART or why_no_arm(cell) is not None
        company = (cell, role) if apart else traffic_of(cell)
        if study.trial.timeline and not apart:  # what happens to one mesh does not meet another
            company = (cell.mesh, *company)
        rounds.setdefault(company, []).append((cell, role))
    return [
        [Task(cell, role, process_set) for (cell, role), process_set in zip(part, _sets(part), strict=True)]
        for arms in rounds.values()
        for part in _divided(arms)
    ]


def block_tasks(study: Study) -> list[tuple[Cell, Role]]:
    """What every block holds, one entry per trial; beside them some have trials alone (`design.alone`)."""
    return [(task.cell, task.role) for arms in block_rounds(study) for task in arms]


def why_apart(search: Search | None, plan: TrialPlan, cells: Sequence[Cell]) -> str | None:
    """Why the trials of a whole study cannot run together, or None."""
    if search is not None:
        return "a search for saturation overloads what runs beside it"
    if plan.arrivals is Arrivals.CLOSED:
        return "in a closed loop a slow arm gets fewer requests, so arms do not meet the same arrivals"
    if plan.shape is not None:
        return "load that moves comes near the limit, where arms wait for one another"
    return None


def disturbed(study: Study, trial: Trial) -> bool:
    """Whether the study's events happen to this trial. Apart to every one that is timed. In rounds to the
    cells only: each has a twin beside it, on processes of its own, to which nothing happens."""
    if not study.trial.timeline or not trial.role.timed:
        return False
    return study.arrangement is Arrangement.APART or trial.role is Role.CELL


def why_no_arm(cell: Cell) -> str | None:
    """Why this cell cannot be an arm, or None."""
    if cell.plaintext_share:
        return "its second client, outside the mesh, has a stream of its own"
    if cell.stranger_share:
        return "its second client, of another namespace, has a stream of its own"
    return None


def _tasks(study: Study) -> Iterator[tuple[Cell, Role]]:
    yield from ((cell, Role.CELL) for cell in study.cells)
    yield from ((cell, Role.AA) for cell in study.control.same)
    yield from ((cell, Role.TWIN) for cell in study.control.twin)


def traffic_of(cell: Cell) -> tuple[Any, ...]:
    """What the arms of a round have in common."""
    return tuple(getattr(cell, each.field) for each in FACTORS if each.role is FactorRole.CONTEXT)


def _divided(arms: list[tuple[Cell, Role]]) -> Iterator[list[tuple[Cell, Role]]]:
    """Rounds of at most `most_arms` and of about as many arms each, because company changes an arm; a twin is
    beside its cell. Each further one has an arm of the first again, as a reference: the first with
    sidecars, because without them their CPU is 0 and nothing can be set in proportion to it."""
    most = most_arms(arms[0][0])
    if len(arms) <= most:
        yield arms
        return
    beside: dict[Cell, list[tuple[Cell, Role]]] = {}
    for cell, role in arms:
        beside.setdefault(cell, []).append((cell, role))
    for parts in range(2, len(arms) + 1):
        divided = _in_parts(list(beside.values()), parts)
        if max(map(len, divided)) < most:  # one is left for the reference
            break
    reference = next((cell for cell, _ in divided[0] if cell.mesh is not MeshName.NONE), arms[0][0])
    yield divided[0]
    yield from ([(reference, Role.REFERENCE), *part] for part in divided[1:])


def most_arms(cell: Cell) -> int:
    """Of a round of this cell's traffic: as many as have at most `MOST_SIDECARS` together."""
    return max(LEAST_ARMS, MOST_SIDECARS // len(cell.topology.workloads))


def _in_parts(groups: list[list[tuple[Cell, Role]]], parts: int) -> list[list[tuple[Cell, Role]]]:
    """In their order; a part ends where it has its share of all arms. No part is empty."""
    total, taken = sum(map(len, groups)), 0
    found: dict[int, list[tuple[Cell, Role]]] = {}
    for group in groups:
        found.setdefault(taken * parts // total, []).extend(group)
        taken += len(group)
    return list(found.values())


def _sets(arms: list[tuple[Cell, Role]]) -> Iterator[str]:
    """`a`, `b`, ... for the arms of each mesh. A trial apart has `a`, its twin `b`."""
    taken: Counter[MeshName] = Counter()
    for cell, role in arms:
        if len(arms) == 1:
            yield "b" if role is Role.TWIN else "a"
            continue
        yield set_name(taken[cell.mesh])
        taken[cell.mesh] += 1


def set_name(number: int) -> str:
    """`a` to `z`, then `a1` to `z1`, and so on."""
    letter = chr(ord("a") + number % 26)
    return f"{letter}{number // 26}" if number >= 26 else letter
