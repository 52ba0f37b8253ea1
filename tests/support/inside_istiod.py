"""Program that end-to-end tests of `control_plane: istiod` run; its argument is a scene, it prints JSON.

As `mesh_world`, with the configuration that the real istiod (MESHWISE_ISTIOD) generates.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.admin import EnvoyAdmin
from meshwise.mesh.istio.istiod.binary import istiod_path
from meshwise.mesh.istio.istiod.control_plane import IstiodControlPlane
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.study.grid.expressible import inexpressible
from meshwise.study.model import LADDER, Cell, Http1Transport, Protocol, Resumption, SanMatch, TlsVersion
from meshwise.study.timeline import PushPolicies
from meshwise.testbed.local.reach import LocalReach
from meshwise.testbed.local.world import current_world, enter_world
from tests.support.mesh_samples import CELL
from tests.support.mesh_world import Ground, ground, say, verdict


@contextmanager
def governed(length: int = 2) -> Iterator[Ground]:
    with (
        IstiodControlPlane(istiod_path(), current_world().secrets / "istiod") as istiod,
        ground(IstioMesh(istiod=istiod), length) as here,
    ):
        yield here


def cells() -> Iterator[Cell]:
    for protocol in Protocol:
        for posture in LADDER:
            cell = replace(CELL, protocol=protocol, posture=posture)
            if inexpressible(cell) is None:
                yield cell
    yield replace(CELL, posture=LADDER[2], http1_transport=Http1Transport.HTTP2)
    yield replace(CELL, posture=LADDER[4], policy_count=30)
    strict = replace(CELL, posture=LADDER[2])
    yield replace(strict, tls_version=TlsVersion.TLS_1_2)
    yield replace(strict, san_match=SanMatch.PREFIX)
    yield replace(strict, resumption=Resumption.OFF)
    yield replace(strict, traced_share=0.1)


def ladder() -> int:
    """Every rung on every protocol, proven; then one again, which istiod is not asked for again."""
    with governed() as here:
        for cell in cells():
            say(cell=cell.name, apply_s=here.apply(cell), **verdict(here.prove(cell)))
        cell = replace(CELL, posture=LADDER[2])
        say(cell=cell.name, apply_s=here.apply(cell), **verdict(here.prove(cell)))
        say(describes=dict(here.mesh.describe()))
        say(fidelity=[each.code for each in here.mesh.fidelity(privileged=True)])
    return 0


def pushed() -> int:
    """What is pushed stands beside what was; and istiod is started again when it has gone."""
    with (
        IstiodControlPlane(istiod_path(), current_world().secrets / "istiod") as istiod,
        ground(IstioMesh(istiod=istiod), 1) as here,
    ):
        strict, fine = (replace(CELL, posture=posture) for posture in (LADDER[2], LADDER[4]))
        here.apply(strict)
        begun = time.monotonic()
        here.push(fine)
        say(push_s=time.monotonic() - begun, **verdict(here.prove(fine)))
        with LocalReach(here.dial) as reach:
            begun = time.monotonic()
            push = PushPolicies(200, relevant=True)
            taken = here.mesh.carry_out(here.placement, fine, push, reach, here.start_again)
            say(policies_s=time.monotonic() - begun, taken=[each.done_ns is not None for each in taken])
            found = EnvoyAdmin("node-1", reach).get("/config_dump?resource=dynamic_listeners").decode()
            say(seen=len(set(re.findall(r"policy\[pushed-0-\d+\]", found))))
        log = Path(current_world().secrets / "istiod").glob("istiod-*.log")
        say(logs=len(list(log)))
        assert istiod._istiod is not None
        istiod._istiod[2].process.stop()
        other = replace(strict, policy_count=1)
        here.apply(other)
        say(again=True, **verdict(here.prove(other)))
    return 0


SCENES = {scene.__name__: scene for scene in (ladder, pushed)}


def main() -> int:
    try:
        return enter_world(SCENES[sys.argv[1]])
    except MeshwiseError as error:
        say(error=error.code, what=error.what)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
