"""The suite of the seam `Testbed` on the local one, for the pytest that `inside_testbed` starts in a world.

A test by its name this file is not, so that nothing else collects it.
"""

from __future__ import annotations

import os
import socket

from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.study.model import LADDER, MeshName, Study
from meshwise.testbed import seam
from meshwise.testbed.local.testbed import LocalTestbed
from tests.support.inside_testbed import kill_once, pid_of
from tests.support.studies import cell, study
from tests.support.testbed_conformance import BedConformance


class TestLocalTestbed(BedConformance):
    @classmethod
    def question(cls) -> Study:
        return study([cell(), cell(LADDER[0]), cell(LADDER[4])])

    @classmethod
    def make(cls, question: Study) -> seam.Testbed:
        return LocalTestbed(question, {MeshName.NONE: NoneMesh(), MeshName.ISTIO: IstioMesh()})

    @classmethod
    def seen(cls) -> object:
        processes = sorted(name for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
        return processes, socket.if_nameindex()

    @classmethod
    def accident(cls) -> seam.Observe:
        return kill_once(lambda: pid_of("proxy"))
