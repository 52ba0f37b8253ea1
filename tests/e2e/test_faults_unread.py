"""A study goes on whether or not its output is read, and what the system lacks is said in words."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.support.people import command_as, environment_as
from tests.support.real_study import ME, PROGRAM, need_real_proxies, private_directory

PIDS = Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")


def shell(directory: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`script` finds the command as "$@"."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *command_as(ME, *PROGRAM, *words)],
        env=environment_as(ME), cwd=directory, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("script", "out"),
    [
        ('"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}', "[red]x[/red]"),
        ('exec "$@" >&- 2>/dev/full', os.fsdecode(b"caf\xe9")),
    ],
    ids=["head -1, into [red]x[blue]", "closed and full, into a path that is not UTF-8"],
)
def test_a_study_that_nobody_reads_is_whole(script: str, out: str) -> None:
    need_real_proxies()
    with private_directory(ME, blocks=2) as directory:
        (directory / "[red]x[").mkdir()
        done = shell(directory, script, "run", str(directory / "study.yaml"), "--out", out)
        assert done.returncode == 0, done.stderr
        stored = (directory / out / "trials.parquet").read_bytes()
        assert pq.read_table(BytesIO(stored))["status"].to_pylist() == ["ok"] * 4
        told = shell(directory, 'exec "$@"', "analyze", out)
        assert (told.returncode, "Traceback" in told.stderr) == (0, False), told.stderr


@pytest.mark.parametrize("words", [("run", "study.yaml", "--out", "out"), ("load", "http://127.0.0.1:1/")])
def test_without_proc_it_says_so(words: tuple[str, ...]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to cover /proc in a mount namespace of its own")
    with private_directory(ME, blocks=2) as directory:
        script = 'exec unshare -m bash -c \'mount -t tmpfs none /proc && exec "$@"\' bash "$@"'
        done = shell(directory, script, *words)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    assert done.stderr.splitlines()[-1] == "hint: mount the process file system: mount -t proc proc /proc"


@contextmanager
def limited_to(processes: int) -> Iterator[Path]:
    """A control group with so many processes and threads; its cgroup.procs."""
    top = next(
        (place for place in PIDS if (place / "cgroup.procs").exists() and os.access(place, os.W_OK)), None
    )
    if top is None:
        pytest.skip("needs to make a control group of `pids`: run as root on a machine that has one")
    group = top / f"meshwise-test-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        if not (group / "pids.max").exists():
            pytest.skip("needs the controller `pids` in the control group of this process")
        (group / "pids.max").write_text(str(processes))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


@pytest.mark.parametrize("processes", [1, 20])
def test_a_limit_of_processes_is_said_in_words(processes: int) -> None:
    """1: a library starts a thread while it is imported; 20: the runner in its world."""
    need_real_proxies()
    with private_directory(ME, blocks=2) as directory, limited_to(processes) as members:
        script = f'echo $$ > {members} && exec "$@"'
        done = shell(directory, script, "run", "study.yaml", "--out", "out")
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    assert "ulimit -u" in done.stderr.splitlines()[-1]
