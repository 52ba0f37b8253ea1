"""The bank in pods, with its real stores: behind each mesh, and with faults as they happen in production."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncpg", reason="pip install 'meshwise[bank]'")
pytest.importorskip("aiohttp", reason="pip install 'meshwise[bank]'")

from tests.e2e.test_testbed_local import inside
from tests.e2e.test_testbed_world import MARKER, traces, wait_for_nobody
from tests.support.people import NOBODY, ORDINARY, ROOT, command_as, environment_as

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.binary import envoy_path
from meshwise.mesh.linkerd.binary import proxy_path
from meshwise.service.bank import stores

try:
    stores.postgres_binaries()
    stores.redis_binary()
except MeshwiseError as error:
    pytest.skip(f"{error.what}: {error.remedy}", allow_module_level=True)

PROGRAM = ("-m", "tests.support.inside_bank")
CLI = "from meshwise.cli.main import main; main()"
ME = ROOT if os.geteuid() == 0 else ORDINARY
SERVICES = ("accounts", "edge", "notifications", "transactions", "users")


def need(mesh: str) -> None:
    try:
        if mesh == "istio":
            envoy_path()
        elif mesh == "linkerd":
            proxy_path()
    except MeshwiseError as error:
        pytest.skip(f"needs the proxy of {mesh}: {error.remedy}")


def temporary(tmp_path: Path, person: str) -> dict[str, str]:
    """A TMPDIR of the person's own, where no other store is."""
    directory = Path("/tmp") / f"meshwise-test-{uuid.uuid4().hex[:12]}"
    directory.mkdir()
    directory.chmod(0o1777)
    if person == ORDINARY and os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    (tmp_path / "tmp").symlink_to(directory)
    return {"TMPDIR": str(directory)}


@pytest.fixture
def tmpdir_of(tmp_path: Path) -> Any:
    """`tmpdir_of(person)`: the environment with a TMPDIR, which must be empty at the end."""
    made: list[Path] = []

    def make(person: str) -> dict[str, str]:
        environment = temporary(tmp_path, person)
        made.append(Path(environment["TMPDIR"]))
        return environment

    yield make
    for directory in made:
        left = [path.name for path in directory.iterdir() if path.name.startswith("meshwise")]
        subprocess.run(["rm", "-rf", str(directory)], check=True)
        assert left == []


def scene(person: str, environment: dict[str, str], *words: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        command_as(person, *PROGRAM, *words),
        env=environment_as(person, **environment), capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_good(one: dict[str, Any]) -> None:
    assert "unproven" not in one, one
    flags = [flag for flag in one["flags"] if not flag.startswith("event_late")]  # on a busy machine
    assert (one["failure"], flags, one["passed"]) == ("", [], [True, True]), one
    assert set(one["operation"]) == {"profile", "transfer", "notify", "statement"}
    assert set(one["error"]) == {""}, one
    acknowledged = int(one["checks"][1].split(" ")[0])
    assert acknowledged == one["operation"]["transfer"] + one["operation"]["notify"]


@pytest.mark.timeout(160)
@pytest.mark.parametrize(
    ("mesh", "person"),
    [("none", ROOT), ("none", ORDINARY), ("istio", ROOT), ("istio", ORDINARY), ("linkerd", ME)],
)
def test_the_bank_is_served_in_every_protocol_and_its_books_agree(
    mesh: str, person: str, tmpdir_of: Any
) -> None:
    need(mesh)
    *trials, left = scene(person, tmpdir_of(person), "trials", mesh)
    assert len(trials) == (3 if mesh == "none" else 4)
    for one in trials:
        assert_good(one)
        names = {f"{mesh}/a/{service}/service" for service in SERVICES}
        names |= {f"{mesh}/a/{store}/store" for store in ("postgres", "redis")} | {
            f"{mesh}/a/client/instrument"
        }
        if mesh != "none":
            names |= {f"{mesh}/a/{each}/proxy" for each in (*SERVICES, "client", "postgres", "redis")}
        own = ("/controller", "/relay")
        assert {source for source in one["cpu"] if not source.endswith(own)} == names
    assert left == {"left": []}


@pytest.mark.timeout(160)
def test_two_banks_of_one_round_have_books_of_their_own(tmpdir_of: Any) -> None:
    """And when the database of one of them ends, the other's books still agree."""
    need("istio")
    *first, one, other = scene(ME, tmpdir_of(ME), "together")
    by_mesh = {each["cell"].split("/")[0]: each for each in first}
    assert set(by_mesh) == {"none", "istio"}
    for mesh, each in by_mesh.items():
        assert_good(each)
        stores_of = {source for source in each["cpu"] if source.endswith("/store")}
        assert stores_of == {f"{mesh}/a/postgres/store", f"{mesh}/a/redis/store"}
        assert sum("/proxy" in source for source in each["cpu"]) == (8 if mesh == "istio" else 0)
        assert sum("/instrument" in source for source in each["cpu"]) == 1
    failed, lives = sorted((one, other), key=lambda each: not each["failure"])
    assert failed["cell"].startswith("istio/")
    assert "istio/a/postgres/store killed by SIGKILL" in failed["failure"]
    assert (lives["failure"], lives["passed"]) == ("", [True, True]), lives
    (flag,) = lives["flags"]
    assert flag.startswith("company")


@pytest.mark.timeout(160)
@pytest.mark.parametrize("mesh", ["istio", "linkerd"])
def test_no_money_is_lost_or_doubled_though_sidecars_are_killed(mesh: str, tmpdir_of: Any) -> None:
    need(mesh)
    (one,) = scene(ME, tmpdir_of(ME), "accidents", mesh)
    flags = [flag for flag in one["flags"] if not flag.startswith("event_late")]  # on a busy machine
    assert (one["failure"], flags, one["passed"]) == ("", [], [True, True]), one
    assert len(one["events"]) >= 3
    assert one["events"][0] == ["restart", f"{mesh}/a/edge/proxy"]
    assert len({target for _, target in one["events"]}) == len(one["events"])


@pytest.mark.timeout(160)
def test_a_database_that_dies_in_a_trial_fails_it_and_the_study_goes_on(tmpdir_of: Any) -> None:
    failed, refused, again = scene(ME, tmpdir_of(ME), "database_dies")
    assert "none/a/postgres/store killed by SIGKILL" in failed["failure"]
    assert refused["refused"] == "MW503"
    assert_good(again)


@pytest.mark.timeout(160)
def test_a_database_whose_disk_is_full_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """It refuses to write, or ends; a client is told of neither as of a success."""
    directory = Path("/tmp") / f"meshwise-test-{uuid.uuid4().hex[:12]}"
    directory.mkdir()
    directory.chmod(0o1777)
    try:
        full, again = scene(ME, {}, "disk_full", str(directory))
    finally:
        directory.rmdir()
    assert full["error"].keys() - {""}, "no request failed"
    if not full["failure"]:  # room was made before the judgement
        assert full["passed"] == [True, True], full
    assert_good(again)


@pytest.mark.timeout(100)
def test_a_cache_that_forgets_everything_costs_time_and_no_money(tmpdir_of: Any) -> None:
    one, left = scene(ME, tmpdir_of(ME), "evicting")
    assert_good(one)
    assert left["evicted"] > 0, "the cache had room for what it was given"


@pytest.mark.timeout(100)
def test_a_bank_that_answers_after_its_client_gave_up_does_nothing_twice(tmpdir_of: Any) -> None:
    (one,) = scene(ME, tmpdir_of(ME), "late")
    assert one["error"].get("timeout"), "every answer was in time"
    flags = [flag for flag in one["flags"] if not flag.startswith("event_late")]  # on a busy machine
    assert (one["failure"], flags, one["passed"]) == ("", [], [True, True]), one
    assert " 0 asked again" not in one["checks"][1]


@pytest.mark.timeout(100)
def test_what_a_killed_study_left_on_disk_is_removed_by_the_next(tmpdir_of: Any) -> None:
    environment = tmpdir_of(ME)
    marker, before = uuid.uuid4().hex, traces()
    with subprocess.Popen(
        command_as(ME, *PROGRAM, "hold"),
        env=environment_as(ME, **environment, **{MARKER: marker}),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        namespace = int(json.loads(process.stdout.readline())["pid_namespace"])
        homes = json.loads(process.stdout.readline())["homes"]
        process.send_signal(signal.SIGKILL)
    wait_for_nobody(marker)
    deadline = time.monotonic() + 10
    while members := inside(namespace):
        assert time.monotonic() < deadline, f"still in the world: {members}"
    assert traces() == before
    there = Path(environment["TMPDIR"])
    assert {path.name for path in there.iterdir()} >= set(homes) != set()
    assert_good(scene(ME, environment, "evicting")[0])


def study_file(directory: Path) -> Path:
    path = directory / "study.yaml"
    path.write_text(
        "name: none\nenvironments: none\ntopology: bank\nblocks: 2\nfactors: {posture: none, rate: 10/s}\n"
    )
    return path


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [("MESHWISE_POSTGRES", "/nowhere", "MW911"), ("MESHWISE_REDIS", "/nowhere/redis-server", "MW911")],
)
def test_a_study_without_a_store_says_so_at_once(
    tmp_path: Path, variable: str, value: str, code: str
) -> None:
    done = subprocess.run(
        command_as(ME, "-c", CLI, "run", str(study_file(tmp_path)), "--out", str(tmp_path / "out")),
        env={**os.environ, variable: value}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert code in done.stderr


@pytest.mark.timeout(100)
def test_a_database_that_does_not_start_ends_the_study_with_its_words(tmp_path: Path) -> None:
    """A program that is not PostgreSQL, though it is called so."""
    programs = tmp_path / "bin"
    programs.mkdir()
    real = stores.postgres_binaries()
    (programs / "initdb").symlink_to(real / "initdb")
    broken = programs / "postgres"
    broken.write_text("#!/bin/sh\necho 'FATAL: out of luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    done = subprocess.run(
        command_as(ME, "-c", CLI, "run", str(study_file(tmp_path)), "--out", str(tmp_path / "out")),
        env={**os.environ, "MESHWISE_POSTGRES": str(programs)},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "MW21" in done.stderr or "MW913" in done.stderr
    assert "hint:" in done.stderr
