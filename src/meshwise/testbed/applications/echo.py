"""The graph node as an application: every workload but the client is one, and a request says what it does.

It has no state: nothing is made anew, and nothing is left to judge. The program is `service.node`.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from meshwise.core.modes import PRIVATE_DIRECTORY, make_directory, write_private_text
from meshwise.core.process import OwnedProcess
from meshwise.load.spec import LoadSpec
from meshwise.mesh.seam import Capture, ProcessPlan, Ready
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.study.model import SERVICE_PORTS, Cell, Protocol, Trial
from meshwise.testbed.applications.seam import ApplicationEnvironment, TrialLoad
from meshwise.testbed.layout import SERVICE, Environment


class Echo:
    """See `seam.Application`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def describe(self) -> Mapping[str, object]:
        return {}

    def capture(self, rules: Capture, workload: str) -> Capture:
        return rules

    def start(self, place: ApplicationEnvironment, draws: str) -> Sequence[ProcessPlan]:
        make_directory(place.files, PRIVATE_DIRECTORY)
        plans = []
        for node in place.environment.nodes:
            path = place.files / f"{node.name}.json"
            seed = zlib.crc32(f"{draws} {node.name}".encode())
            spec = node_spec(place.environment, node.name, seed)
            if place.environment.placement.traced:
                spec = replace(spec, spans=str(node_file(place.files, node.name)))
            write_private_text(path, spec.to_json())
            plans.append(
                ProcessPlan(
                    pod=node.name,
                    role=SERVICE,
                    argv=(sys.executable, "-m", "meshwise.service", "--spec", str(path)),
                    environment=dict(os.environ),
                    ready=Ready(SERVICE_PORTS[Protocol.HTTP1], "/healthz"),
                )
            )
        return plans

    def beside(self, environment: Environment) -> Sequence[OwnedProcess]:
        return ()

    def stop(self) -> None:
        return

    def rest(self, place: ApplicationEnvironment) -> None:
        """A node ends a connection when its peer does, and all of its peers are sidecars or instruments."""

    def again(self, place: ApplicationEnvironment, cell: Cell, workload: str) -> None:
        return

    def renew(self, place: ApplicationEnvironment, cell: Cell) -> None:
        return

    def ask(
        self, place: ApplicationEnvironment, trial: Trial, clients: Mapping[str, LoadSpec], files: Path
    ) -> TrialLoad:
        return TrialLoad(clients)


def node_file(files: Path, name: str) -> Path:
    """Where the node of that name writes its spans."""
    return files / f"{name}.spans"


COUNTED_DATE = "Fri, 01 Jan 2027 00:00:00 GMT"
"""What a counted node answers: a proxy in front would add the time of the day, and h2's table of headers,
which it searches for every answer, would grow by an entry each second."""


def node_spec(environment: Environment, name: str, seed: int = 0) -> NodeSpec:
    """What the graph node of a workload is told at its start; `seed` is of the chances it draws."""

    def upstream(callee: str) -> tuple[str, Upstream]:
        return callee, Upstream(environment.address(callee), environment.placement[callee].workload.host)

    scripts = {
        topology.name: service
        for topology in environment.scripted
        for service in (topology.graph.services if topology.graph else ())
        if service.name == name
    }
    calls = [upstream(callee) for callee in environment.placement[name].workload.calls]
    chain = [there for callee, there in calls if not _is_leaf(callee)]
    leaves = tuple(there for callee, there in calls if _is_leaf(callee))
    # No cell asks for work, so no node spends its start on calibrating it.
    return NodeSpec(
        name,
        next=chain[0] if chain else None,
        leaves=leaves,
        scripts=scripts,
        upstreams=dict(calls) if scripts else {},
        seed=seed,
        work_rounds_per_us=1.0,
        deadline_ns=round(environment.patience.call_s * 1e9),
        date=COUNTED_DATE if environment.placement.counted else "",
    )


def _is_leaf(name: str) -> bool:
    return name.startswith("leaf-")
