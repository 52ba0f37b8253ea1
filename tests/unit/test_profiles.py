"""Profiled trials: when they run, what profilers write, and that nothing of them is taken for a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from tests.support.fake_study import run_fake
from typer.testing import CliRunner

from meshwise.archive.read import ArchiveReader
from meshwise.cli import main
from meshwise.cli.analyze import analyze_archive
from meshwise.core.errors import MeshwiseError
from meshwise.findings.document import to_json
from meshwise.measure.stacks import busiest, profiles_of, threads_of
from meshwise.report.stacks import page
from meshwise.study.design.blocks import design
from meshwise.study.design.counting import counting_design
from meshwise.study.file.read import parse_study
from meshwise.study.model import Role
from meshwise.telemetry import profiling as profilers
from meshwise.telemetry.profiling import ProfiledStack, perf_stacks, profiling, spied_stacks
from meshwise.telemetry.seam import Moment
from meshwise.telemetry.threads import ThreadSampler
from meshwise.testbed.local.profiled import Profilers
from meshwise.testbed.seam import Measurement

STUDY = """\
name: profiled
environments: [none, istio]
factors: {posture: [none, strict], rate: 300/s}
trial: {warmup: 50ms, duration: 400ms}
blocks: 2
control: {same: [], twin: []}
primary: [response_p50_us]
"""


def test_each_cell_is_profiled_once_behind_all_that_is_timed() -> None:
    study = parse_study(STUDY + "profile: true\ncount: {executions: 2}\n", "s.yaml")
    trials = design(study)
    own = [trial for trial in trials if trial.role is Role.PROFILE]
    assert {trial.cell for trial in own} == set(study.cells)
    assert len(own) == len(study.cells) == 2
    assert len({trial.round for trial in trials if trial.role is not Role.COUNT}) == len(
        {trial.round for trial in trials if trial.role.timed}
    ) + len(own), "each alone"
    order = [trial.role for trial in trials]
    assert order == sorted(order, key=lambda role: (role is Role.COUNT, role is Role.PROFILE))
    (execution,) = {trial.execution for trial in own}
    assert execution not in {trial.execution for trial in trials if trial.role is not Role.PROFILE}
    rounds = [trial.round for trial in trials if trial.arm == 0]
    assert rounds == sorted(set(rounds))
    plain = parse_study(STUDY + "count: {executions: 2}\n", "s.yaml")
    assert [trial.cell for trial in counting_design(study)] == [
        trial.cell for trial in counting_design(plain)
    ]


def test_a_search_is_not_profiled() -> None:
    text = STUDY.replace(", rate: 300/s", "") + "kind: saturation\nobjective: {p99: 20ms}\nprofile: true\n"
    with pytest.raises(MeshwiseError, match="no rate that a trial could be profiled at"):
        parse_study(text, "s.yaml")


def test_profiled_trials_are_kept_shown_and_make_no_finding(tmp_path: Path) -> None:
    for name, more in (("with", "profile: true\n"), ("without", "")):
        run_fake(tmp_path / name, parse_study(STUDY + more, "s.yaml"))
    reader, plain = (ArchiveReader.open(tmp_path / name) for name in ("with", "without"))
    assert reader.study().profile
    assert reader.timed()["trial_id"].to_list() == plain.timed()["trial_id"].to_list()
    found, wanted = (to_json(analyze_archive(each))["findings"] for each in (reader, plain))
    assert [each["id"] for each in found] == [each["id"] for each in wanted]
    assert set(reader.profiles()["trial_id"].cast(pl.String)) == {"p000-p00", "p000-p01"}

    html = tmp_path / "flames.html"
    told = CliRunner().invoke(main.app, ["profile", str(tmp_path / "with"), "--html", str(html)])
    assert told.exit_code == 0, told.output
    assert " 75.0%  encrypt" in told.output
    assert " 25.0%  serve" in told.output
    text = html.read_text()
    assert "encrypt: 30 samples, 75.0%; itself 75.0%" in text
    assert "main: 40 samples, 100.0%; itself 0.0%" in text
    assert "<script" not in text
    assert "http" not in text.replace("/http1/", "")
    document = json.loads(CliRunner().invoke(main.app, ["profile", str(tmp_path / "with"), "--json"]).stdout)
    assert document["profiles"][0]["functions"][0] == {"name": "encrypt", "share": 0.75}
    refused = CliRunner().invoke(main.app, ["profile", str(tmp_path / "without")])
    assert isinstance(refused.exception, MeshwiseError)
    assert "none of its trials was profiled" in str(refused.exception)


PERF = """\
wrk:worker_0   41/47
        18a6f1 hyper::poll (inlined) (/usr/lib/proxy)
        140650 [unknown] (/usr/lib/libx.so)
        140651 [unknown] (/usr/lib/libx.so)
        24a4a1 main (/usr/lib/proxy)

wrk:worker_0   41/47
        18a6f1 hyper::poll (inlined) (/usr/lib/proxy)
        140650 [unknown] (/usr/lib/libx.so)
        24a4a1 main (/usr/lib/proxy)

python3 9/9
             5 nobody asked (/usr/bin/python3)

proxy   42/42
             7 [unknown] ([unknown])
"""


def test_what_perf_says_becomes_stacks() -> None:
    assert perf_stacks(PERF, {41: "a", 42: "b"}) == [
        ProfiledStack("a", "perf", "wrk:worker_0", ("main", "[libx.so]", "hyper::poll (inlined)"), 2),
        ProfiledStack("b", "perf", "proxy", ("[unknown]",), 1),
    ]


def test_what_py_spy_says_becomes_stacks() -> None:
    raw = "<module> (a.py:1);run (b.py:2) 12\n\nhalf a line\n"
    (stack,) = spied_stacks(raw, "a")
    assert (stack.frames, stack.samples) == (("<module> (a.py:1)", "run (b.py:2)"), 12)


def test_a_tree_of_frames_adds_up_and_is_escaped() -> None:
    rows = {
        "trial_id": ["p"] * 3, "source": ["x/a/b/proxy"] * 3, "tool": ["perf"] * 3,
        "stack": ["main;<a>;b", "main;b", "[envoy]"], "samples": [6, 3, 1],
    }  # fmt: skip
    (found,) = profiles_of(pl.DataFrame(rows))
    assert found.root.samples == 10
    assert busiest(found, 5) == [("b", 0.9), ("[envoy]", 0.1)]
    text = page("<title>", [found], [], {"p": "<cell>"})
    assert "<a>" not in text
    assert "&lt;a&gt;" in text
    assert "&lt;cell&gt;" in text


# --- real processes ------------------------------------------------------------------------------


BUSY = """
import time
def turning():
    end = time.time() + 60
    while time.time() < end:
        sum(range(99))
turning()
"""


@pytest.fixture
def busy() -> object:
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    yield process
    process.kill()
    process.wait()


def test_profilers_see_what_a_process_does(busy: subprocess.Popen[bytes], tmp_path: Path) -> None:
    if why := profilers.why_no_perf() or profilers.why_no_pyspy():
        pytest.skip(why)
    with profiling({"a/b/c/service": busy.pid}, ["a/b/c/service"], tmp_path) as found:
        time.sleep(2.0)
    assert found.missing == {}
    by_tool = {tool: [each for each in found.stacks if each.tool == tool] for tool in ("perf", "py-spy")}
    assert all(by_tool.values())
    assert any("turning" in frame for each in by_tool["py-spy"] for frame in each.frames)
    assert {each.source for each in found.stacks} == {"a/b/c/service"}


def test_where_no_profiler_is_one_line_says_so(
    busy: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profilers, "why_no_perf", lambda: "it may not be used here")
    monkeypatch.setattr(profilers, "why_no_pyspy", lambda: "there is no program `py-spy`")
    told = Profilers(tmp_path / "profile", wanted=True)
    with told.looking({"a/b/c/service": busy.pid}):
        pass
    empty = pl.DataFrame().to_arrow()
    made = told.told({"p000-p00": Measurement(empty, empty, 0, {})})["p000-p00"]
    assert made.profiles is not None
    assert made.profiles.num_rows == 0
    assert list(made.flags) == [
        "not_profiled: perf could not look at its processes: it may not be used here",
        "not_profiled: py-spy could not look at its processes: there is no program `py-spy`",
    ]


def test_threads_are_told_by_name_with_what_the_kernel_counts(busy: subprocess.Popen[bytes]) -> None:
    sampler = ThreadSampler("a/b/c/service", busy.pid)
    samples = [*sampler.sample(Moment.START)]
    assert sampler.sample(Moment.DURING) == ()
    time.sleep(0.3)
    samples += sampler.sample(Moment.END)
    rows = [vars(each) for each in samples]
    (used,) = threads_of(pl.DataFrame(rows))
    assert used.thread.endswith(f"/{busy.pid}")
    assert used.cpu_ns > 0
    assert used.voluntary + used.involuntary >= 0
    assert ThreadSampler("x", 2**22 + os.getpid()).sample(Moment.START) == ()
