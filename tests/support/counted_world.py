"""Program that end-to-end tests of counters run: `counted_world.py SCENE WORDS`; prints lines of JSON.

It counts in a world of its own: another PID namespace, and the uid of a sidecar where there are several.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from meshwise.core.patience import USUAL
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.mesh.istio.binary import envoy_path
from meshwise.mesh.istio.mesh import PROXY_UID
from meshwise.telemetry.counting.callgrind import CallgrindCounter
from meshwise.telemetry.counting.seam import Count, CountedProcess
from meshwise.testbed.local.world import current_world, enter_world
from tests.support.inside_world import say

SILENT = {"admin": {"address": {"pipe": {"path": "@meshwise-test"}}}}


@contextmanager
def counted(argv: tuple[str, ...], name: str) -> Iterator[tuple[CountedProcess, OwnedProcess]]:
    world = current_world()
    directory = world.secrets / name
    directory.mkdir()
    uid = PROXY_UID if world.privileged else None
    plan = LaunchPlan(
        name, argv, {"PATH": os.environ["PATH"]}, world.secrets / f"{name}.log", uid=uid, gid=uid
    )
    plan = replace(plan, stop_s=USUAL.stop_s * 50)
    with ExitStack() as stack:
        counter = stack.enter_context(CallgrindCounter(world.secrets, USUAL, os.environ))
        process = stack.enter_context(OwnedProcess(counter.start(plan, directory)))
        yield stack.enter_context(closing(counter.attach(process, directory))), process


def window() -> int:
    """A window that is never closed: of a process that sleeps, and of one that works."""
    doing = {"sleeps": "import time; time.sleep(3600)", "works": "while True: pass"}[sys.argv[2]]
    with counted((sys.executable, "-I", "-S", "-c", doing), "counted") as (one, process):
        one.begin()
        count = one.end()
        one.begin()
        uid = Path(f"/proc/{process.pid}").stat().st_uid
        say(open=True, instructions=count.instructions, uid=uid)
        time.sleep(3600)
    return 0


def envoy() -> int:
    """An Envoy that has nothing to do, in windows of equal length."""
    path = current_world().secrets / "envoy.json"
    path.write_text(json.dumps(SILENT))
    path.chmod(0o644)
    argv = (str(envoy_path()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error")
    with counted(argv, "envoy") as (one, process):
        before = idle(one, 1.0)
        while (now := idle(one, 1.0)).instructions * 50 > before.instructions:
            before = Count(max(before.instructions, now.instructions))
        say(
            instructions=now.instructions,
            system_calls=dict(now.system_calls),
            functions=len(now.functions),
            binaries=sorted({each.binary for each in now.functions}),
            running=process.running,
        )
    say(ending=process.ending)
    return 0


def idle(one: CountedProcess, window_s: float) -> Count:
    one.begin()
    time.sleep(window_s)
    return one.end()


if __name__ == "__main__":
    sys.exit(enter_world({"window": window, "envoy": envoy}[sys.argv[1]]))
