"""Events are carried out beside who watches: in their order, with what was intended and what came of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.fake_mesh import NotesMesh
from tests.support.studies import cell

from meshwise.archive.schema import EVENTS, conform
from meshwise.core import messages
from meshwise.findings.flag import Flag
from meshwise.mesh.changes import NOT_DONE, Change, Disturbance, RestartProxy, Taken
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import PlacedWorkload, Placement
from meshwise.study.model import LADDER, Cell, MeshName, Timeline
from meshwise.study.timeline import (
    ChangePosture,
    Declared,
    Fail,
    Failing,
    PushPolicies,
    RenewalFault,
    Restart,
    Restarted,
    Rotate,
    Rotated,
    Skew,
)
from meshwise.testbed.fake_reach import FakeReach
from meshwise.testbed.local.happening import DisturbedArm, Happenings

MS = 10**6
PLAINTEXT, PERMISSIVE, STRICT = LADDER[:3]
OWN = cell(PERMISSIVE, mesh=MeshName.LINKERD)
TARGETS = {
    Restarted.PROXY: ["linkerd/a/node-1/proxy", "linkerd/a/client/proxy"],
    Restarted.SERVICE: ["linkerd/a/node-1/service"],
    Restarted.CONTROLLER: ["linkerd/a/client/controller"],
}


class Talking(NotesMesh):
    """Says in order what it was asked; `slow_s` per change; does not rotate while renewal fails."""

    def __init__(self, slow_s: float = 0.0, refuses: bool = False) -> None:
        super().__init__()
        self.said: list[str] = []
        self.slow_s, self.refuses, self.failing_now = slow_s, refuses, False

    def cannot(self, cell: Cell, act: object) -> str | None:
        return "the clock is nobody's here" if isinstance(act, Skew) else None

    def carry_out(
        self, placement: Placement, cell: Cell, act: Change, reach: Reach, restart: RestartProxy
    ) -> Sequence[Taken]:
        self.said.append(act.posture.name if isinstance(act, ChangePosture) else type(act).__name__)
        time.sleep(self.slow_s)
        if self.refuses:
            raise messages.CONFIG_REFUSED.error(pod="node-1", cell=cell.name, reason="no such listener")
        now_ns = None if self.failing_now else time.monotonic_ns()
        return [
            Taken(each.name, now_ns, {NOT_DONE: "refused"} if self.failing_now else {"serial": "1"})
            for each in placement.workloads
        ]

    def failing(self, placement: Placement, act: Disturbance) -> AbstractContextManager[None]:
        @contextmanager
        def fails() -> Iterator[None]:
            self.failing_now = True
            self.said.append("fails")
            yield
            self.said.append("works")
            self.failing_now = False

        return fails()


class Bed:
    """What a testbed does to processes; `gone`: the control plane does not come back."""

    def __init__(self, *, gone: bool = False) -> None:
        self.restarted: list[tuple[str, bool]] = []
        self.threads: set[int] = set()
        self.gone = gone

    def restart(self, name: str, drain: bool) -> Mapping[str, object]:
        self.restarted.append((name, drain))
        self.threads.add(threading.get_ident())
        return {"pid": 7}

    @contextmanager
    def without(self, how: RenewalFault) -> Iterator[None]:
        yield
        if self.gone:
            raise messages.NOT_READY.error(name="controller", what="ready", timeout=1, tail="")


def arm(mesh: NotesMesh, bed: Bed, tmp_path: Path) -> DisturbedArm:
    placed = [PlacedWorkload(each, "10.0.0.1", "10.0.1.1") for each in OWN.topology.workloads]
    placement = Placement(MeshName.LINKERD, "a", tuple(placed), "10.0.0.9", tmp_path)
    reach = cast(Reach, FakeReach())
    return DisturbedArm("linkerd/a", mesh, placement, OWN, reach, TARGETS, bed.restart, bed.without)


def happened(
    tmp_path: Path,
    *declared: Declared,
    mesh: NotesMesh | None = None,
    bed: Bed | None = None,
    window_ms: int = 200,
    ends_ms: int | None = None,
) -> tuple[list[dict[str, Any]], Happenings]:
    with ThreadPoolExecutor(2) as hands:
        found = Happenings(
            [arm(mesh or Talking(), bed or Bed(), tmp_path)], Timeline(declared), window_ms * MS, hands
        )
        found.begin(time.monotonic_ns(), {"linkerd/a"})
        deadline = time.monotonic() + (window_ms if ends_ms is None else ends_ms) / 1000
        while time.monotonic() < deadline and not found.failure_of("linkerd/a"):
            time.sleep(0.005)
        found.end()
    table = found.events_of("linkerd/a")
    assert table is not None
    conform(table, EVENTS, "b000-p00")
    return [{**row, "detail": json.loads(row["detail"])} for row in table.to_pylist()], found


def test_a_change_has_a_row_per_workload_with_what_it_said(tmp_path: Path) -> None:
    rows, found = happened(tmp_path, Declared(Rotate(Rotated.LEAF), (50 * MS,)))
    assert [row["target"] for row in rows] == ["linkerd/a/client/proxy", "linkerd/a/node-1/proxy"]
    for row in rows:
        assert (row["event"], row["kind"], row["entry"], row["occurrence"]) == (
            "rotate leaf",
            "rotation",
            0,
            0,
        )
        assert row["intended_ns"] == 50 * MS
        assert row["intended_ns"] <= row["begun_ns"] <= row["done_ns"]
        assert (row["t_ns"], row["duration_ns"]) == (row["begun_ns"], row["done_ns"] - row["begun_ns"])
        assert row["detail"]["serial"] == "1"
    assert found.failure_of("linkerd/a") == ""


def test_a_posture_goes_there_and_back(tmp_path: Path) -> None:
    mesh = Talking()
    happened(tmp_path, Declared(ChangePosture(STRICT), (0, 50 * MS, 100 * MS)), mesh=mesh)
    assert mesh.said == ["strict", "permissive", "strict"]


def test_targets_are_restarted_in_turn_by_a_thread_that_stays(tmp_path: Path) -> None:
    """What a thread starts ends with it, so it must be one of the pool's."""
    bed = Bed()
    declared = [
        Declared(Restart(Restarted.PROXY), (0, 20 * MS, 40 * MS)),
        Declared(Restart(Restarted.PROXY, drain=True, workload="client"), (60 * MS,)),
        Declared(Restart(Restarted.CONTROLLER), (80 * MS,)),
    ]
    rows, _ = happened(tmp_path, *declared, bed=bed)
    node, client = TARGETS[Restarted.PROXY]
    [controller] = TARGETS[Restarted.CONTROLLER]
    assert bed.restarted == [
        (node, False), (client, False), (node, False), (client, True), (controller, False),
    ]  # fmt: skip
    assert [row["target"] for row in rows] == [name for name, _ in bed.restarted]
    assert [row["detail"]["drain"] for row in rows] == [False, False, False, True, False]
    assert bed.threads == {next(iter(bed.threads))}
    assert threading.get_ident() not in bed.threads


def test_a_change_that_needs_a_start_has_the_proxy_drained_and_started_again(tmp_path: Path) -> None:
    class AtItsStart(Talking):
        def carry_out(
            self, placement: Placement, cell: Cell, act: Change, reach: Reach, restart: RestartProxy
        ) -> Sequence[Taken]:
            for workload in ("node-1", "client"):
                restart(workload)
            return []

    bed = Bed()
    happened(tmp_path, Declared(Rotate(Rotated.ANCHOR), (0,)), mesh=AtItsStart(), bed=bed)
    assert bed.restarted == [(name, True) for name in TARGETS[Restarted.PROXY]]


def test_what_fails_for_a_while_meets_what_is_asked_meanwhile(tmp_path: Path) -> None:
    mesh = Talking()
    rows, _ = happened(
        tmp_path,
        Declared(Fail(Failing.RENEWAL, 600 * MS), (0,)),
        Declared(Rotate(Rotated.LEAF), (300 * MS, 1000 * MS)),
        mesh=mesh,
        window_ms=1100,
    )
    assert mesh.said == ["fails", "Rotate", "works", "Rotate"]
    [failure] = [row for row in rows if row["event"] == "fail renewal"]
    assert failure["target"] == "linkerd/a"
    assert failure["done_ns"] >= 600 * MS
    during, after = ([row for row in rows if row["occurrence"] == number] for number in (1, 2))
    assert {(row["done_ns"], row["detail"][NOT_DONE]) for row in during} == {(None, "refused")}
    assert all(row["done_ns"] for row in after)


def test_what_waits_for_a_failure_to_be_over_does_not_keep_it_from_being_over(tmp_path: Path) -> None:
    """A proxy that starts anew while its control plane stands still is ready when that goes on."""

    class Waiting(Talking):
        def carry_out(self, *given: Any) -> Sequence[Taken]:
            deadline = time.monotonic() + 10
            while self.failing_now and time.monotonic() < deadline:
                time.sleep(0.005)
            return super().carry_out(*given)

    mesh = Waiting()
    rows, found = happened(
        tmp_path,
        Declared(Fail(Failing.RENEWAL, 100 * MS), (20 * MS,)),
        Declared(Rotate(Rotated.LEAF), (50 * MS,)),
        mesh=mesh,
    )
    assert mesh.said == ["fails", "works", "Rotate"]
    assert found.failure_of("linkerd/a") == ""
    assert all(row["done_ns"] >= 120 * MS for row in rows)


def test_what_a_mesh_cannot_is_said_and_not_begun(tmp_path: Path) -> None:
    rows, found = happened(tmp_path, Declared(Skew(10**9, 50 * MS), (20 * MS,)))
    [row] = rows
    assert (row["begun_ns"], row["done_ns"], row["t_ns"]) == (None, None, 20 * MS)
    assert row["detail"][NOT_DONE] == "the clock is nobody's here"
    assert found.flags_of("linkerd/a") == ()


def test_an_event_that_begins_late_says_so_and_is_flagged(tmp_path: Path) -> None:
    rows, found = happened(
        tmp_path,
        Declared(Rotate(Rotated.LEAF), (0,)),
        Declared(PushPolicies(1), (10 * MS,)),
        mesh=Talking(slow_s=0.15),
        window_ms=300,
    )
    late = [row["begun_ns"] - row["intended_ns"] for row in rows if row["event"] == "push policies"]
    assert min(late) > 100 * MS
    assert [Flag.read(flag).code for flag in found.flags_of("linkerd/a")] == ["event_late"]


def test_a_control_plane_that_does_not_come_back_ends_the_trial(tmp_path: Path) -> None:
    mesh = Talking()
    rows, found = happened(
        tmp_path,
        Declared(Fail(Failing.CONTROLLER, 20 * MS, RenewalFault.GONE), (10 * MS,)),
        Declared(Rotate(Rotated.LEAF), (10**10,)),
        mesh=mesh,
        bed=Bed(gone=True),
        window_ms=20_000,
    )
    assert "event `fail controller` at 10ms failed" in found.failure_of("linkerd/a")
    assert mesh.said == [], "nothing more is done to it"
    assert [(row["event"], row["done_ns"]) for row in rows] == [
        ("fail controller", None),
        ("rotate leaf", None),
    ]
    assert [Flag.read(flag).code for flag in found.flags_of("linkerd/a")] == ["event_failed"]


def test_a_proxy_that_refuses_ends_the_trial_with_its_own_words(tmp_path: Path) -> None:
    rows, found = happened(tmp_path, Declared(PushPolicies(1), (0,)), mesh=Talking(refuses=True))
    assert "no such listener" in found.failure_of("linkerd/a")
    assert "no such listener" in rows[0]["detail"][NOT_DONE]


def test_what_goes_on_when_a_trial_ends_early_is_over(tmp_path: Path) -> None:
    mesh = Talking()
    rows, _ = happened(
        tmp_path,
        Declared(Fail(Failing.RENEWAL, 10**10), (0,)),
        Declared(Rotate(Rotated.LEAF), (5 * 10**9,)),
        mesh=mesh,
        window_ms=20_000,
        ends_ms=50,
    )
    assert mesh.said == ["fails", "works"]
    assert rows[0]["done_ns"] < 5 * 10**9
    assert (rows[1]["begun_ns"], rows[1]["detail"][NOT_DONE]) == (None, "the trial had ended")


def test_a_fault_of_its_own_is_raised_and_nothing_is_left_going_on(tmp_path: Path) -> None:
    class Broken(Talking):
        def carry_out(self, *given: object) -> Sequence[Taken]:
            raise ZeroDivisionError

    mesh = Broken()
    with pytest.raises(ZeroDivisionError):
        happened(
            tmp_path,
            Declared(Fail(Failing.RENEWAL, 10**10), (0,)),
            Declared(Rotate(Rotated.LEAF), (10 * MS,)),
            mesh=mesh,
        )
    assert mesh.said == ["fails", "works"]
