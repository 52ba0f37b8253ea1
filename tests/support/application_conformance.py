"""The contract of `Application`, to be run on every implementation and on a fake.

class TestMyApplication(ApplicationConformance):
    @classmethod
    def question(cls) -> Study: ...                     # with one cell or more in every environment
    @classmethod
    def make(cls, question: Study) -> Application: ...
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pytest

from meshwise.core import linux
from meshwise.load.spec import LoadSpec
from meshwise.mesh.request import request_of
from meshwise.mesh.seam import Capture
from meshwise.study.model import Study, Trial
from meshwise.testbed.applications.seam import Application, ApplicationEnvironment
from meshwise.testbed.layout import SERVICE, Environment, lay_out
from meshwise.testbed.local.instrument import load_spec
from meshwise.testbed.seam import Measurement
from tests.support.studies import trial

_OF_THE_TESTBED = (
    "testbed",
    "meshwise",
    "machine",
    "privileged",
    "proxies",
    "traits",
    "workers",
    "cpus",
    "capture",
)
_OF_THE_CELL = (
    "address", "port", "authority", "protocol", "arrivals", "rate_rps", "seed", "warmup_ns", "duration_ns",
    "timeout_ns", "connections", "streams", "shape", "trace", "think",
)  # fmt: skip
"""What an application does not touch: when requests are sent, and by which way."""


@dataclass
class Pods:
    """Pods without processes: every command is obeyed, and kept."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    def tell(self, pod: str, _port: int, path: str) -> None:
        self.asked.append((pod, path))


@dataclass(frozen=True)
class Begun:
    """An application that has started in every environment of its study."""

    question: Study
    application: Application
    places: Mapping[str, ApplicationEnvironment]
    pods: Pods

    def first(self) -> tuple[ApplicationEnvironment, Trial]:
        return next(iter(self.places.values())), trial(0, self.question.cells[0])


class ApplicationConformance:
    """Subclass it. What it needs to run is started once for the class."""

    @classmethod
    def question(cls) -> Study:
        raise NotImplementedError

    @classmethod
    def make(cls, question: Study) -> Application:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def begun(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
        home = tmp_path_factory.mktemp("application")
        question, pods = cls.question(), Pods()
        application = cls.make(question)
        places = {}
        with ExitStack() as networks, application:

            def network_fd(workload: str) -> int | None:
                """A network per pod, where this user may make one."""
                try:
                    made = linux.new_network()
                except PermissionError:
                    return None
                networks.callback(os.close, made)
                return made

            for environment in lay_out(question, home / "environments"):
                own = home / environment.name.replace("/", "-")
                place = ApplicationEnvironment(
                    environment, pods.tell, network_fd, own / "files", home / "logs"
                )
                places[environment.name] = place
            yield Begun(question, application, places, pods)

    def test_its_processes_are_services_of_its_workloads_with_private_files(self, begun: Begun) -> None:
        for place in begun.places.values():
            plans = begun.application.start(place, "draws")
            nodes = {placed.name for placed in place.environment.nodes}
            assert plans
            assert len({plan.pod for plan in plans}) == len(plans), "one a pod"
            for plan in plans:
                assert (plan.pod in nodes, plan.role) == (True, SERVICE)
                assert plan.ready is not None, (
                    "a process that does not say when it is ready is not waited for"
                )
            for path in place.files.rglob("*"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(place.files.stat().st_mode) == 0o700
            running = begun.application.beside(place.environment)
            assert all(process.running for process in running)
            assert all(process.name.startswith(f"{place.environment.name}/") for process in running)

    def test_the_mesh_keeps_its_capture(self, begun: Begun) -> None:
        rules = Capture(15006, 15001, 1337, (15090,), 1337, (15020,), "127.0.0.6", 15008)
        place, _ = begun.first()
        for placed in place.environment.placement.workloads:
            found = begun.application.capture(rules, placed.name)
            assert set(found.outbound_exempt_ports) >= set(rules.outbound_exempt_ports)
            own = {"outbound_exempt_ports": (), "inbound_redirects": ()}
            assert replace(found, **own) == replace(rules, **own)  # type: ignore[arg-type]

    def test_it_rests_and_is_made_anew_however_often(self, begun: Begun) -> None:
        place, one = begun.first()
        for _ in range(2):
            begun.application.rest(place)
            begun.application.renew(place, one.cell)
            begun.application.renew(place, one.cell)
        nodes = {placed.name for placed in place.environment.nodes}
        assert {pod for pod, _ in begun.pods.asked} <= nodes

    def test_it_says_what_is_asked_and_never_when(self, begun: Begun, tmp_path: Path) -> None:
        place, one = begun.first()
        clients = self._clients(begun.question, one, place.environment)
        load = begun.application.ask(place, one, clients, tmp_path / "asked")
        assert list(load.clients) == list(clients)
        for name, spec in load.clients.items():
            for key in _OF_THE_CELL:
                assert getattr(spec, key) == getattr(clients[name], key), key
        again = begun.application.ask(place, one, clients, tmp_path / "again")
        assert self._texts(tmp_path / "asked") == self._texts(tmp_path / "again")
        assert {name: replace(spec, script=None) for name, spec in again.clients.items()} == {
            name: replace(spec, script=None) for name, spec in load.clients.items()
        }

    def test_what_was_measured_is_kept_by_the_judge(self, begun: Begun, tmp_path: Path) -> None:
        place, one = begun.first()
        begun.application.renew(place, one.cell)
        clients = self._clients(begun.question, one, place.environment)
        load = begun.application.ask(place, one, clients, tmp_path / "asked")
        client = next(iter(clients))
        recorded = pa.table(
            {
                "intended_ns": pa.array(range(5), pa.int64()),
                "sent_ns": pa.array([None] * 5, pa.int64()),
                "status": pa.array([0] * 5, pa.int32()),
                "error": pa.array(["timeout"] * 5).dictionary_encode(),
            }
        )
        table = recorded if load.label is None else load.label(client, recorded)
        assert table.select(recorded.column_names).equals(recorded)
        requests = table.append_column("client", pa.array([client] * 5))
        sent: list[Path] = []

        def send(_: LoadSpec, files: Path) -> pa.Table:
            sent.append(files)
            return recorded.slice(0, 0)

        for failure in ("", "istio/a/node-1/proxy ended during the trial"):
            given = Measurement(requests, pa.table({}), 7, {"limited_by": "none"}, failure=failure)
            judged = load.judge(given, send)
            assert judged.failure == failure
            assert judged.requests.num_rows == 5
            assert judged.requests["intended_ns"].to_pylist() == list(range(5))
            assert (judged.started_unix_ns, judged.instrument) == (7, {"limited_by": "none"})
            assert set(given.flags) <= set(judged.flags)
            assert all(check.passed for check in judged.checks), "nothing was sent, so nothing is wrong"
        assert not sent, "what was never sent is not asked again"

    def test_it_describes_itself_in_keys_of_its_own(self, begun: Begun) -> None:
        said = begun.application.describe()
        assert json.loads(json.dumps(said)) == said
        assert not set(said) & set(_OF_THE_TESTBED)

    def test_stopping_ends_all_that_it_started_and_may_be_repeated(self, begun: Begun) -> None:
        running = [
            process
            for place in begun.places.values()
            for process in begun.application.beside(place.environment)
        ]
        begun.application.stop()
        begun.application.stop()
        assert not any(process.running for process in running)

    @staticmethod
    def _clients(question: Study, one: Trial, environment: Environment) -> dict[str, LoadSpec]:
        return {"mesh": load_spec(question, one, environment, request_of(one.cell), None)}

    @staticmethod
    def _texts(directory: Path) -> list[bytes]:
        return [path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()]
