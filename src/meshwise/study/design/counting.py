"""Which trials count, and when: the counting trials of a study. Pure.

A counting trial is one cell in one life of its mesh's proxies, which are started for counting only; all cells
of the mesh are counted in it, in a random order. Lives that count at the same time are process sets of one
execution, and their trials arms of one round: counts do not mind company, so company only saves time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, zip_longest

import numpy as np

from meshwise.study.counting import Counting, PlannedWindow, WindowKind
from meshwise.study.design.alone import rounds_per_block
from meshwise.study.design.profiling import profiling_design
from meshwise.study.design.rounds import set_name
from meshwise.study.factors import BY_KEY
from meshwise.study.model import (
    Cell,
    MeshName,
    MtlsMode,
    Protocol,
    Role,
    Streaming,
    Study,
    TlsGroup,
    TopologyKind,
    Trial,
)

_COUNTING = 1
"""Tells the generator of a life's order from others of the seed."""


@dataclass(frozen=True)
class CountedCells:
    cells: tuple[Cell, ...]
    """In the order of the study. Their rate is 0: a count has none, the next request follows an answer. They
    keep their connections, for new ones are counted apart, in windows of handshakes."""
    left_out: Mapping[Cell, str]
    """Cells of the study that are not counted, with the reason."""
    merged: int
    """Cells that differ from one that is counted only by rate, or by how long a connection is kept."""

    @property
    def why_none(self) -> tuple[str, str]:
        """Where no cell is counted: why, and what to do. Cells without a mesh are the reason only where there
        are no others."""
        whys = dict.fromkeys(why for cell, why in self.left_out.items() if cell.mesh is not MeshName.NONE)
        if whys:
            return f"there is no cell to count: {'; '.join(whys)}", "give the study cells that can be counted"
        why = next(iter(self.left_out.values()))
        return f"there is no cell to count: {why}", "add a mesh to `environments`"


def counted_cells(cells: Sequence[Cell], counting: Counting) -> CountedCells:
    left_out = {cell: why for cell in cells if (why := why_not_counted(cell, counting))}
    wanted = [
        replace(cell, rate_rps=0.0, requests_per_connection=0) for cell in cells if cell not in left_out
    ]
    once = list(dict.fromkeys(wanted))
    varied = [
        replace(cell, connections=connections, streams=streams)
        for cell in once
        for connections, streams in product(
            counting.connections or (cell.connections,), _streams(cell, counting)
        )
    ]
    return CountedCells(tuple(dict.fromkeys(varied)), left_out, len(wanted) - len(once))


def why_not_counted(cell: Cell, counting: Counting) -> str | None:
    """Why a cell has no counting trial, or None."""
    if cell.mesh is MeshName.NONE:
        return "without a mesh there is no sidecar to count"
    if counting.protocol and cell.protocol not in counting.protocol:
        return f"the study counts {' and '.join(counting.protocol)} only"
    if cell.shape is TopologyKind.BANK:
        return "the bank's operations differ from one another, so a window is not like the next"
    if cell.plaintext_share:
        return "its second client, outside the mesh, has no sidecar"
    if cell.forbidden_share:
        return "requests that are forbidden differ from the others"
    if cell.churn_per_s:
        return "connections that are replaced at a rate depend on time; handshakes are counted apart"
    if cell.streaming is not Streaming.NONE:
        return "a stream of messages is not one request"
    if cell.request_sizes or cell.response_sizes:
        return "sizes that are drawn differ from window to window; count fixed sizes"
    if cell.mesh is MeshName.LINKERD and (cell.chain_depth, cell.certificate_life_s) != _CERTIFICATE:
        return "a counted Linkerd proxy has one certificate all its life, of the usual kind"
    return None


_CERTIFICATE = (BY_KEY["chain_depth"].default, BY_KEY["certificate_life"].default)


def counting_design(study: Study) -> tuple[Trial, ...]:
    """All counting trials, in the order of running; none where the study counts nothing. Their blocks, rounds
    and executions are numbered behind those that are timed, whether these are run or not."""
    counting = study.counting
    if counting is None:
        return ()
    cells = counted_cells(study.cells, counting).cells
    found: list[Trial] = []
    number, behind = study.blocks * rounds_per_block(study) + len(profiling_design(study)), int(study.profile)
    for batch, lives in enumerate(_batches(counting, cells)):
        order = [
            _shuffled(study, [cell for cell in cells if cell.mesh is mesh], life) for mesh, life in lives
        ]
        sets = [set_name(life - lives[0][1]) for _, life in lives]
        position = 0
        for together in zip_longest(*order):
            present = [(cell, own) for cell, own in zip(together, sets, strict=True) if cell is not None]
            for arm, (cell, process_set) in enumerate(present):
                found.append(
                    Trial(
                        trial_id=f"c{batch:03d}-p{position:02d}",
                        block=study.blocks + behind + batch,
                        execution=study.executions + behind + batch,
                        position=position,
                        cell=cell,
                        role=Role.COUNT,
                        round=number,
                        arm=arm,
                        process_set=process_set,
                    )
                )
                position += 1
            number += 1
    return tuple(found)


def _batches(counting: Counting, cells: Sequence[Cell]) -> list[list[tuple[MeshName, int]]]:
    """(mesh, number of the life) of those that count at the same time; every mesh has one in each."""
    meshes = list(dict.fromkeys(cell.mesh for cell in cells))
    each = max(1, counting.at_once // max(len(meshes), 1))
    return [
        [(mesh, life) for life in range(first, min(first + each, counting.executions)) for mesh in meshes]
        for first in range(0, counting.executions, each)
    ]


def planned_windows(counting: Counting, cell: Cell) -> tuple[PlannedWindow, ...]:
    """The windows of one trial, in their order. Handshakes of a post-quantum group are not counted: those
    that are come from a client of our own, whose TLS library need not know the group, and takes another."""
    requests = PlannedWindow(WindowKind.REQUESTS, counting.requests, cell.connections)
    found = [requests] * counting.windows + [PlannedWindow(WindowKind.IDLE, 0, cell.connections)]
    if counting.warmup:
        found.insert(0, PlannedWindow(WindowKind.WARMUP, counting.warmup, cell.connections))
    if counting.handshakes and cell.tls_group is not TlsGroup.X25519MLKEM768:
        found.append(PlannedWindow(WindowKind.FRESH, counting.handshakes, counting.handshakes))
        if cell.posture.mtls in (MtlsMode.PERMISSIVE, MtlsMode.STRICT):
            found.append(PlannedWindow(WindowKind.RESUMED, counting.handshakes, counting.handshakes))
    return tuple(found)


def _streams(cell: Cell, counting: Counting) -> tuple[int, ...]:
    several = cell.protocol in (Protocol.HTTP2, Protocol.GRPC)
    return (counting.streams if several else ()) or (cell.streams,)


def _shuffled(study: Study, cells: Sequence[Cell], life: int) -> list[Cell]:
    """In an order of its own; the generator is none of the blocks', whose keys have two numbers."""
    mesh = study.environments.index(cells[0].mesh)
    chance = np.random.default_rng([study.seed, life, mesh, _COUNTING])
    return [cells[index] for index in chance.permutation(len(cells))]
