"""What `meshwise run` shows while a study runs, and its last words; on the fake testbed."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.fake_study import small_study

from meshwise.archive.store import Archive, TrialStatus
from meshwise.cli.progress import ProgressLine, progress
from meshwise.cli.run import closing_line, proxy_overrides, stopped_line
from meshwise.cli.wiring import MESHES, not_applicable
from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.runner.loop import Observer, RunSummary, TrialLive, TrialStarted, run_study, schedule_of
from meshwise.study.design.blocks import design
from meshwise.study.model import MeshName, Role
from meshwise.testbed.fake import FakeTestbed
from meshwise.testbed.seam import LiveProgress

STUDY = small_study()
TRIALS = design(STUDY)
PER_BLOCK = len(TRIALS) // STUDY.blocks


def run(directory: Path, testbed: FakeTestbed, observe: Observer) -> RunSummary:
    with testbed, Archive.start(directory, STUDY, TRIALS, testbed.environment()) as archive:
        return run_study(STUDY, schedule_of(STUDY, TRIALS), testbed, archive, observe)


def shown(directory: Path, testbed: FakeTestbed, *, terminal: bool, width: int = 100) -> list[str]:
    stream = StringIO()
    console = Console(file=stream, force_terminal=terminal, width=width, highlight=False, color_system=None)
    with progress(console, STUDY, TRIALS) as observe:
        run(directory, testbed, observe)
    return stream.getvalue().splitlines()


def test_without_a_terminal_one_line_per_block(tmp_path: Path) -> None:
    lines = shown(tmp_path / "out", FakeTestbed(STUDY), terminal=False)
    assert len(lines) == STUDY.blocks
    assert lines[0] == f"block 1/2 · trial 1/{len(TRIALS)}"
    assert lines[1].startswith(f"block 2/2 · trial {PER_BLOCK + 1}/{len(TRIALS)} · ")
    assert lines[1].endswith(" left")


@pytest.mark.parametrize("terminal", [True, False])
def test_troubles_are_said_at_once_and_whole(tmp_path: Path, terminal: bool) -> None:
    crashed, unproven = TRIALS[1], TRIALS[PER_BLOCK]
    testbed = FakeTestbed(STUDY, crashes=[crashed.trial_id], unproven=[unproven.trial_id])
    lines = [
        line.rpartition("\r")[2] for line in shown(tmp_path / "out", testbed, terminal=terminal, width=60)
    ]
    text = "\n".join(lines)
    assert f"{crashed.trial_id} {crashed.cell.name}: failed (tried again at the end of its block): " in text
    assert f"{unproven.trial_id} {unproven.cell.name}: unproven: transport: expected " in text
    if not terminal:
        assert [line[:9] for line in lines] == ["block 1/2", f"{crashed.trial_id} "[:9], "block 2/2",
                                                f"{unproven.trial_id} "[:9]]  # fmt: skip


def test_the_line_of_a_terminal_has_place_time_left_p50_and_cell() -> None:
    line = ProgressLine(STUDY.blocks)
    trial = TRIALS[1]
    line.note(TrialStarted(TRIALS[0], 1, 12))
    line.note(TrialStarted(trial, 2, 12))
    cell = f"{trial.cell.mesh} {trial.cell.posture.name} http1"
    assert line.text == f"block 1/2 · trial 2/12 · 1s left · {cell}"
    line.note(TrialLive(trial, LiveProgress(0.5, 100, 1234.4)))
    assert line.text == f"block 1/2 · trial 2/12 · 1s left · P50 1,234 us · {cell}"
    line.note(TrialLive(trial, LiveProgress(1.0, 200, None)))
    assert "P50 1,234 us" in line.text, "nothing new to say"
    assert len(line.text) < 80


def test_what_is_profiled_is_in_no_block() -> None:
    line = ProgressLine(STUDY.blocks)
    trial = replace(TRIALS[1], block=STUDY.blocks, role=Role.PROFILE)
    line.note(TrialStarted(trial, 11, 12))
    assert line.finished == "profiling · trial 11/12"


def test_the_last_words_say_where_it_is_and_what_comes_next() -> None:
    out = Path("my study")
    kept = {f"t{number}": TrialStatus.OK for number in range(3)}
    summary = RunSummary(ok=3, failed=1, unproven=0, wall_s=10.0, measured_s=7.0)
    assert closing_line(summary, kept, out) == (
        "4 trials in 10s (70% of it in warm-up or measurement); 1 failed; archive in my study\n"
        "next: meshwise analyze 'my study' && meshwise report 'my study'"
    )
    idle = RunSummary(ok=0, failed=0, unproven=0, wall_s=0.0, measured_s=0.0)
    assert closing_line(idle, kept, Path("out")).startswith(
        "nothing was left to do: 3 trials stored; archive in out\nnext: "
    )
    assert stopped_line(1, Path("s.yaml"), out) == (
        "stopped; what is complete is kept: 1 trial; archive in my study\n"
        "next: meshwise run s.yaml --out 'my study' --resume"
    )
    assert stopped_line(0, Path("s.yaml"), out) == "stopped before a trial was complete"


# --- starting processes ----------------------------------------------------------------------------


class Stumbles(FakeTestbed):
    """Its proxies end while they are started, so many times."""

    times = 1

    def restart(self, execution: int) -> None:
        super().restart(execution)
        if self.times:
            self.times -= 1
            raise messages.ENDED_EARLY.error(name="proxy", ending="killed", what="ready", tail="")


def test_processes_that_end_while_they_start_are_started_once_more(tmp_path: Path) -> None:
    testbed = Stumbles(STUDY)
    assert run(tmp_path / "out", testbed, lambda event: None).ok == len(TRIALS)
    assert testbed.log[:2] == ["restart 0", "restart 0"]

    twice = Stumbles(STUDY)
    twice.times = 2
    with pytest.raises(MeshwiseError, match="MW211"):
        run(tmp_path / "second", twice, lambda event: None)


# --- wiring ----------------------------------------------------------------------------------------


def test_every_mesh_of_a_study_is_known_whether_its_proxy_is_installed_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MESHWISE_ENVOY", "/nowhere")
    assert set(MESHES) == set(MeshName)
    assert all(model().name is name for name, (model, _) in MESHES.items())
    for cell in STUDY.cells:
        assert not_applicable(cell) is None


def test_proxies_that_the_user_names_stay_visible_inside_the_world() -> None:
    environment = {"MESHWISE_ENVOY": "/srv/envoy", "MESHWISE_LINKERD_PROXY": "", "PATH": "/bin"}
    assert proxy_overrides(environment) == [Path("/srv/envoy")]
