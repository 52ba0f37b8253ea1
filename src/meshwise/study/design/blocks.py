"""The randomised complete block design: `Study` -> `Trial`s in the order of running. Pure.

Rules (Fisher 1935, "The Design of Experiments"; Mytkowicz et al., ASPLOS 2009, for processes started anew):
- Every cell stands once in each block, with the A/A repeats and twins; some cells of a study
  arranged together run alone in it as well, in turns (`design.alone`). The rounds of a block are in random
  order, and so are the arms of each round (`design.rounds`); a trial apart is a round of one.
- Each block has its own generator, `default_rng([seed, block])`: adding a block changes no earlier one
  (but for whose turn alone it is), and the order is the same on every machine that has the same NumPy bit
  generator (PCG64).
"""

from __future__ import annotations

import numpy as np

from meshwise.study.design.alone import alone_in
from meshwise.study.design.counting import counting_design
from meshwise.study.design.profiling import profiling_design
from meshwise.study.design.rounds import block_rounds
from meshwise.study.model import Study, Trial


def design(study: Study) -> tuple[Trial, ...]:
    """All trials; blocks, rounds, positions and executions count from 0. Profiled ones come behind those that
    are timed, counting trials last."""
    blocks = range(study.blocks if study.timed else 0)
    timed = tuple(trial for block in blocks for trial in design_block(study, block))
    return timed + (profiling_design(study) if study.timed else ()) + counting_design(study)


def design_block(study: Study, block: int) -> tuple[Trial, ...]:
    rounds = [*block_rounds(study), *([task] for task in alone_in(study, block))]
    chance = np.random.default_rng([study.seed, block])
    order = [rounds[index] for index in chance.permutation(len(rounds))]
    shuffled = [
        (number, arm, each[index])
        for number, each in enumerate(order)
        for arm, index in enumerate(chance.permutation(len(each)) if len(each) > 1 else range(1))
    ]
    return tuple(
        Trial(
            trial_id=f"b{block:03d}-p{position:02d}",
            block=block,
            execution=block // study.blocks_per_execution,
            position=position,
            cell=task.cell,
            role=task.role,
            round=block * len(rounds) + number,
            arm=arm,
            process_set=task.process_set,
        )
        for position, (number, arm, task) in enumerate(shuffled)
    )
