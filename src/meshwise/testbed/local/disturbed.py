"""An arm of a round as its events meet it: who can be restarted there, and what fails when the control plane
does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from meshwise.core.process import OwnedProcess
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import LocalMesh
from meshwise.study.model import Cell
from meshwise.study.timeline import RenewalFault, Restarted
from meshwise.testbed.layout import SERVICE, Environment
from meshwise.testbed.local.happening import DisturbedArm
from meshwise.testbed.local.running import RunningProcesses
from meshwise.testbed.local.stage import CONTROL_PLANE, wait_for_control_plane

PROXY = "proxy"
"""Role of a sidecar's process."""


def disturbed_arm(
    cell: Cell,
    used: Environment,
    mesh: LocalMesh,
    reach: Reach,
    processes: RunningProcesses,
    watched: list[OwnedProcess],
    service_again: Callable[[str], None],
) -> DisturbedArm:
    """`used`: the part of an environment that the cell's topology has. `watched`: the processes of the whole;
    who is started anew takes its place there. `service_again`: told the workload whose service was."""

    targets = _targets(used, [process.name for process in processes.of(used.name)])

    def restart(name: str, drain: bool) -> dict[str, object]:
        former = next(each for each in watched if each.name == name)
        again = processes.start_again(former, drain=drain)
        watched[watched.index(former)] = again
        if name.endswith(f"/{SERVICE}"):
            service_again(name.split("/")[-2])
        if name.endswith(f"/{CONTROL_PLANE}"):
            wait_for_control_plane(mesh, used.placement, [again])
        ending = {"ending": former.ending} if drain else {"signal": "SIGKILL"}
        return {**ending, "former_pid": former.pid, "pid": again.pid}

    @contextmanager
    def without_controller(how: RenewalFault) -> Iterator[None]:
        if how is RenewalFault.SLOW:
            with processes.still(used, CONTROL_PLANE):
                yield
            return
        with processes.without(used, CONTROL_PLANE):
            yield
        now = {each.name: each for each in processes.of(used.name)}
        wait_for_control_plane(mesh, used.placement, [now[name] for name in targets[Restarted.CONTROLLER]])
        watched[:] = [now.get(each.name, each) for each in watched]

    return DisturbedArm(
        environment=used.name,
        mesh=mesh,
        placement=used.placement,
        cell=cell,
        reach=reach,
        targets=targets,
        restart=restart,
        without_controller=without_controller,
    )


def _targets(used: Environment, running: list[str]) -> dict[Restarted, list[str]]:
    """From the entry inwards, the client's last."""
    inner = (*used.nodes, used.placement.workloads[0])

    def of(role: str) -> list[str]:
        return [name for one in inner if (name := f"{used.pod_name(one.name)}/{role}") in running]

    return {
        Restarted.PROXY: of(PROXY),
        Restarted.SERVICE: of(SERVICE),
        Restarted.CONTROLLER: [name for name in running if name.endswith(f"/{CONTROL_PLANE}")],
    }
