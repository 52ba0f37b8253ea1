"""The conformance suite of the seam `AttackStage`: what an attempt may change, and what is as before
afterwards.

Subclass it and say how to get a stage, and what is in force:

    class TestMine(StageConformance):
        def stage(self) -> AttackStage: ...
        def in_force(self) -> tuple[str, bool]: ...  # the posture's name, and whether the rule lies over it
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from meshwise.mesh.protection.stage import AttackStage
from meshwise.study.model import LADDER, Cell
from tests.support.mesh_samples import CELL


@dataclass
class NotedStage:
    """A fake: notes the postures that it is told, and whether the rule lies over them."""

    pushed: list[tuple[str, bool]] = field(default_factory=list)

    def push(self, cell: Cell, *, guarded: bool = False) -> None:
        self.pushed.append((cell.posture.name, guarded))

    @contextmanager
    def without_control_plane(self) -> Iterator[str]:
        yield ""


class StageConformance:
    def stage(self) -> AttackStage:
        raise NotImplementedError

    def in_force(self) -> tuple[str, bool]:
        raise NotImplementedError

    def test_what_is_pushed_is_in_force(self) -> None:
        stage = self.stage()
        for posture in LADDER[:2]:
            stage.push(replace(CELL, posture=posture))
            assert self.in_force() == (posture.name, False)

    def test_the_rule_lies_over_what_is_pushed_with_it_and_over_nothing_else(self) -> None:
        stage = self.stage()
        stage.push(replace(CELL, posture=LADDER[0]), guarded=True)
        assert self.in_force() == (LADDER[0].name, True)
        stage.push(replace(CELL, posture=LADDER[0]))
        assert self.in_force() == (LADDER[0].name, False)

    def test_where_there_is_a_control_plane_it_is_back_afterwards(self) -> None:
        stage = self.stage()
        with stage.without_control_plane() as why:
            assert isinstance(why, str)
        stage.push(replace(CELL, posture=LADDER[1]))
        assert self.in_force() == (LADDER[1].name, False)
