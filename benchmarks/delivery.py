"""How soon a change of Istio's configuration is acknowledged: one control plane, 1 to 100 proxies.

    python benchmarks/delivery.py [--proxies 1 10 100] [--changes 20]

The control plane is the process of a study (`mesh/delivery/controller.py`). The proxies are clients over real
sockets, each with a connection of its own, all in one process: they subscribe to what Envoy would, take what
comes and accept it. Each is configured as a sidecar in a chain of ten services. A change is

    posture        strict to strict+namespace, and back: one listener of each proxy
    1000 policies  instead of as many others, in turn on the nine workloads: one listener of 200 kB
    1000 on each   the same, 1000 on the workload of each proxy: one listener of 1.4 MB

Times are CLOCK_MONOTONIC's, in the control plane: from when it had the change until it read each proxy's
answer. Of each change the median, the 99th percentile and the last proxy; printed are medians over changes
(the change is the unit, not the proxy). What the side that makes a change takes before that (encoding,
writing) stands beside it, without the translation.

Figure: 100 proxies have acknowledged a change of the posture within a second, with what is before. Exit
status 1 else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.delivery_conformance import identity
from tests.support.mesh_samples import CELL, placement
from tests.support.xds_client import Clients, XdsClient, control_plane, wait_for

from meshwise.mesh.changes import PolicyPush
from meshwise.mesh.delivery.names import CONTROLLER_DIRECTORY, XDS_SOCKET
from meshwise.mesh.delivery.seam import ProxyConfig
from meshwise.mesh.delivery.stream import SOURCES, StreamDelivery
from meshwise.mesh.istio import tls
from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.istio.translate import translate
from meshwise.study.model import LADDER, Cell
from meshwise.study.timeline import PushPolicies

MOST_S = 1.0
LENGTH = 9
POLICIES = 1000
WITHIN_S = 120.0
STRICT, NAMESPACE = (replace(CELL, posture=LADDER[rung], length=LENGTH) for rung in (2, 3))


@dataclass(frozen=True)
class Change:
    """One, acknowledged by all. Milliseconds."""

    before: float
    """Until the control plane had it."""
    answered: tuple[float, ...]
    """Of each proxy, since then."""

    @property
    def last(self) -> float:
        return self.before + max(self.answered)


class Bench:
    """A number of proxies and their control plane."""

    def __init__(self, home: Path, count: int) -> None:
        self.directories = [home / f"p{number}" for number in range(count)]
        self.controller = home / CONTROLLER_DIRECTORY
        self._delivery = StreamDelivery(
            self.controller, tls.CERTIFICATE_SECRET, tls.ROOT_SECRET, None, WITHIN_S
        )
        for directory in self.directories:
            self._delivery.lay_out(directory)
        keys = identity(self.directories[0])
        self._identities = dict.fromkeys(self.directories, keys)
        self._versions = 0

    def bring(self, configs: Sequence[ProxyConfig]) -> int:
        """Each proxy is one of these sidecars, in turn; when it was begun."""
        chosen = {
            directory: replace(configs[number % len(configs)], node=directory.name)
            for number, directory in enumerate(self.directories)
        }
        self._versions += 1
        begun_ns = time.monotonic_ns()
        self._delivery.bring(chosen, f"v{self._versions}", self._identities)
        return begun_ns

    def change(self, configs: Sequence[ProxyConfig]) -> Change:
        begun_ns = self.bring(configs)
        told = self._delivery.acknowledged(self.directories, WITHIN_S)
        answered = []
        for each in told.values():
            assert each.done_ns is not None, "not acknowledged in time"
            assert not each.refused
            answered.append((each.done_ns - each.accepted_ns) / 1e6)
        accepted_ns = next(iter(told.values())).accepted_ns
        return Change((accepted_ns - begun_ns) / 1e6, tuple(answered))

    def connected(self) -> int:
        return len(self._delivery.status()["connected"])


@contextmanager
def running(bench: Bench) -> Iterator[None]:
    """The control plane, and the proxies in a process of their own, all of them with their configuration."""
    names = [directory.name for directory in bench.directories]
    with control_plane(bench.controller):
        swarm = subprocess.Popen(
            [sys.executable, __file__, "--swarm", str(bench.controller / XDS_SOCKET), *names]
        )
        try:
            wait_for(lambda: bench.connected() == len(names), "all proxies connected")
            time.sleep(1.0)
            yield
        finally:
            swarm.kill()
            swarm.wait()


def swarm(socket: str, names: Sequence[str]) -> None:
    """Until it is killed."""
    with Clients() as clients:
        for name in names:
            clients.start(XdsClient(name, socket))
        while True:
            time.sleep(60)


def sidecars(cell: Cell, policies: int = 0, number: int = 0) -> list[ProxyConfig]:
    """Of all services that are called. `policies`: pushed beside the cell's own, other ones by `number`."""
    here = placement(LENGTH)
    model = IstioModel()
    if policies:
        model = replace(model, pushed=PolicyPush(PushPolicies(policies, relevant=True), number))
    view = model.view(here, cell, "bench", SOURCES)
    return [translate(view, each.name) for each in here.workloads[1:]]


def report(what: str, count: int, changes: Sequence[Change]) -> float:
    """The median of the last proxy, with what is before."""
    answered = np.array([each.answered for each in changes])
    columns = {
        "before": [each.before for each in changes],
        "P50": np.median(answered, axis=1),
        "P99": np.percentile(answered, 99, axis=1),
        "last": answered.max(axis=1),
        "all in": [each.last for each in changes],
    }
    figures = "  ".join(f"{name} {float(np.median(values)):8.2f}" for name, values in columns.items())
    print(f"{what:14} {count:4} proxies, {len(changes)} changes, ms: {figures}", flush=True)
    return float(np.median(columns["all in"]))


def measure(count: int, changes: int) -> float:
    """The figure, in seconds, of so many proxies."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        bench = Bench(Path(home), count)
        strict, namespace = sidecars(STRICT), sidecars(NAMESPACE)
        bench.bring(strict)
        with running(bench):
            for warm in (namespace, strict):
                bench.change(warm)
            postures = [bench.change(strict if number % 2 else namespace) for number in range(changes)]
            figure = report("posture", count, postures) / 1e3
            for what, policies in (("1000 policies", POLICIES), ("1000 on each", POLICIES * LENGTH)):
                pushed = [sidecars(STRICT, policies, number) for number in range(2)]
                report(what, count, [bench.change(pushed[number % 2]) for number in range(changes // 4)])
    return figure


def main() -> int:
    if sys.argv[1:2] == ["--swarm"]:
        swarm(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proxies", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--changes", type=int, default=20)
    asked = parser.parse_args()
    figures = {count: measure(count, asked.changes) for count in asked.proxies}
    largest = max(figures)
    held = figures[largest] < MOST_S
    print(f"{largest} proxies have acknowledged a posture in {figures[largest] * 1e3:.0f} ms (at most 1000)")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
