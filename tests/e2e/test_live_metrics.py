"""`meshwise run --metrics` on a real study: what is told inside its world is answered outside."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tests.support.prometheus import free_port

from meshwise.archive.read import ArchiveReader
from meshwise.testbed.local import checks

STUDY = """\
name: told
environments: [none]
factors: {posture: none, rate: 50/s}
trial: {warmup: 100ms, duration: 3s}
blocks: 2
control: {same: [], twin: []}
arrangement: apart
"""


def test_a_real_study_is_told_on_from_inside_its_world(tmp_path: Path) -> None:
    """Without a mesh: what matters is that the line leads out. Who answers may wait long for a CPU of a busy
    machine, so it is asked for what stays true."""
    for result in checks.kernel():
        if result.grade is checks.Grade.FAILED:
            pytest.skip(f"needs namespaces: {result.name}: {result.detail}; {result.remedy}")
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    port = free_port()
    words = ["run", str(study), "--out", str(tmp_path / "out"), "--metrics", f"127.0.0.1:{port}"]
    program = [sys.executable, "-c", "from meshwise.cli.main import main; main()", *words]
    seen = ""
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as running:
        while running.poll() is None and "meshwise_run_executions_total 1.0" not in seen:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
                    seen = answer.read().decode()
            except OSError:
                time.sleep(0.1)  # it is not there yet, or the study has ended
        _, said = running.communicate(timeout=240)
    assert running.returncode == 0, said
    assert 'meshwise_run_info{study="told"' in seen
    assert "meshwise_run_trials_planned 2.0" in seen
    assert "meshwise_run_executions_total 1.0" in seen
    assert ArchiveReader.open(tmp_path / "out").trials()["status"].to_list() == ["ok", "ok"]
