"""Which cells of a study that is arranged together also run alone: their levels without company. Pure.

An arm beside others meets colder caches and waits behind their requests, so its level is that of a busy
machine. So every block has a few trials of one arm, a round of one each, at the same rate, on the processes
that the cell has in its round: only the company differs. They give levels, and enter no step.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from meshwise.study.design.rounds import Task, block_rounds, traffic_of
from meshwise.study.design.weight import weight
from meshwise.study.model import MeshName, Role, Study

LEAST = 3
"""Blocks in which a cell shall run alone: the fewest whose interval tells something."""


def usual_alone(study: Study) -> int:
    """Trials alone of a block where the study file does not say: as many as give one cell of every traffic
    `LEAST` of them over the study; 0 where nothing runs together."""
    return -(-LEAST * len(_by_traffic(study)) // study.blocks)


def cells_alone(study: Study) -> tuple[Task, ...]:
    """The cells that take turns, as many as `alone` has turns for. First the lightest with sidecars of each
    mesh, then no mesh, then heavier ones; of every traffic one before any has two."""
    ranked = zip_longest(*(_ranked(tasks) for tasks in _by_traffic(study).values()))
    found = [task for rank in ranked for task in rank if task is not None]
    return tuple(found[: max(study.alone, study.alone * study.blocks // LEAST)])


def alone_in(study: Study, block: int) -> list[Task]:
    """The trials alone of one block: the cells take turns from block to block."""
    turns = cells_alone(study)
    count = min(study.alone, len(turns))
    return [turns[(block * count + place) % len(turns)] for place in range(count)]


def rounds_per_block(study: Study) -> int:
    """Those of several arms, trials apart and trials alone."""
    return len(block_rounds(study)) + len(alone_in(study, 0))


def _by_traffic(study: Study) -> dict[Any, list[Task]]:
    """The cells that have company, by their traffic."""
    found: dict[Any, list[Task]] = {}
    for arms in block_rounds(study):
        for task in arms if len(arms) > 1 else ():
            if task.role is Role.CELL:
                found.setdefault(traffic_of(task.cell), []).append(
                    Task(task.cell, Role.ALONE, task.process_set)
                )
    return found


def _ranked(tasks: list[Task]) -> list[Task]:
    rising = sorted(tasks, key=lambda task: weight(task.cell))
    meshes = [mesh for mesh in dict.fromkeys(task.cell.mesh for task in tasks) if mesh is not MeshName.NONE]
    first = [
        next(task for task in rising if task.cell.mesh is mesh)
        for mesh in (*meshes, MeshName.NONE)
        if any(task.cell.mesh is mesh for task in rising)
    ]
    return [*first, *(task for task in rising if task not in first)]
