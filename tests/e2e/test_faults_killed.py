"""A real study killed, again and again, at any moment: nothing left over, nothing lost, no trial twice.

And stopped in order, by Ctrl-C and by SIGTERM: what is complete is kept and goes on with `--resume`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import random
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.people import ORDINARY, command_as, environment_as
from tests.support.real_study import (
    MARKER,
    MARKS,
    ME,
    PROGRAM,
    STUDY,
    RealRun,
    Seen,
    kill,
    namespaces,
    need_real_proxies,
    nothing_stays,
    private_directory,
    traces,
)

from meshwise.archive.read import ArchiveReader

GENERATIONS = ("the user's process", "keeper", "init", "runner")


@pytest.fixture(autouse=True)
def _real_proxies() -> None:
    need_real_proxies()


@pytest.fixture
def directory() -> Iterator[Path]:
    with private_directory(ME, blocks=5) as made:
        yield made


def intact(run: RealRun, former: list[str]) -> list[str]:
    """The trials stored, all of `former` first, each once, its files as they were written. Asserts it."""
    rows = run.rows()
    stored = [str(row["trial_id"]) for row in rows]
    assert stored[: len(former)] == former, "nothing lost"
    assert len(set(stored)) == len(stored), "no trial twice"
    for row in rows:
        for table in ("requests", "telemetry"):
            content = (run.out / table / f"{row['trial_id']}.parquet").read_bytes()
            assert hashlib.sha256(content).hexdigest() == row[f"{table}_sha256"]
    return stored


def wait_a_moment(run: RealRun, process: subprocess.Popen[str], moment: int, chance: random.Random) -> None:
    """A third of the moments counts from the start (checks, the making of the world), a third from the first
    proxy (start of processes, posture), a third from a trial (measurement, storing, the next one)."""
    role = (None, "proxy", "instrument")[moment % 3]
    if role is not None:
        run.await_(process, lambda: find(run.everyone(process), role), role)
    time.sleep(chance.uniform(0.0, 1.5 if role is None else 0.8))


def find(everyone: list[Seen], role: str) -> Seen | None:
    return next((one for one in everyone if MARKS[role] in one.command), None)


def test_sigkill_at_ten_random_moments_then_resume(directory: Path) -> None:
    run, before, chance = RealRun(directory, options=("--resume",)), traces(), random.Random(20240607)
    stored: list[str] = []
    hit = []
    for moment in range(10):
        with run.started() as process:
            wait_a_moment(run, process, moment, chance)
            line, everyone = run.line(process), run.everyone(process)
            spaces = namespaces(everyone)
            # Mostly the outer command and the runner, which are what a user or the out-of-memory killer ends.
            wanted = (0, 3, 2, 0, 3, 1)[moment % 6]
            victim = line[min(wanted, len(line) - 1)]
            kill(victim)
            hit.append(GENERATIONS[line.index(victim)])
            status, (_, told) = process.wait(20), process.communicate()
        assert status == (-signal.SIGKILL if line.index(victim) == 0 else 3), told
        if status == 3:
            assert told.splitlines()[-1].startswith("hint: look for an out-of-memory kill")
        nothing_stays(run, everyone, spaces, before)
        stored = intact(run, stored)
    assert set(hit) == set(GENERATIONS), hit

    status, told = run.finish()
    assert status == 0, told
    intact(run, stored)
    reader = ArchiveReader.open(run.out)
    trials = reader.trials()
    assert sorted(trials["trial_id"]) == sorted(trial.trial_id for trial in reader.design)
    assert set(trials["status"]) == {"ok"}
    assert sorted(path.stem for path in (run.out / "requests").iterdir()) == sorted(trials["trial_id"])
    assert not list(run.out.rglob("*.aside"))
    assert run.finish()[1].splitlines()[-2].startswith("nothing was left to do: 10 trials stored; archive in")


@pytest.mark.parametrize(
    ("signals", "whole_group"),
    [((signal.SIGINT,), True), ((signal.SIGTERM,), False), ((signal.SIGINT, signal.SIGINT), True)],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice"],
)
def test_asked_to_stop_it_cleans_up_and_keeps_what_is_complete(
    directory: Path, signals: tuple[signal.Signals, ...], whole_group: bool
) -> None:
    run, before = RealRun(directory), traces()
    with run.started() as process:
        run.await_(process, lambda: run.rows() or None, "a trial")
        run.await_(process, lambda: find(run.everyone(process), "instrument"), "the next trial")
        everyone = run.everyone(process)
        spaces = namespaces(everyone)
        for number in signals:
            (os.killpg if whole_group else os.kill)(process.pid, number)
        status, (_, told) = process.wait(20), process.communicate()
    nothing_stays(run, everyone, spaces, before)
    assert status == 130, told
    stored = intact(run, [])
    assert 1 <= len(stored) < 10
    last = told.splitlines()[-2:]
    assert last[0].startswith("stopped; what is complete is kept: ")
    assert last[1] == f"next: meshwise run {directory / 'study.yaml'} --out {run.out} --resume"
    assert "Traceback" not in told


def test_on_a_terminal_one_line_shows_the_median_and_control_c_stops(directory: Path) -> None:
    run, before = RealRun(directory), traces()
    (directory / "study.yaml").write_text(STUDY % ("1200ms", 5))  # long enough for a median to be told
    words = ("run", str(directory / "study.yaml"), "--out", str(run.out))
    command = command_as(ME, *PROGRAM, *words)
    environment = environment_as(
        ME, **{MARKER: run.marker, "TMPDIR": str(directory / "tmp"), "TERM": "xterm"}
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environment)
    with os.fdopen(terminal, "r+b", buffering=0) as tty:
        fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        seen = ""
        while not re.search(r"block 1/5 · trial \d+/10 · \d+s left · P50 [\d,]+ us · ", seen):
            seen += tty.read(4096).decode(errors="replace")
        tty.write(b"\x03")
        with contextlib.suppress(OSError):  # a terminal that was closed
            while more := tty.read(4096):
                seen += more.decode(errors="replace")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    nothing_stays(run, [], set(), before)
    shown, _, words_at_the_end = seen.partition("stopped; what is complete is kept: ")
    assert shown.count("\n") <= 1, "one line, rewritten in place"
    assert words_at_the_end.rstrip().endswith("--resume")
    assert intact(run, [])


def test_stopped_before_there_is_an_archive_it_says_so(directory: Path) -> None:
    """During the checks and while the world is made."""
    chance, run, before = random.Random(3), RealRun(directory), traces()

    def keeper() -> Seen | None:
        return next(iter(run.line(process)[1:]), None)

    for _ in range(6):
        with run.started() as process:
            run.await_(process, keeper, "a keeper")
            time.sleep(chance.uniform(0.0, 0.2))
            everyone = run.everyone(process)
            spaces = namespaces(everyone)
            os.killpg(process.pid, signal.SIGINT)
            status, (_, told) = process.wait(20), process.communicate()
        nothing_stays(run, everyone, spaces, before)
        assert status == 130, told
        assert told.strip() in ("interrupted", "stopped before a trial was complete")
        if run.out.exists():
            run.options = ("--resume",)


@pytest.mark.skipif(ME == ORDINARY, reason="the other tests of this file run as an ordinary user already")
def test_an_ordinary_user_leaves_nothing_either() -> None:
    before = traces()
    with private_directory(ORDINARY, blocks=2) as made:
        run = RealRun(made, ORDINARY)
        with run.started() as process:
            run.await_(process, lambda: find(run.everyone(process), "instrument"), "a trial")
            line, everyone = run.line(process), run.everyone(process)
            spaces = namespaces(everyone)
            kill(line[0])
            process.wait(20)
        nothing_stays(run, everyone, spaces, before)
        run.options = ("--resume",)
        status, told = run.finish()
        assert status == 0, told
        assert len(intact(run, [])) == 4
