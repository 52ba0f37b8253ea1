"""Which trials are profiled, and when: each cell once, alone, behind all that is timed. Pure.

A profiler interrupts what it looks at, so nothing of these trials is made into times; they have processes of
an execution of their own, each cell those of its arm.
"""

from __future__ import annotations

from meshwise.study.design.alone import rounds_per_block
from meshwise.study.design.rounds import block_rounds
from meshwise.study.model import Role, Study, Trial


def profiling_design(study: Study) -> tuple[Trial, ...]:
    """In the order of the study's grid; none where the study profiles nothing. Block, rounds and execution
    are numbered behind those that are timed."""
    if not study.profile:
        return ()
    tasks = [task for arms in block_rounds(study) for task in arms if task.role is Role.CELL]
    first = study.blocks * rounds_per_block(study)
    return tuple(
        Trial(
            trial_id=f"p000-p{position:02d}",
            block=study.blocks,
            execution=study.executions,
            position=position,
            cell=task.cell,
            role=Role.PROFILE,
            round=first + position,
            process_set=task.process_set,
        )
        for position, task in enumerate(tasks)
    )
