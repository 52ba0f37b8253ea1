"""Every application keeps to the seam: the graph node, the bank, and a fake."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
from tests.support.application_conformance import ApplicationConformance
from tests.support.studies import cell, study

from meshwise.core import linux
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.load.spec import LoadSpec
from meshwise.mesh.seam import Capture, ProcessPlan, Ready
from meshwise.study.bank import BankOperation
from meshwise.study.model import LADDER, Cell, Study, TopologyKind, Trial
from meshwise.testbed.applications.choose import application_of
from meshwise.testbed.applications.echo import Echo
from meshwise.testbed.applications.seam import Application, ApplicationEnvironment, TrialLoad
from meshwise.testbed.layout import SERVICE, Environment

STRICT = LADDER[2]


class TestEcho(ApplicationConformance):
    @classmethod
    def question(cls) -> Study:
        return study([cell(), cell(STRICT, length=3)])

    @classmethod
    def make(cls, question: Study) -> Application:
        made = application_of(question)
        assert isinstance(made, Echo)
        return made


class TestBankApplication(ApplicationConformance):
    @classmethod
    def question(cls) -> Study:
        levels = {"shape": TopologyKind.BANK, "request_bytes": 0, "response_bytes": 0}
        question = study([cell(**levels)])
        mix = ((BankOperation.TRANSFER, 2.0), (BankOperation.PROFILE, 1.0))
        return replace(question, trial=replace(question.trial, mix=mix))

    @classmethod
    def make(cls, question: Study) -> Application:
        for package in ("asyncpg", "aiohttp", "redis", "starlette"):
            if importlib.util.find_spec(package) is None:
                pytest.skip("needs the bank: pip install 'meshwise[bank]'")
        try:
            os.close(linux.new_network())
        except PermissionError:
            pytest.skip("needs root, for stores at their own ports in a network of their own")
        return application_of(question)


class Kiosk:
    """A fake: one service a workload, one process beside, a counter that each trial begins at 0."""

    def __init__(self) -> None:
        self.sold = 0
        self._stack = ExitStack()
        self._running: dict[str, OwnedProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def describe(self) -> Mapping[str, object]:
        return {"kiosk": "of a test"}

    def capture(self, rules: Capture, workload: str) -> Capture:
        return rules

    def start(self, place: ApplicationEnvironment, draws: str) -> Sequence[ProcessPlan]:
        place.files.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{place.environment.pod_name(place.environment.nodes[0].name)}/till"
        plan = LaunchPlan(name, ("/bin/sleep", "300"), network_fd=place.network_fd("till"))
        self._running[place.environment.name] = self._stack.enter_context(OwnedProcess(plan))
        return [
            ProcessPlan(node.name, SERVICE, ("/bin/sleep", "300"), ready=Ready(80, "/"))
            for node in place.environment.nodes
        ]

    def beside(self, environment: Environment) -> Sequence[OwnedProcess]:
        return [self._running[environment.name]] if environment.name in self._running else []

    def stop(self) -> None:
        self._running = {}
        self._stack.close()

    def rest(self, place: ApplicationEnvironment) -> None:
        place.tell(place.environment.nodes[0].name, 80, "/close")

    def again(self, place: ApplicationEnvironment, cell: Cell, workload: str) -> None:
        place.tell(workload, 80, "/open")

    def renew(self, place: ApplicationEnvironment, cell: Cell) -> None:
        self.sold = 0

    def ask(
        self, place: ApplicationEnvironment, trial: Trial, clients: Mapping[str, LoadSpec], files: Path
    ) -> TrialLoad:
        return TrialLoad({name: replace(spec, path="/buy") for name, spec in clients.items()})


class TestKiosk(ApplicationConformance):
    @classmethod
    def question(cls) -> Study:
        return study([cell()])

    @classmethod
    def make(cls, question: Study) -> Application:
        return Kiosk()
