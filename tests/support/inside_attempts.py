"""Program of the end-to-end tests of attempts: `inside_attempts.py MESH POSTURES KEYS` (commas between).

Tries each of these attempts once on real proxies and prints one line of JSON per try.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from meshwise.cli.wiring import meshes_that_drain
from meshwise.mesh.protection.catalogue import BY_KEY
from meshwise.runner.protect import Effort, protect, question_of
from meshwise.study.model import MeshName
from meshwise.study.security import POSTURES
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world
from tests.support.inside_world import say
from tests.support.studies import cell, study


def main(mesh: str, postures: str, keys: str) -> int:
    attempts = [BY_KEY[key] for key in keys.split(",")]
    wanted = [replace(cell(POSTURES[name]), mesh=MeshName(mesh)) for name in postures.split(",")]
    question = question_of(study(wanted), attempts, 1)
    with LocalTestbed(question, meshes_that_drain(question)) as testbed:
        for one in protect(question, testbed, attempts, Effort(1, 1), lambda _: None):
            evidence = json.loads(one.evidence)
            say(posture=one.posture, attempt=one.attempt, outcome=one.outcome, **evidence)
    return 0


if __name__ == "__main__":
    sys.exit(
        enter_world(lambda: main(*sys.argv[1:]), keep=[Path(os.environ.get("MESHWISE_LINKERD_PROXY", "/"))])
    )
