"""How long a study takes beside its windows: starting processes, changing and proving postures, starting the
instrument, storing. Pure.

The figures are of two CPUs without other work: a quickstart of 7 arms and one of both meshes with 13, to
whose times tests/unit/test_study_overhead.py holds the sums. Starting is bound by the CPU: what is pinned
beside the instrument has one, everything else both.
"""

from __future__ import annotations

from meshwise.study.design.alone import alone_in
from meshwise.study.design.needs import environments_of
from meshwise.study.design.rounds import Task, block_rounds
from meshwise.study.model import Cell, MeshName, Study, TopologyKind
from meshwise.study.topology import CLIENT, STORES

ROUND_S = 0.33
"""The instrument starts, connects and reports; samplers begin and end."""
ARM_S = 0.04
"""A posture is asked for, proven from outside and stored, whatever it has of sidecars."""
SIDECAR_S = 0.03
"""Its configuration is changed, taken up, and its counters are read before and after the proof."""
EXECUTION_S = 0.2
"""The former processes end."""
SERVICE_CPU_S = 0.26
SIDECAR_CPU_S = {MeshName.NONE: 0.0, MeshName.ISTIO: 0.07, MeshName.LINKERD: 0.06}
CONTROL_CPU_S = {MeshName.NONE: 0.0, MeshName.ISTIO: 0.0, MeshName.LINKERD: 0.37}
"""Of the process that tells the proxies of an environment what to do."""
BANK_SERVICE_CPU_S = 0.65
STORES_S = 1.3
"""PostgreSQL and Redis of one bank start, and its books are written; one bank after another."""
EXPORT_S = {MeshName.NONE: 0.1, MeshName.ISTIO: 5.5, MeshName.LINKERD: 10.5}
"""Of a round with a traced arm: until the last spans have come (`testbed.local.spans`)."""
RENEW_S = 0.2
"""The books of a bank are as at the start again."""


def start_s(study: Study) -> float:
    """One execution: every environment's processes."""
    cpu_s, stores_s = 0.0, 0.0
    for (_, _, mesh), cells in environments_of(study).items():
        workloads = {workload.name: workload for cell in cells for workload in cell.topology.workloads}
        programs = [each for each in workloads.values() if each.name != CLIENT and each.namespace != STORES]
        bank = any(cell.shape is TopologyKind.BANK for cell in cells)
        cpu_s += CONTROL_CPU_S[mesh] + SIDECAR_CPU_S[mesh] * len(workloads)
        cpu_s += len(programs) * (BANK_SERVICE_CPU_S if bank else SERVICE_CPU_S)
        stores_s += STORES_S * bank
    return EXECUTION_S + stores_s + cpu_s / (1 if study.pin_cpus else 2)


def arm_s(cell: Cell) -> float:
    """One arm of a round, or a trial apart: beside `ROUND_S`."""
    sidecars = 0 if cell.mesh is MeshName.NONE else len(cell.topology.workloads)
    return ARM_S + SIDECAR_S * sidecars + RENEW_S * (cell.shape is TopologyKind.BANK)


def round_s(arms: list[Task]) -> float:
    exported_s = max((EXPORT_S[task.cell.mesh] for task in arms if task.cell.traced_share), default=0.0)
    return ROUND_S + sum(arm_s(task.cell) for task in arms) + exported_s


def rounds_s(study: Study) -> float:
    """All rounds of the study, each run once."""
    together = study.blocks * sum(round_s(arms) for arms in block_rounds(study))
    alone = sum(round_s([task]) for block in range(study.blocks) for task in alone_in(study, block))
    return together + alone
