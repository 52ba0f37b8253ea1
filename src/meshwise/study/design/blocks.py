"""The randomised complete block design: `Study` -> `Trial`s in the order of running. Pure.

Rules (docs/how-it-measures.md, "The unit is the run, not the request"):
- Every cell stands once in each block, with the A/A repeats and twins, all in one random order.
- Each block has its own generator, `default_rng([seed, block])`: adding a block changes no earlier one,
  and the order is the same on every machine that has the same NumPy bit generator (PCG64).
"""

from __future__ import annotations

import numpy as np

from meshwise.study.model import Cell, Role, Study, Trial


def design(study: Study) -> tuple[Trial, ...]:
    """All trials; blocks, positions and executions count from 0."""
    return tuple(trial for block in range(study.blocks) for trial in design_block(study, block))


def design_block(study: Study, block: int) -> tuple[Trial, ...]:
    tasks = block_tasks(study)
    order = np.random.default_rng([study.seed, block]).permutation(len(tasks))
    return tuple(
        Trial(
            trial_id=f"b{block:03d}-p{position:02d}",
            block=block,
            execution=block // study.blocks_per_execution,
            position=position,
            cell=tasks[index][0],
            role=tasks[index][1],
        )
        for position, index in enumerate(order)
    )


def block_tasks(study: Study) -> list[tuple[Cell, Role]]:
    """What every block holds, before it is shuffled."""
    return [
        *((cell, Role.CELL) for cell in study.cells),
        *((cell, Role.AA) for cell in study.control.same),
        *((cell, Role.TWIN) for cell in study.control.twin),
    ]
