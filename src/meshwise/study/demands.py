"""What a workload demands of its callers in a cell: its own setting, else the posture's. Pure.

The one place that joins the two. A mesh writes resources of three widths (mesh, namespace, workload) from
`modes`; policies, expectations and proofs go by `effective_posture` of the workload that is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshwise.study.model import Cell, MtlsMode, Posture, Workload


def effective_posture(cell: Cell, workload: Workload) -> Posture:
    """The posture that callers of this workload meet; without a mesh nothing can be demanded."""
    posture = cell.posture
    if posture.mtls is None:
        return posture
    return Posture(
        posture.mtls if workload.mtls is None else workload.mtls,
        posture.authorization if workload.authorization is None else workload.authorization,
    )


@dataclass(frozen=True)
class Modes:
    """mTLS modes as they are written down: the wider ones first, and narrower ones only where they differ."""

    mesh: MtlsMode
    namespaces: Mapping[str, MtlsMode]
    """Where all workloads demand one mode, and it is not the mesh's."""
    workloads: Mapping[str, MtlsMode]
    """Those that demand another mode than their namespace has."""

    def of_namespace(self, namespace: str) -> MtlsMode:
        return self.namespaces.get(namespace, self.mesh)


def modes(cell: Cell) -> Modes:
    assert cell.posture.mtls is not None, "without a mesh there are no modes"
    mesh = cell.posture.mtls
    demanded: dict[str, set[MtlsMode | None]] = {}
    for workload in cell.topology.workloads:
        demanded.setdefault(workload.namespace, set()).add(workload.mtls)
    namespaces = {
        name: mode
        for name, found in demanded.items()
        if len(found) == 1 and (mode := next(iter(found))) is not None and mode is not mesh
    }
    workloads = {
        workload.name: workload.mtls
        for workload in cell.topology.workloads
        if workload.mtls is not None and workload.mtls is not namespaces.get(workload.namespace, mesh)
    }
    return Modes(mesh, namespaces, workloads)
