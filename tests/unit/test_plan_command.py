"""`meshwise plan`: what it shows, that it writes nothing, and how it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from meshwise.cli.plan import controls_of, plan, plan_document, show_plan, split_factors, telling_factors
from meshwise.study.design.blocks import design, design_block
from meshwise.study.file.read import load_study, parse_study
from meshwise.study.model import Cell, MtlsMode, Role, Study

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "studies/quickstart.yaml"


@pytest.fixture
def with_alone(tmp_path: Path) -> Path:
    """The quickstart with a trial a block without company."""
    text, changed = re.subn(r"alone: 0\b", "alone: 1", QUICKSTART.read_text())
    assert changed == 1
    study = tmp_path / "quickstart.yaml"
    study.write_text(text)
    return study


def shown(study: Study, width: int = 100) -> str:
    stream = StringIO()
    show_plan(study, Path("my.yaml"), Console(file=stream, width=width, highlight=False))
    return stream.getvalue()


@pytest.mark.parametrize("name", ["quickstart.yaml", "quickstart-meshes.yaml"])
def test_the_demo_fits_into_its_six_minutes_with_room_for_the_rest(name: str) -> None:
    document = plan_document(load_study(QUICKSTART.with_name(name)))
    assert document["wall_s"] + document["count"]["wall_s"] <= 320


def test_the_demo_has_the_whole_ladder_on_http1_and_its_main_rungs_elsewhere() -> None:
    study = load_study(QUICKSTART)
    document = plan_document(study)
    assert document["trials"] == document["blocks"] * len(document["first_block"])
    assert document["trials"] + document["count"]["trials"] == len(design(study))
    postures = {(cell["protocol"], cell["posture"]) for cell in document["cells"]}
    assert len(postures) == 6 + 3 + 3


def test_the_document_is_the_study(with_alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(with_alone, as_json=True)
    document = json.loads(capsys.readouterr().out)
    study = load_study(with_alone)
    first = [trial for trial in design(study) if trial.block == 0]
    assert [task["trial_id"] for task in document["first_block"]] == [trial.trial_id for trial in first]
    assert [cell["cell"] for cell in document["cells"]] == [cell.name for cell in study.cells]
    controls = Counter(role for cell in document["cells"] for role in cell["control"])
    assert controls == {"twin": 1, "alone": 2}
    assert document["alone"]["per_block"] == 1
    assert sum(document["alone"]["cells"].values()) == study.blocks
    assert document["resolution_in_sd"]["n"] == study.executions
    assert document["resolution_in_sd"]["family"] == 5


def test_the_screen_shows_cells_order_time_disk_and_resolution(
    with_alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(with_alone)
    text = capsys.readouterr().out
    trials = sum(trial.role is not Role.COUNT for trial in design(load_study(with_alone)))
    for part in (
        "quickstart  none vs istio", "12 cells + 1 controls + 1 alone", f"{trials} trials", "on disk",
        "everywhere:",
        "together: 3 rounds a block, of 7, 3, 3 arms", "at most 560 requests/s over all arms",
        "alone: 1 a block besides, for levels without company",
        "Order of the first block", "What it can show", "strict+namespace", "twin",
        "of 5 steps that hold together", "next: meshwise run", "then: meshwise analyze",
    ):  # fmt: skip
        assert part in text


def test_every_trial_of_the_first_block_is_shown_once_and_can_be_told_apart(with_alone: Path) -> None:
    study = load_study(with_alone)
    text = shown(study, width=200)
    order = text[text.index("Order of the first block") : text.index("What it can show")]
    shown_rounds = re.findall(r"(?:^|\s)(\d+) \w", order)
    assert sorted(Counter(shown_rounds).values()) == [1, 3, 3, 7], "one number: at the same time"
    assert order.count("(twin)") == order.count("(alone)") == 1


def test_apart_every_trial_of_the_first_block_has_a_number_of_its_own() -> None:
    study = load_study(ROOT / "studies/ladder-istio.yaml")
    text = shown(study, width=200)
    order = text[text.index("Order of the first block") : text.index("What it can show")]
    for number in range(1, len(design_block(study, 0)) + 1):
        assert f"{number:>2} " in order
    assert order.count("(A/A)") == len(study.control.same)
    assert "apart: one trial at a time" in text


def test_levels_that_never_change_are_said_once() -> None:
    study = load_study(QUICKSTART)
    varying, constant = split_factors(study.cells)
    assert varying == ["mesh", "posture", "protocol", "connections", "streams"]
    assert "request 128B" in constant
    assert telling_factors(study.cells, varying) == ["posture", "protocol"]


def test_cells_that_cannot_be_are_listed_with_the_reason_and_not_planned() -> None:
    def refuses(cell: Cell) -> str | None:
        return "it has no such mode" if cell.posture.mtls is MtlsMode.PERMISSIVE else None

    study = parse_study("name: x\nenvironments: [none, istio]\n", "x.yaml", refuses)
    text = shown(study)
    assert "Not applicable: 1 cells, left out" in text
    assert "istio permissive http1\n  it has no such mode" in text
    document = plan_document(study)
    assert [(no["posture"], no["reason"]) for no in document["not_applicable"]] == [
        ("permissive", "it has no such mode")
    ]
    assert "permissive" not in {cell["posture"] for cell in document["cells"]}


def test_doubts_are_footnotes() -> None:
    study = parse_study(
        "name: x\nenvironments: istio\nfactors: {posture: strict}\nblocks: 3\ncontrol: {same: none}\n"
        "arrangement: apart\n",
        "x.yaml",
    )
    text = shown(study)
    assert "note 1: 3 executions" in text
    assert "note 2: no A/A control" in text


def test_controls_are_named_by_role() -> None:
    study = parse_study(
        "name: x\nenvironments: istio\nfactors: {posture: strict}\ncontrol: {same: all, twin: all}\n",
        "x.yaml",
    )
    assert controls_of(study, study.cells[0]) == ["aa", "twin"]


def run_plan(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from meshwise.cli.main import main; main()", "plan", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_profiled_trials_are_told() -> None:
    text = "name: x\nenvironments: [istio]\nfactors: {posture: [plaintext, strict], rate: 100/s}\n"
    study = parse_study(f"{text}trial: {{warmup: 1s, duration: 4s}}\nprofile: true\n", "x.yaml")
    assert "profiled: 2 trials more, one of each cell; 10s and starting" in shown(study)
    assert plan_document(study)["profile"] == [cell.name for cell in study.cells]
    assert "profiled" not in shown(parse_study(text, "x.yaml"))


def test_as_a_command_it_writes_nothing_and_refuses_with_status_2(tmp_path: Path) -> None:
    study = tmp_path / "bad.yaml"
    study.write_text("name: x\nenvironments: [none, isto]\nbloks: 3\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = run_plan("bad.yaml", directory=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: 2 problems in the study\nbad.yaml:2:22: `isto` is not")
    assert "\nbad.yaml:3:1: `bloks` is not a key here; did you mean `blocks`?" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_means_nothing_in_a_topology_is_not_said() -> None:
    study = parse_study(
        "name: x\nenvironments: [none, istio]\ntopology: bank\nfactors: {rate: 60/s}\n", "s.yaml"
    )
    varying, constant = split_factors(study.cells)
    assert not {"request_bytes", "response_bytes", "length"} & set(varying)
    assert not any(each.startswith(("request", "response", "length")) for each in constant)


def test_the_words_that_the_plan_uses_are_explained_and_no_others() -> None:
    together = shown(load_study(QUICKSTART))
    for explained in ("cell: one", "block: one", "round: trials", "arm: one", "A/A: a cell", "posture: how"):
        assert explained in " ".join(together.split())
    assert "instrument: " not in together
    apart = shown(load_study(ROOT / "studies/saturation.yaml"))
    assert "arm: " not in apart
    assert "cell: " not in apart
    assert "block: one" in apart
