"""Which events can happen to Istio as it runs here, and why others cannot. Pure."""

from __future__ import annotations

from meshwise.mesh.istio import posture
from meshwise.study.changed import in_posture
from meshwise.study.demands import effective_posture
from meshwise.study.model import Cell, MtlsMode
from meshwise.study.timeline import Act, ChangePosture, Fail, Failing, Rotate, Skew

_NO_CERTIFICATE = "without mutual TLS no sidecar uses its certificate"


def why_not(cell: Cell, act: Act) -> str | None:
    match act:
        case Rotate() | Skew() | Fail(what=Failing.RENEWAL):
            return None if _uses_certificates(cell) else _NO_CERTIFICATE
        case ChangePosture():
            return posture.not_applicable(in_posture(cell, act.posture))
        case Fail(what=Failing.POLICY):
            return "istiod hands out policies as it does all else: no part of it can fail alone"
        case _:
            return None


def _uses_certificates(cell: Cell) -> bool:
    called = [each for each in cell.topology.workloads if cell.topology.callers(each.name)]
    return any(effective_posture(cell, each).mtls is not MtlsMode.DISABLE for each in called)
