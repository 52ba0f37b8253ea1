"""Whatever is killed, at whatever moment: nothing is left, and nothing that was complete is lost.

    python benchmarks/kill_campaign.py [--seconds 90] [--seed 1]

Commands in turn, each sent a signal (TERM, HUP, INT or KILL) after a time drawn from the seed, some twice,
some to a process below the command: `load` (one or two processes, steady or a trace), `run` on real proxies,
`run` on the fake testbed, `proxies pull` and `proxies add`. After each, no process of it lives, and there is
no link, namespace, mount, memory-backed or temporary file of it. A run is resumed until it is whole, a store
used again. Figures: kills by command and signal, and what was found left, lost or said in a traceback (which
must be 0; that of a Ctrl-C while Python itself starts is not counted).
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support.hostile import OK_HTTP1, hostile, read_request
from tests.support.real_study import MARKER, STUDY, RealRun, marked, traces
from tests.support.registry import Registry, layer, serving

from meshwise.core import linux

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL)
MAIN = ("-c", "from meshwise.cli.main import main; main()")
FAKE = """
import sys
from pathlib import Path
from meshwise.report.edge import run_command
from tests.support.fake_study import run_fake, small_study
out = Path(sys.argv[1])
sys.exit(run_command(lambda: run_fake(out, small_study(), resume=(out / "study.yaml").exists())))
"""
BINARY = b"\x7fELF\x02\x01\x01" + bytes(11) + struct.pack("<H", 62) + bytes(range(256)) * 40_000
GONE_S = 10.0


def obedient() -> None:
    """A command under `nohup`, or in the background of a shell, ignores what it is sent here."""
    for number in SIGNALS[:3]:
        signal.signal(number, signal.SIG_DFL)


class Left(Exception):
    """Something was left, lost, or said in a traceback."""


class Trial:
    """One command, started in a place of its own, and what became of it."""

    def __init__(self, chance: random.Random, directory: Path) -> None:
        self.chance, self.directory, self.marker = chance, directory, uuid.uuid4().hex
        self.kills: list[str] = []
        (directory / "tmp").mkdir()
        self.environment = {
            **os.environ,
            MARKER: self.marker,
            "TMPDIR": str(directory / "tmp"),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        }

    def killed(self, words: tuple[str, ...], longest_s: float) -> tuple[str, int, str]:
        """Starts it and kills it: the signal's name, the status, and what it said on stderr."""
        number = self.chance.choice(SIGNALS)
        with subprocess.Popen(
            (sys.executable, *words), env=self.environment, cwd=self.directory, process_group=0,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=obedient,
        ) as process:  # fmt: skip
            time.sleep(self.chance.uniform(0.05, longest_s))
            below = [pid for pid in marked(self.marker) if pid != process.pid]
            victim = self.chance.choice(below) if below and self.chance.random() < 0.2 else process.pid
            number = signal.SIGKILL if victim != process.pid else number
            ended = process.poll() is not None
            try:
                os.kill(victim, number)
                if self.chance.random() < 0.3:
                    time.sleep(self.chance.uniform(0, 0.3))
                    os.kill(victim, self.chance.choice(SIGNALS[:3]))
            except ProcessLookupError:
                pass  # it had ended
            try:
                said = process.communicate(timeout=40)[1]
            except subprocess.TimeoutExpired:
                process.kill()
                raise Left(f"hangs after {number.name}") from None
        if "Traceback" in said and "KeyboardInterrupt" not in said:
            raise Left(f"traceback after {number.name}: {said[-600:]}")
        self.nothing_is_left(number.name)
        name = number.name + (" below" if victim != process.pid else "")
        self.kills += [] if ended else [name]
        return name, process.returncode, said

    def whole(self, words: tuple[str, ...]) -> str:
        """Runs it undisturbed; its stdout."""
        done = subprocess.run(
            (sys.executable, *words), env=self.environment, cwd=self.directory,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Left(f"not to be gone on with: {done.stderr[-600:]}")
        self.nothing_is_left("its own end")
        return done.stdout

    def nothing_is_left(self, by: str) -> None:
        deadline = time.monotonic() + GONE_S
        while living := marked(self.marker):
            if time.monotonic() > deadline:
                raise Left(f"processes {living} after {by}")
            time.sleep(0.02)
        for place in (self.directory / "tmp", Path("/dev/shm")):
            if left := sorted(path.name for path in place.iterdir()):
                raise Left(f"in {place} after {by}: {left}")


def load(trial: Trial, port: int) -> None:
    chance = trial.chance
    words = [*MAIN, "load", f"http://127.0.0.1:{port}/", "--duration", "60s", "--json"]
    words += ["--processes", str(chance.choice((1, 2)))]
    if chance.random() < 0.4:
        words.append(f"http://127.0.0.1:{port}/")
    elif chance.random() < 0.5:
        trace = trial.directory / "trace.csv"
        trace.write_text("time_s\n" + "".join(f"{number / 100}\n" for number in range(5900)))
        words += ["--trace", str(trace)]
    by, status, said = trial.killed(tuple(words), 3.0)
    if not by.startswith("SIGKILL") and status not in (130, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT):
        raise Left(f"status {status} after {by}: {said[-300:]}")


def study(trial: Trial, _port: int) -> None:
    """A real study of two blocks, killed twice, then gone on with to its end."""
    (trial.directory / "study.yaml").write_text(STUDY % ("200ms", 2))
    run = RealRun(trial.directory, options=("--resume",))
    words = (*MAIN, "run", "study.yaml", "--out", "out", "--resume")
    before, stored = traces(), 0
    for _ in range(2):
        by, _, _ = trial.killed(words, 5.0)
        if traces() != before:
            raise Left(f"a link, a namespace, a mount or a key after {by}")
        if len(run.rows()) < stored:
            raise Left(f"{stored} trials before, {len(run.rows())} after {by}")
        stored = len(run.rows())
    trial.whole(words)
    if [row["status"] for row in run.rows()] != ["ok"] * 4 or list(run.out.rglob("*.aside")):
        raise Left(f"not whole: {run.rows()}")


def fake(trial: Trial, _port: int) -> None:
    words = ("-c", FAKE, str(trial.directory / "out"))
    trial.killed(words, 2.5)
    trial.whole(words)
    rows = pq.read_table(trial.directory / "out/trials.parquet").to_pylist()
    if len({row["trial_id"] for row in rows}) != len(rows) or len(rows) != 12:
        raise Left(f"{len(rows)} trials")


def proxies(trial: Trial, _port: int) -> None:
    """Pulled from a registry on loopback, or added; then again, undisturbed, and the store is looked at."""
    binary = trial.directory / "binary"
    binary.write_bytes(BINARY)
    name = "linkerd@edge-26.8.3"
    registry = Registry()
    registry.image("linkerd/proxy", "edge-26.8.3", [layer({"usr/lib/linkerd/linkerd2-proxy": BINARY})])
    with serving(registry):
        words = (*MAIN, "proxies", "pull", name, "--registry", registry.url, "--platform", "linux/amd64")
        if trial.chance.random() < 0.4:
            words = (*MAIN, "proxies", "add", name, str(binary), "--platform", "linux/amd64")
        by, _, _ = trial.killed(words, 1.5)
        trial.whole(words)
    listed = json.loads(trial.whole((*MAIN, "proxies", "list", "--json")))["stored"]
    trial.whole((*MAIN, "proxies", "verify"))
    found = sorted(path.name for path in (trial.directory / "cache/meshwise/proxies").iterdir())
    if len(listed) != 1 or found != ["index.json", listed[0]["digest"].replace(":", "-")]:
        raise Left(f"in the store after {by}: {found}")


COMMANDS: tuple[Callable[[Trial, int], None], ...] = (load, proxies, load, fake, load, study)


@contextmanager
def own_shared_memory() -> Iterator[None]:
    """A /dev/shm that no other program on this machine writes into."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", Path("/"), None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("campaign", Path("/dev/shm"), "tmpfs", 0)
    yield


def answers(sock: object) -> None:
    while True:
        read_request(sock)  # type: ignore[arg-type]
        sock.sendall(OK_HTTP1)  # type: ignore[attr-defined]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root, for a /dev/shm of its own: run it with sudo")
        return 3
    counts: collections.Counter[str] = collections.Counter()
    faults = []
    deadline = time.monotonic() + arguments.seconds
    with own_shared_memory(), hostile(answers) as port:
        number = 0
        while time.monotonic() < deadline:
            command = COMMANDS[number % len(COMMANDS)]
            chance = random.Random(f"{arguments.seed} {number}")
            with tempfile.TemporaryDirectory(prefix="campaign-") as name:
                trial = Trial(chance, Path(name))
                try:
                    command(trial, port)
                except Left as left:
                    faults.append(f"{command.__name__} (number {number}): {left}")
                counts.update(f"{command.__name__}, {by}" for by in trial.kills)
            number += 1
    print(f"seed {arguments.seed}: {number} rounds, {counts.total()} kills in {arguments.seconds:g} s")
    for name, count in sorted(counts.items()):
        print(f"  {name}: {count}")
    print(f"left, lost or in a traceback: {len(faults)}")
    for fault in faults:
        print(f"  {fault}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
