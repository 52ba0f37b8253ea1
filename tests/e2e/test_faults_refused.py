"""What keeps a study from running is said before anything starts, with a remedy: exit status 3, or 2 for what
was typed.

A port in use is no case of `meshwise run`: every pod is a network namespace of its own, in which nothing
listens but what the study starts; the first test shows it. `meshwise load` meets a closed port instead.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.people import ORDINARY, command_as, environment_as
from tests.support.real_study import (
    ME,
    PROGRAM,
    RealRun,
    need_real_proxies,
    private_directory,
    traces,
)

from meshwise.study.model import SERVICE_PORTS


@pytest.fixture
def directory() -> Iterator[Path]:
    with private_directory(ME, blocks=2) as made:
        yield made


def run(
    directory: Path,
    *options: str,
    out: str = "out",
    person: str = ME,
    prepare: Callable[[], None] | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    words = ("run", str(directory / "study.yaml"), "--out", str(directory / out), *options)
    return subprocess.run(
        command_as(person, *PROGRAM, *words),
        env=environment_as(person, **environment), cwd=directory, preexec_fn=prepare,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str], status: int, code: str, remedy: str) -> None:
    """In two lines, and nothing was begun."""
    assert done.returncode == status, done.stderr
    what, hint = done.stderr.rstrip("\n").split("\n")[-2:]
    assert what.startswith("error: ")
    assert what.endswith(f"[{code}]")
    assert hint.startswith("hint: ")
    assert remedy in hint
    assert "Traceback" not in done.stderr
    assert "block 1" not in done.stderr


def test_ports_in_use_outside_do_not_matter(directory: Path) -> None:
    need_real_proxies()
    with ExitStack() as stack:
        for port in (*SERVICE_PORTS.values(), 15001, 15006):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # then another program has it, which serves as well
                listener.bind(("0.0.0.0", port))
                listener.listen()
        status, told = RealRun(directory).finish()
    assert status == 0, told


def test_load_to_a_closed_port_says_so() -> None:
    with socket.socket() as closed:  # bound and not listening, so that no other program takes the port
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        words = command_as(ME, *PROGRAM, "load", url, "--duration", "1s", "--connections", "2")
        done = subprocess.run(
            words, env=environment_as(ME), cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
    refused(done, 3, "MW306", "check that the server listens there")


def test_a_round_with_more_connections_than_files_may_be_open_is_refused_with_the_remedy(
    directory: Path,
) -> None:
    need_real_proxies()
    (directory / "study.yaml").write_text(
        "name: wide\nenvironments: [istio]\nfactors: {posture: ladder, connections: 1024}\nblocks: 2\n"
    )
    done = run(directory, prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)))
    refused(done, 3, "MW216", "`ulimit -Hn 8192` as root")
    assert "6144 connections at the same time" in done.stderr
    assert not (directory / "out").exists()


def a_text(directory: Path) -> str:
    path = directory / "a-text"
    path.write_text("not a program\n")
    path.chmod(0o755)
    return str(path)


def not_executable(directory: Path) -> str:
    path = directory / "not-executable"
    path.write_text("#!/bin/sh\n")
    return str(path)


def one_that_crashes(directory: Path) -> str:
    path = directory / "crashes"
    path.write_text("#!/bin/sh\nkill -SEGV $$\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "envoy",
    [lambda _: "/nowhere/envoy", lambda _: "/bin/true", a_text, not_executable, one_that_crashes],
    ids=["missing", "foreign", "a text", "not executable", "crashes"],
)
def test_what_is_no_envoy_is_refused(directory: Path, envoy: Callable[[Path], str]) -> None:
    path = envoy(directory)
    done = run(directory, MESHWISE_ENVOY=path)
    refused(done, 3, "MW403", "set MESHWISE_ENVOY to a binary")
    assert f"no Envoy that runs at `{path}`" in done.stderr
    assert not (directory / "out").exists()


def test_a_study_of_linkerd_without_its_proxy_is_refused(directory: Path) -> None:
    study = directory / "study.yaml"
    study.write_text(study.read_text().replace("[none, istio]", "[none, linkerd]"))
    done = run(directory, XDG_CACHE_HOME=str(directory / "tmp"), MESHWISE_LINKERD_PROXY="")
    refused(done, 3, "MW811", "`meshwise proxies pull linkerd")
    assert not (directory / "out").exists()


def test_too_few_open_files_are_refused(directory: Path) -> None:
    done = run(directory, prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)))
    refused(done, 3, "MW504", "`ulimit -Hn 65536` as root")
    assert "at least 4096 files may be open: 256" in done.stderr
    assert not (directory / "out").exists()


def test_a_low_soft_limit_of_open_files_is_no_hindrance(directory: Path) -> None:
    need_real_proxies()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = run(directory, prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)))
    assert done.returncode == 0, done.stderr


def test_an_archive_is_not_written_over(directory: Path) -> None:
    need_real_proxies()
    (directory / "out").mkdir()
    (directory / "out" / "holiday.jpg").write_text("mine")
    refused(run(directory), 2, "MW603", "give `--out` a new or an empty directory")
    assert (directory / "out" / "holiday.jpg").read_text() == "mine"

    assert run(directory, out="second").returncode == 0
    before = {path: path.read_bytes() for path in (directory / "second").rglob("*") if path.is_file()}
    refused(run(directory, out="second"), 2, "MW601", "continue it with `--resume`")
    assert {path: path.read_bytes() for path in (directory / "second").rglob("*") if path.is_file()} == before

    study = directory / "study.yaml"
    study.write_text(study.read_text().replace("seed: 7", "seed: 8"))
    refused(run(directory, "--resume", out="second"), 2, "MW605", "resume with the study that is stored")


def test_no_space_is_found_before_anything_starts(directory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    need_real_proxies()
    small = directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", str(small)], check=True)
    try:
        refused(run(directory, out="small/out"), 3, "MW607", "free some space")
        subprocess.run(["mount", "-o", "remount,size=32m", str(small)], check=True)
        when_it_fills_up(directory, small)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def when_it_fills_up(directory: Path, small: Path) -> None:
    """The same command starts once there is space; full during the study, what is complete is kept."""
    (small / "study.yaml").write_text((directory / "study.yaml").read_text())
    (small / "tmp").mkdir()
    study = RealRun(small)
    with study.started() as process:
        study.await_(process, lambda: study.rows() or None, "a trial")
        with contextlib.suppress(OSError), (small / "other").open("wb", buffering=0) as other:
            while True:
                other.write(bytes(4096))
        status, (_, told) = process.wait(30), process.communicate()
    assert (status, "[MW607]" in told) == (3, True), told
    assert "`--resume` continues" in told
    kept = len(study.rows())
    assert 1 <= kept < 4
    (small / "other").unlink()
    study.options = ("--resume",)
    status, told = study.finish()
    assert (status, len(study.rows())) == (0, 4), told


@pytest.mark.parametrize("out", ["/proc/study", "read-only/out", "a-file/out"])
def test_where_nothing_can_be_written(out: str) -> None:
    """As an ordinary user, because root may write into a read-only directory."""
    need_real_proxies()
    with private_directory(ORDINARY, blocks=2) as directory:
        before = traces()
        (directory / "a-file").write_text("")
        (directory / "read-only").mkdir(mode=0o555)
        done = run(directory, out=out, person=ORDINARY)
        refused(done, 3, "MW606", "choose a directory where you may write")
        assert traces() == before


def test_an_archive_below_the_place_that_the_world_covers_is_kept() -> None:
    """`--out` may lie where the world would put its memory-backed directory; then it takes another."""
    place = Path("/run/lock")
    if not os.access(place, os.W_OK):
        pytest.skip(f"needs a writable {place}")
    need_real_proxies()
    with private_directory(ME, blocks=2) as directory:
        out = place / directory.name
        try:
            assert run(directory, out=str(out)).returncode == 0
            assert (out / "trials.parquet").exists()
        finally:
            subprocess.run(["rm", "-rf", str(out)], check=True)
