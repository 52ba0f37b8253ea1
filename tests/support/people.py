"""Running a program as root or as an ordinary user, from tests that may themselves run as either."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import meshwise

ROOT, ORDINARY = "root", "ordinary user"
NOBODY = 65534
_SOURCE = Path(meshwise.__file__).parent.parent
_CHECKOUT = Path(__file__).parent.parent.parent


def command_as(person: str, *words: str) -> list[str]:
    """`python WORDS` as that person; skips the test where this is impossible, with the reason."""
    am_root = os.geteuid() == 0
    if person == ROOT and not am_root:
        pytest.skip("needs root: run the tests with sudo")
    if person == ORDINARY and am_root:
        if shutil.which("setpriv") is None:
            pytest.skip("needs `setpriv` (package util-linux) to become an ordinary user")
        drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        return [*drop, _python_for_others(), *words]
    return [sys.executable, *words]


def environment_as(person: str, **more: str) -> dict[str, str]:
    """The environment to go with `command_as`: libraries of this venv, and a HOME that does not exist."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    home = {"HOME": "/nonexistent"} if person == ORDINARY and os.geteuid() == 0 else {}
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join([str(_SOURCE), str(_CHECKOUT), *packages]),
        **home,
        **more,
    }


def scene_as(person: str, module: str, *words: str, **more: str) -> list[dict[str, Any]]:
    """The lines of JSON that a scene of the module prints; skips the test where no world can be made."""
    done = subprocess.run(
        command_as(person, "-m", module, *words), cwd=_CHECKOUT, env=environment_as(person, **more),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    if lines and lines[-1].get("error") == "MW201":
        pytest.skip(lines[-1]["what"])
    assert done.returncode == 0, done.stderr + done.stdout
    return lines


def _python_for_others() -> str:
    """An interpreter of this version that another user may run (this one may lie in root's home)."""
    for candidate in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        # Through a shell: setpriv's own exec still has root's right to walk any path.
        probe = ["setpriv", "--reuid", str(NOBODY), "--clear-groups", "sh", "-c", '"$0" -c ""', candidate]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip(f"needs a Python {sys.version_info[0]}.{sys.version_info[1]} that user {NOBODY} may run")
