"""`load: shape` and `think` of a study: what they become, how mistakes are told, what is shown."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.fake_study import run_fake

from meshwise.archive.findings import write_findings
from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.cli.plan import plan_document, show_plan
from meshwise.cli.report import read_content
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.findings.document import to_json
from meshwise.report import html as page
from meshwise.report.record import read_record
from meshwise.report.sections import report_of
from meshwise.report.spark import spark
from meshwise.study.design.estimate import TRIAL_FILE_BYTES, disk_bytes
from meshwise.study.file.profile_text import parse_shape
from meshwise.study.file.read import load_study, parse_study
from meshwise.study.load.profile import IdleBurst, LoadProfile, OnOff, Ramp, Sinusoid, Spike, Steps, Think
from meshwise.study.model import Arrivals, Study

S, MS = 10**9, 10**6
TOP = "name: x\nenvironments: [none, istio]\nfactors: {posture: [none, strict], rate: 200/s}\n"
"""Three lines."""


def with_shape(shape: str, more: str = "", arrivals: str = "constant") -> str:
    """The shape is in line 4, from column 32 on (with `constant`)."""
    return (
        f"{TOP}load: {{arrivals: {arrivals}, shape: {shape}}}\n{more}trial: {{warmup: 100ms, duration: 6s}}\n"
    )


def shape_of(text: str) -> LoadProfile:
    found = parse_study(with_shape(text), "s.yaml").trial.shape
    assert found is not None
    return found


def test_shapes_as_they_are_written() -> None:
    assert shape_of("{steps: {levels: [0.5x, 1x, 2x]}}") == LoadProfile(steps=Steps((0.5, 1.0, 2.0)))
    assert shape_of("{ramp: {start: 0x, end: 2x}}") == LoadProfile(ramp=Ramp(0.0, 2.0))
    assert shape_of("{sinusoid: {swing: 80%}}") == LoadProfile(sinusoid=Sinusoid(0.8, 6 * S))
    assert shape_of("{sinusoid: {swing: 0.5, period: 2s}}") == LoadProfile(sinusoid=Sinusoid(0.5, 2 * S))
    assert shape_of("{on_off: {on: 500ms, off: 1s}}") == LoadProfile(on_off=OnOff(500 * MS, S, 1.0, 0.0))
    assert shape_of("{spike: {at: 2s, lasts: 1s, height: 5x}}") == LoadProfile(spike=Spike(2 * S, S, 5.0))
    assert shape_of("{idle_burst: {idle: 2s, burst: 50}}") == LoadProfile(idle_burst=IdleBurst(2 * S, 50.0))
    both = shape_of("{sinusoid: {swing: 50%}, spike: {at: 3s, lasts: 500ms, height: 3x}}")
    assert both.words == "a sinusoid of ±50 % every 6s, times a spike of 3x at 3s for 500ms"


def test_the_states_of_a_study_are_drawn_once_from_its_seed() -> None:
    text = "{markov: {states: [{level: 0.5x, stays: 1s}, {level: 3x, stays: 200ms}]}}"
    first, second = shape_of(text).markov, shape_of(text).markov
    other = parse_study("seed: 2\n" + with_shape(text), "s.yaml").trial.shape
    assert first == second
    assert first is not None
    assert first.levels == (0.5, 3.0)
    assert first.stays_ns == (S, 200 * MS)
    assert other is not None
    assert other.markov is not None
    assert other.markov.seed != first.seed


def test_think_time() -> None:
    def think(text: str) -> Think | None:
        return parse_study(f"{TOP}load: {{arrivals: closed, think: {text}}}\n", "s.yaml").trial.think

    assert think("100ms") == Think(100 * MS)
    assert think("exponential 100ms") == Think(100 * MS, exponential=True)
    assert parse_study(TOP, "s.yaml").trial.think is None


SHAPE_AT = "s.yaml:4:"
MISTAKES = {
    "unknown": ("{spikes: {at: 1s}}", "did you mean `spike`?"),
    "no part": ("{}", "this shape has no part"),
    "text": ("spike", "`spike` does not fit `shape`"),
    "key": ("{spike: {at: 1s, lasts: 1s, height: 2x, for: 1s}}", "`for` is not a key here"),
    "missing": ("{spike: {at: 1s, lasts: 1s}}", "the key `height` is missing"),
    "no multiple": ("{spike: {at: 1s, lasts: 1s, height: 800/s}}", "`800/s` is not a multiple of the rate"),
    "too high": ("{spike: {at: 1s, lasts: 1s, height: 2000x}}", "`2000x` is too much"),
    "beyond the instrument": (
        "{spike: {at: 1s, lasts: 1s, height: 1000x}, steps: {levels: [9x, 1x]}}", "a peak of 1800000/s"
    ),
    "after the end": ("{spike: {at: 5s, lasts: 2s, height: 2x}}", "does not end within the 6s of a trial"),
    "no time": ("{on_off: {on: 0s, off: 1s}}", "`on` is shorter than 1ms"),
    "short stay": ("{markov: {states: [{level: 1x, stays: 1ms}, {level: 2x, stays: 1s}]}}", "than 10ms"),
    "one state": ("{markov: {states: [{level: 1x, stays: 1s}]}}", "a list does not fit `states`"),
    "one step": ("{steps: {levels: [2x]}}", "a list does not fit `levels`"),
    "two curves": ("{ramp: {start: 0x, end: 1x}, sinusoid: {swing: 50%}}", "do not go together"),
    "not alone": ("{idle_burst: {idle: 1s, burst: 5}, ramp: {start: 0x, end: 1x}}", "stands alone"),
    "flat": ("{ramp: {start: 0x, end: 0x}}", "this ramp sends nothing"),
    "no swing": ("{sinusoid: {swing: 0}}", "without a swing nothing moves"),
    "nothing sent": ("{steps: {levels: [0x, 0x]}}", "less than one request in a trial"),
    "more than all": ("{sinusoid: {swing: 120%}}", "`120%` is not a share"),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "what"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_place(shape: str, what: str) -> None:
    error = refused(with_shape(shape))
    assert error.where.startswith(SHAPE_AT)
    assert int(error.where.removeprefix(SHAPE_AT)) >= 27
    assert what in error.what


def refused(text: str, directory: Path | None = None) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        parse_study(text, "s.yaml", directory=directory)
    assert caught.value.exit_status == ExitStatus.BAD_INPUT
    return caught.value


def test_the_very_word_is_pointed_at() -> None:
    error = refused(with_shape("{spike: {at: 1s, lasts: 1s, height: 2}}"))
    line = with_shape("{spike: {at: 1s, lasts: 1s, height: 2}}").splitlines()[3]
    assert error.where == f"s.yaml:4:{line.index('2}}') + 1}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            with_shape("{ramp: {start: 0x, end: 1x}}", arrivals="closed"),
            "a closed loop has no rate",
        ),
        (f"{TOP}load: {{think: 1s}}\n", "only a closed loop waits for its user"),
        (f"{TOP}load: {{arrivals: closed, think: soon}}\n", "`soon` is not a think time"),
        (
            with_shape("{ramp: {start: 0x, end: 1x}}", "kind: saturation\nobjective: {p99: 20ms}\n").replace(
                ", rate: 200/s", ""
            ),
            "a saturation study searches a rate",
        ),
    ],
)
def test_what_does_not_go_together(text: str, what: str) -> None:
    assert what in refused(text).what


def test_the_peak_that_counts_is_that_of_the_highest_rate() -> None:
    text = with_shape("{steps: {levels: [1x, 500x]}}").replace("200/s", "[100/s, 800/s]")
    assert "at 800/s this has a peak of 400000/s; the instrument sends at most 200000/s" in refused(text).what


# --- a shape of its own: `meshwise load --shape` --------------------------------------------------------


def test_a_shape_typed_alone() -> None:
    found = parse_shape(
        "{spike: {at: 2s, lasts: 1s, height: 5x}}", "--shape", Arrivals.POISSON, 100.0, 6 * S, 1
    )
    assert found == LoadProfile(spike=Spike(2 * S, S, 5.0))


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("{spike: {at: 2s, lasts: 1s, height: 5}}", "--shape:1:37", "`5` is not a multiple of the rate"),
        ("{spik: {}}", "--shape:1:2", "`spik` is not a key here"),
        ("", "--shape", "has no value"),
        ("{trace: t.csv}", "--shape:1:9", "a trace is no shape here"),
        ("{ramp: {start: 1x, end: 1000x}}", "--shape:1:1", "a peak of 1000000/s"),
        ("{ramp: {start: 1x", "--shape:1", "not YAML"),
    ],
)
def test_mistakes_in_it(text: str, where: str, what: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        parse_shape(text, "--shape", Arrivals.CONSTANT, 1000.0, 6 * S, 1)
    assert caught.value.where.startswith(where)
    assert what in caught.value.what


# --- a trace in a study -----------------------------------------------------------------------------------


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A directory with a study that replays monday.csv: 3 s at 100/s."""
    rows = "".join(f"{100 + k / 100}\n" for k in range(300))
    (tmp_path / "monday.csv").write_text("time_s\n" + rows)
    text = TOP.replace(", rate: 200/s", "") + "load: {shape: {trace: monday.csv}}\n"
    (tmp_path / "s.yaml").write_text(text + "trial: {warmup: 100ms, duration: 2s}\nblocks: 2\n")
    return tmp_path


def test_the_rate_is_that_of_the_trace(beside: Path) -> None:
    found = load_study(beside / "s.yaml")
    assert {cell.rate_rps for cell in found.cells} == {100.0}
    assert found.trial.shape is not None
    assert found.trial.shape.times is not None
    assert found.trial.shape.times.count == 200
    assert found.notes == ("a trial replays the first 2s of monday.csv: 200 of its 300 requests",)


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("load: {shape", "load: {arrivals: poisson, shape", "says every time"),
        ("strict]", "strict], rate: 9/s", "the rate is that of monday.csv (100/s on average)"),
        ("strict]", "permissive], plaintext_share: 10%", "a trace of times is sent by one client"),
        ("strict]", "strict], forbidden_share: 10%, forbidden_by: identity", "identity` needs two"),
        ("monday", "tuesday", "cannot be read: No such file"),
        ("monday.csv", "s.yaml", "s.yaml:1: the trace: `name: x` is not the header"),
    ],
)
def test_what_a_trace_does_not_go_with(beside: Path, before: str, after: str, what: str) -> None:
    text = (beside / "s.yaml").read_text().replace(before, after, 1)
    assert what in refused(text, beside).what


def test_rates_of_a_trace_go_with_any_arrivals(beside: Path) -> None:
    (beside / "monday.csv").write_text("time_s,rate_rps\n0,100\n1,300\n")
    text = (beside / "s.yaml").read_text().replace("load: {shape", "load: {arrivals: poisson, shape")
    found = parse_study(text, "s.yaml", directory=beside)
    assert {cell.rate_rps for cell in found.cells} == {200.0}
    assert found.trial.shape is not None
    assert found.trial.shape.rates is not None
    assert found.trial.shape.rates.levels == (0.5, 1.5)


def test_a_peak_beyond_the_instrument_is_refused_in_a_trace_too(beside: Path) -> None:
    (beside / "monday.csv").write_text("time_s,rate_rps\n0,100\n1,300000\n")
    error = refused((beside / "s.yaml").read_text(), beside)
    assert "a peak of 300000/s" in error.what


def test_the_archive_holds_the_trace_and_needs_the_original_no_more(beside: Path) -> None:
    out = beside / "out"
    study = load_study(beside / "s.yaml")
    run_fake(out, study)
    (beside / "monday.csv").unlink()
    reader = ArchiveReader.open(out)
    assert (out / "traces/monday.csv").is_file()
    assert reader.study().trial == study.trial
    assert {trial.cell for trial in reader.design} <= set(reader.study().cells)
    again = load_study(out / "study.yaml")
    assert again.trial.shape == study.trial.shape
    assert again.cells == study.cells


def test_a_copy_that_was_altered_is_named(beside: Path) -> None:
    run_fake(beside / "out", load_study(beside / "s.yaml"))
    kept = beside / "out/traces/monday.csv"
    kept.write_text(kept.read_text().replace("100.01", "100.02"))
    with pytest.raises(MeshwiseError) as caught:
        ArchiveReader.open(beside / "out")
    assert caught.value.code == "MW609"
    assert caught.value.where == str(kept)


def test_a_trace_that_was_changed_since_is_not_resumed(beside: Path) -> None:
    run_fake(beside / "out", load_study(beside / "s.yaml"))
    path = beside / "monday.csv"
    path.write_text(path.read_text().replace("100.01", "100.02"))
    with pytest.raises(MeshwiseError, match="the trace was changed"):
        run_fake(beside / "out", load_study(beside / "s.yaml"), resume=True)


def test_a_trace_that_changes_while_the_study_begins_is_refused(beside: Path) -> None:
    study = load_study(beside / "s.yaml")
    (beside / "monday.csv").write_text("time_s\n0\n")
    with pytest.raises(MeshwiseError, match="changed since the study was read"):
        run_fake(beside / "out", study)


def test_what_lies_in_a_directory_for_traces_is_left_alone(beside: Path) -> None:
    (beside / "out/traces").mkdir(parents=True)
    shutil.copy(beside / "monday.csv", beside / "out/traces/mine.csv")
    run_fake(beside / "out", load_study(beside / "s.yaml"))
    assert (beside / "out/traces/mine.csv").is_file()


# --- what is shown ------------------------------------------------------------------------------------------


def shown(study: Study) -> str:
    stream = StringIO()
    show_plan(study, Path("my.yaml"), Console(file=stream, width=120, highlight=False))
    return stream.getvalue()


def test_the_plan_draws_the_load_and_says_its_peak() -> None:
    text = shown(parse_study(with_shape("{steps: {levels: [0.5x, 0x, 2x]}}"), "s.yaml"))
    assert "load: steps of 0.5x, 0x, 2x, constant arrivals" in text
    assert f"│{'▃' * 20}{' ' * 20}{'█' * 20}│ 6s; mean 167/s, peak 400/s at 200/s" in text
    assert "load:" not in shown(parse_study(TOP, "s.yaml"))


def test_the_plan_of_a_trace_and_of_a_thinking_loop(beside: Path) -> None:
    text = shown(load_study(beside / "s.yaml"))
    assert "load: the 200 times of a trace, monday.csv" in text
    assert "mean 100/s, peak 100/s over a tenth of a second" in text
    assert "a trial replays the first 2s of monday.csv" in " ".join(text.split())
    closed = parse_study(f"{TOP}load: {{arrivals: closed, think: exponential 100ms}}\n", "s.yaml")
    assert "load: a closed loop that thinks exponential 100ms after each answer" in shown(closed)


def test_the_plan_as_json(beside: Path) -> None:
    document = json.loads(json.dumps(plan_document(load_study(beside / "s.yaml"))))["load"]
    assert len(document["trace_sha256"]) == 64
    assert document["rates"][0]["mean_rps"] == pytest.approx(100)
    assert len(document["rates"][0]["course_rps"]) == 60
    steady = plan_document(parse_study(TOP, "s.yaml"))["load"]
    assert (steady["shape"], steady["rates"]) == (None, [])


def test_a_line_of_blocks() -> None:
    assert spark([0.0, 0.1, 0.5, 1.0]) == "│ ▁▅█│"
    assert spark([]) == "││"


def test_the_disk_is_reckoned_with_the_mean_of_the_shape() -> None:
    steady = parse_study(with_shape("{steps: {levels: [1x, 1x]}}"), "s.yaml")
    tripled = parse_study(with_shape("{steps: {levels: [2x, 4x]}}"), "s.yaml")
    rows = disk_bytes(steady, 1) - TRIAL_FILE_BYTES
    assert disk_bytes(tripled, 1) == pytest.approx(TRIAL_FILE_BYTES + 3 * rows, abs=2)


# --- from the fake testbed to the page ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> ArchiveReader:
    """An analysed archive whose load idles for a third of a trial."""
    directory = tmp_path_factory.mktemp("moved")
    text = with_shape("{steps: {levels: [1x, 0x, 5x]}}", "blocks: 2\n").replace("200/s", "1000/s")
    study = parse_study(text, "s.yaml")
    run_fake(directory, study)
    reader = ArchiveReader.open(directory)
    write_findings(directory, to_json(analyze_archive(reader)), reader.digests)
    return reader


def test_the_course_has_a_cell_s_rate_and_times_and_no_value_in_a_pause(moved: ArchiveReader) -> None:
    courses = read_content(moved).pictures.courses
    assert {course.at["posture"] for course in courses} == {"none", "strict"}
    for course in courses:
        assert course.intended_rps[:16] == pytest.approx([1000.0] * 16, abs=10)
        assert course.intended_rps[16:32] == pytest.approx([0.0] * 16)
        assert course.intended_rps[32:] == pytest.approx([5000.0] * 16, abs=10)
        median = course.response_us[0]
        assert all(value != value for value in median[16:32])
        assert all(20 < value < 5000 for value in (*median[:16], *median[32:]))
        assert all(course.response_us[1, :16] > median[:16])


def test_the_page_shows_it_and_the_findings_say_it(moved: ArchiveReader) -> None:
    content = read_content(moved)
    text = page.render(report_of(content, read_record(moved)), read_record(moved))
    assert content.study["load_shape"] == "steps of 1x, 0x, 5x"
    assert "Over a trial" in text
    assert "istio: median response time over a trial, and the intended rate" in text
    assert "5000/s intended" in text
    assert "load: steps of 1x, 0x, 5x" in text
    assert not any(finding.metric == "steady" for finding in content.findings)


def test_a_steady_load_has_none_of_it(tmp_path: Path) -> None:
    study = parse_study(TOP + "trial: {warmup: 100ms, duration: 500ms}\nblocks: 2\n", "s.yaml")
    run_fake(tmp_path, study)
    reader = ArchiveReader.open(tmp_path)
    write_findings(tmp_path, to_json(analyze_archive(reader)), reader.digests)
    content = read_content(reader)
    assert "load_shape" not in content.study
    assert content.pictures.courses == ()
    assert "Over a trial" not in page.render(report_of(content, read_record(reader)), read_record(reader))
