"""What counted sidecars have had before the first count: every posture that will be counted, once.

A sidecar remembers. A Linkerd proxy keeps the labels of its metrics from the first request under a policy;
when it gets a policy with the same labels again, it compares them letter by letter for every request (2,300
instructions), and not by their address. Which postures it had before is an accident of the order, so each
has been there before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from meshwise.core.errors import Fault, MeshwiseError
from meshwise.mesh.seam import Proof
from meshwise.study.model import Cell, MeshName, Trial


def go_through(
    trials: Sequence[Trial], apply: Callable[[Trial], None], prove: Callable[[Trial], Proof]
) -> None:
    """Each cell of each life of this execution's trials, in the order of counting, so that the last one is
    not the first that is counted; lives at the same time. A fault of a proxy is left to the trial itself."""
    lives: dict[tuple[MeshName, str], dict[Cell, Trial]] = {}
    for trial in trials:
        lives.setdefault((trial.cell.mesh, trial.process_set), {}).setdefault(trial.cell, trial)

    def show(own: Sequence[Trial]) -> None:
        for trial in own:
            try:
                apply(trial)
                prove(trial)
            except MeshwiseError as error:
                if error.fault is not Fault.PROXY:
                    raise

    with ThreadPoolExecutor(max(len(lives), 1), "life") as pool:
        for done in [pool.submit(show, list(own.values())) for own in lives.values()]:
            done.result()
