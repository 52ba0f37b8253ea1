"""The conformance suites of `RawLine` and `AttackStage`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from tests.support.fake_mesh import NotesMesh
from tests.support.line_conformance import LineConformance
from tests.support.mesh_samples import placement
from tests.support.stage_conformance import NotedStage, StageConformance

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import Patience
from meshwise.mesh.protection.socket_line import SocketLine, open_line
from meshwise.mesh.protection.stage import AttackStage
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import Delivered, Placement
from meshwise.service.arrivals import ArrivalLog
from meshwise.service.http1_server import Http1Server, RequestHeadCache
from meshwise.service.spec import NodeSpec
from meshwise.study.model import Cell
from meshwise.testbed.fake_reach import FakeLine, FakeReach, services_of
from meshwise.testbed.local.stage import LocalStage


def served() -> socket.socket:
    """A service's codec behind a pair of sockets."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        codec = Http1Server(RequestHeadCache(NodeSpec("n"), 1.0), lambda *_: None)
        with theirs:
            while data := theirs.recv(4096):
                theirs.sendall(codec.receive(data))

    threading.Thread(target=serve, daemon=True).start()
    return ours


class TestSocketLine(LineConformance):
    def line(self) -> SocketLine:
        return open_line(served, None)

    def refused(self) -> SocketLine:
        def nobody() -> socket.socket:
            raise ConnectionRefusedError("nobody")

        return open_line(nobody, None)


class TestFakeLine(LineConformance):
    def line(self) -> FakeLine:
        return FakeReach(services=services_of(ArrivalLog())).line("client", "10.0.0.1", 8080)

    def refused(self) -> FakeLine:
        return FakeReach().line("client", "10.0.0.1", 8080)


@dataclass
class Notes(NotesMesh):
    """Remembers what it was told, and may have lost its control plane."""

    guarded: bool = False
    brought: list[tuple[str, bool]] = field(default_factory=list)
    silent_for: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def guard(self, guarded: bool) -> None:
        self.guarded = guarded

    def push(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        self.brought.append((cell.posture.name, self.guarded))

    def delivered(self, placement: Placement) -> Delivered:
        if self.silent_for:
            self.silent_for -= 1
            raise messages.CONTROLLER_SILENT.error(process_set="a", reason="not yet")
        return Delivered(1)


def stage_of(mesh: Notes, why: str = "", settle_s: float = 1.0) -> AttackStage:
    @contextmanager
    def ended() -> Iterator[str]:
        yield why
        if not why:
            mesh.silent_for += 2

    patient = replace(placement(), patience=Patience(settle_s=settle_s))
    return LocalStage(mesh, patient, FakeReach(), ended)


class TestLocalStage(StageConformance):
    @pytest.fixture(autouse=True)
    def _mesh(self) -> None:
        self.mesh = Notes()

    def stage(self) -> AttackStage:
        return stage_of(self.mesh)

    def in_force(self) -> tuple[str, bool]:
        return self.mesh.brought[-1]


class TestNotedStage(StageConformance):
    @pytest.fixture(autouse=True)
    def _stage(self) -> None:
        self.noted = NotedStage()

    def stage(self) -> AttackStage:
        return self.noted

    def in_force(self) -> tuple[str, bool]:
        return self.noted.pushed[-1]


def test_a_control_plane_that_does_not_come_back_is_an_error_with_a_name() -> None:
    mesh = Notes()
    with pytest.raises(MeshwiseError) as caught, stage_of(mesh, settle_s=0.0).without_control_plane():
        mesh.silent_for = 10**6
    assert caught.value.code == messages.CONTROLLER_SILENT.code


def test_where_there_is_none_it_says_why_and_waits_for_nothing() -> None:
    mesh = Notes(silent_for=10**6)
    with stage_of(mesh, "there is none").without_control_plane() as why:
        assert why == "there is none"
