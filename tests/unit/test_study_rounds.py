"""Which trials run at the same time: arms of one traffic, each on a set of processes of its own."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from meshwise.study.design.blocks import design, design_block
from meshwise.study.design.estimate import doubts
from meshwise.study.design.rounds import block_rounds, most_arms, set_name
from meshwise.study.factor import FactorRole
from meshwise.study.factors import FACTORS
from meshwise.study.file.read import parse_study
from meshwise.study.model import Role, Study, Trial


@cache
def study(more: str = "factors: {posture: ladder, protocol: [http1, grpc]}\n") -> Study:
    return parse_study(f"name: x\nseed: 7\nenvironments: [none, istio]\n{more}", "s.yaml")


def rounds(trials: tuple[Trial, ...]) -> dict[int, list[Trial]]:
    found: dict[int, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.round, []).append(trial)
    return found


def test_a_round_has_one_traffic_and_every_arm_processes_of_its_own() -> None:
    for arms in rounds(design(study())).values():
        traffic = {
            tuple(getattr(arm.cell, each.field) for each in FACTORS if each.role is FactorRole.CONTEXT)
            for arm in arms
        }
        assert len(traffic) == 1
        assert len({(arm.cell.mesh, arm.process_set) for arm in arms}) == len(arms)
        assert [arm.arm for arm in arms] == list(range(len(arms)))
        assert len({arm.block for arm in arms}) == len({arm.execution for arm in arms}) == 1


def test_every_cell_and_its_twin_stand_once_in_each_block() -> None:
    wanted = Counter((cell, Role.CELL) for cell in study().cells)
    wanted += Counter((cell, Role.TWIN) for cell in study().control.twin)
    for block in range(study().blocks):
        own = [trial for trial in design_block(study(), block) if trial.role is not Role.ALONE]
        assert Counter((trial.cell, trial.role) for trial in own) == wanted


def test_a_cell_keeps_its_set_of_processes_while_the_order_changes() -> None:
    sets: dict[object, set[str]] = {}
    orders = set()
    for block in range(study().blocks):
        trials = design_block(study(), block)
        orders.add(tuple(trial.cell.name for trial in trials))
        for trial in trials:
            sets.setdefault((trial.cell, trial.role), set()).add(trial.process_set)
    assert all(len(each) == 1 for each in sets.values())
    assert len(orders) == study().blocks


def test_clients_outside_the_mesh_have_a_round_of_their_own() -> None:
    mixed = study("factors: {posture: ladder, plaintext_share: [0%, 20%]}\n")
    alone = [arms for arms in block_rounds(mixed) if len(arms) == 1]
    assert [task.cell.plaintext_share for (task,) in alone] == [0.2]
    assert len(block_rounds(mixed)) == 2


def test_a_client_of_another_namespace_has_a_round_of_its_own() -> None:
    mixed = study(
        "factors: {posture: [none, strict], forbidden_share: [0%, 20%], forbidden_by: [request, identity]}\n"
    )
    alone, together = sorted(block_rounds(mixed), key=len)
    assert [task.cell.stranger_share for task in alone] == [0.2]
    assert {task.cell.forbidden_share for task in together} == {0.0, 0.2}
    assert all(task.cell.stranger_share == 0 for task in together)


def test_a_round_that_is_too_large_is_divided_and_the_parts_share_their_first_arm() -> None:
    large = study("factors: {posture: ladder, policies: [0, 1, 2, 5, 10, 20, 50, 100]}\n")
    parts = block_rounds(large)
    assert len(parts) > 1
    reference = parts[1][0].cell
    assert all(len(arms) <= most_arms(reference) == 14 for arms in parts)
    assert reference.posture.name == "plaintext"
    assert reference in [task.cell for task in parts[0]]
    assert all((arms[0].cell, arms[0].role) == (reference, Role.REFERENCE) for arms in parts[1:])
    cells = [task.cell for arms in parts for task in arms if task.role is Role.CELL]
    assert Counter(cells) == Counter(large.cells)


def test_parts_are_about_as_large_and_a_twin_is_beside_its_cell() -> None:
    factors = "factors: {posture: ladder, policies: [10, 100]}\n"
    large = parse_study(f"name: x\nseed: 7\nenvironments: [none, istio, linkerd]\n{factors}", "s.yaml")
    parts = block_rounds(large)
    sizes = [sum(task.role is not Role.REFERENCE for task in arms) for arms in parts]
    assert len(parts) == 2
    assert max(sizes) - min(sizes) <= 2
    for arms in parts:
        cells = {task.cell for task in arms if task.role is Role.CELL}
        assert {task.cell for task in arms if task.role is Role.TWIN} <= cells


def test_rounds_of_long_chains_have_fewer_arms() -> None:
    parts = block_rounds(study("factors: {posture: ladder, length: 6}\n"))
    assert all(len(arms) <= 4 for arms in parts), "each has seven sidecars"
    assert len(parts) == 3
    assert sum(task.role is Role.REFERENCE for arms in parts for task in arms) == len(parts) - 1


def test_plan_says_when_a_round_asks_for_more_than_a_cpu() -> None:
    told = [
        said
        for said in doubts(study("factors: {posture: ladder, rate: 500/s}\n"))
        if "arms of a round" in said
    ]
    assert len(told) == 1
    assert "3000 requests/s through sidecars" in told[0]
    assert not [said for said in doubts(study("factors: {posture: ladder, rate: 50/s}\n")) if "arms" in said]


@pytest.mark.parametrize(("number", "name"), [(0, "a"), (25, "z"), (26, "a1"), (52, "a2")])
def test_sets_have_names(number: int, name: str) -> None:
    assert set_name(number) == name
