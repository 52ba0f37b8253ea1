"""Lays the rule that forbids (`guard_rule`) over a posture for as long as an attempt lasts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from meshwise.mesh.protection.guard_rule import METHOD
from meshwise.mesh.protection.requests import Attacker, new_mark
from meshwise.mesh.protection.scene import Scene
from meshwise.mesh.protection.stage import AttackStage


@contextmanager
def laid(scene: Scene, stage: AttackStage) -> Iterator[str]:
    """The rule is in force within; yields why it is not, or nothing. Pushed, and taken away again."""
    stage.push(scene.cell, guarded=True)
    try:
        yield _in_force(scene)
    finally:
        stage.push(scene.cell)


def _in_force(scene: Scene) -> str:
    """A forbidden request is refused and the allowed one answered, now that the proxies have been told."""
    attacker = Attacker(scene)
    deadline = time.monotonic() + scene.placement.patience.settle_s

    def ask(method: str) -> str:
        target = scene.request().path
        data = attacker.bytes_of(method, target, attacker.authority, attacker.fields(new_mark()))
        return str(attacker.send(data))

    while True:
        forbidden, allowed = ask(METHOD), ask(scene.request().method)
        if (forbidden, allowed) == ("403", "200"):
            return ""
        if time.monotonic() > deadline:
            return (
                f"the rule was not in force: {METHOD} was answered {forbidden}, the allowed request {allowed}"
            )
        time.sleep(0.02)
