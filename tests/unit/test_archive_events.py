"""What was done to trials, in the archive: stored, read, and read from archives of before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.support.studies import cell
from tests.support.studies import study as made

from meshwise.analysis.settings import Settings
from meshwise.archive.event_rows import EventRow, events_table, whole_events
from meshwise.archive.outcome import Measurement
from meshwise.archive.read import ArchiveReader
from meshwise.archive.resolved import of_values, to_values
from meshwise.archive.schema import EVENTS, conform
from meshwise.archive.store import Archive
from meshwise.cli.analyze import analyze_archive
from meshwise.findings.flag import EVENT_FAILED
from meshwise.runner.loop import run_study, schedule_of
from meshwise.study.design.blocks import design
from meshwise.study.file.read import parse_study
from meshwise.study.model import LADDER, Arrangement, Study, Timeline, Trial
from meshwise.study.timeline import Declared, Restart, Restarted
from meshwise.testbed.fake import FakeTestbed
from meshwise.testbed.seam import Observe

S = 10**9
TEXT = """\
name: changing
environments: [none, istio]
factors: {posture: [none, strict], rate: 50/s}
trial: {warmup: 100ms, duration: 20s}
blocks: 2
arrangement: together
alone: 0
events:
  - {rotate: leaf, every: 6s}
  - {restart: proxy, at: [2s, 4s]}
  - {fail: renewal, at: 10s, lasts: 5s}
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> ArchiveReader:
    study, directory = parse_study(TEXT, "s.yaml"), tmp_path_factory.mktemp("archive") / "a"
    trials = design(study)
    with (
        FakeTestbed(study, thin=10) as testbed,
        Archive.start(directory, study, trials, testbed.environment()) as archive,
    ):
        run_study(study, schedule_of(study, trials), testbed, archive, lambda _: None)
    return ArchiveReader.open(directory)


def test_events_of_cells_are_stored_and_twins_have_none(stored: ArchiveReader) -> None:
    events = stored.events()
    assert events.columns == EVENTS.arrow.names
    disturbed = stored.trials().filter(pl.col("role") == "cell")["trial_id"].to_list()
    assert set(events["trial_id"].cast(pl.String)) == set(disturbed)
    mine = events.filter(
        pl.col("trial_id") == next(each.trial_id for each in stored.design if str(each.cell.mesh) == "istio"
         and each.role == "cell")
    )  # fmt: skip
    told = {
        (row["event"], row["occurrence"], row["intended_ns"] // S, row["entry"]) for row in mine.to_dicts()
    }
    assert told == {
        ("restart proxy", 0, 2, 1), ("restart proxy", 1, 4, 1), ("rotate leaf", 2, 6, 0),
        ("fail renewal", 3, 10, 2), ("rotate leaf", 4, 12, 0), ("rotate leaf", 5, 18, 0),
    }  # fmt: skip


def test_they_are_a_table_of_queries(stored: ArchiveReader) -> None:
    with stored.connect() as connection:
        [(found,)] = connection.sql("select count(distinct event) from events").fetchall()
    assert found == 3


def test_the_study_is_read_as_it_was_asked(stored: ArchiveReader) -> None:
    assert stored.study().trial.timeline == parse_study(TEXT, "s.yaml").trial.timeline


def test_what_did_not_begin_has_null_and_a_time_for_old_readers() -> None:
    rows = [
        EventRow("skew", "istio/a", 0, 0, 5 * S, detail={"not_done": "why"}),
        EventRow("rotate leaf", "istio/a/node-1/proxy", 1, 1, 6 * S, 6 * S + 1, None),
    ]
    first, second = conform(events_table(rows), EVENTS, "b000-p00").to_pylist()
    assert (first["t_ns"], first["begun_ns"], first["done_ns"], first["duration_ns"]) == (
        5 * S,
        None,
        None,
        0,
    )
    assert json.loads(first["detail"]) == {"not_done": "why"}
    assert (second["t_ns"], second["begun_ns"], second["done_ns"]) == (6 * S + 1, 6 * S + 1, None)


def test_events_of_older_archives_have_the_columns_of_today() -> None:
    old = [
        {"trial_id": trial, "t_ns": at_ns, "kind": "restart", "target": "istio/a/node-1/proxy",
         "duration_ns": 5, "detail": "{}"}
        for trial in ("b000-p00", "b001-p00") for at_ns in (10, 20)
    ]  # fmt: skip
    names = EVENTS.arrow.names
    table = conform(pl.DataFrame(old).to_arrow(), EVENTS)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    found = whole_events(frame)
    assert found.columns == names
    assert found["event"].cast(pl.String).to_list() == ["restart proxy"] * 4
    assert found["occurrence"].to_list() == [0, 1, 0, 1]
    assert found["begun_ns"].to_list() == found["intended_ns"].to_list() == [10, 20, 10, 20]
    assert found["done_ns"].to_list() == [15, 25, 15, 25]
    assert found["entry"].to_list() == [0] * 4


def resolved(study: Study, **trial: object) -> Study:
    values = json.loads(json.dumps(to_values(study)))
    del values["trial"]["timeline"]
    values["trial"] |= trial
    return of_values(values, "", Path("traces"))


def test_a_study_of_before_there_were_timelines_is_read() -> None:
    study = made([cell(LADDER[2])])
    restarts = Timeline((Declared(Restart(Restarted.PROXY), every_ns=3 * S),))
    assert resolved(study).trial.timeline == Timeline()
    assert resolved(study, restart_every_ns=0) == replace(study, source="")
    assert resolved(study, restart_every_ns=3 * S).trial.timeline == restarts
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        resolved(study, restart_every_ns=-1)


def test_a_twin_to_which_nothing_happens_is_no_control_of_noise(stored: ArchiveReader) -> None:
    """What lies between a cell that rotates and a twin that does not is what the rotation does."""
    apart = replace(stored.study(), arrangement=Arrangement.APART)
    assert Settings.of(stored.study(), stored.design).twins_undisturbed
    assert not Settings.of(apart, stored.design).twins_undisturbed, "there it happens to both"
    found = analyze_archive(stored).findings
    assert not [each.id for each in found if each.id.startswith("noise_floor/twin/")]
    assert [each for each in found if each.id.startswith("level/")]


class Unruly(FakeTestbed):
    """A testbed whose control plane does not come back in the first trial of a mesh."""

    def measure(self, trials: Sequence[Trial], observe: Observe) -> Mapping[str, Measurement]:
        found = dict(super().measure(trials, observe))
        for trial in trials:
            if trial.trial_id in self.crashes:
                gone = EventRow(
                    "fail controller", "istio/a", 2, 3, 10 * S, 10 * S, None, {"not_done": "gone"}
                )
                flag = str(EVENT_FAILED(words="event `fail controller` at 10s failed"))
                found[trial.trial_id] = replace(
                    found[trial.trial_id], events=events_table([gone]), flags=(flag,)
                )
        return found


def test_a_trial_whose_event_failed_is_kept_flagged_tried_again_and_the_archive_is_whole(
    tmp_path: Path,
) -> None:
    study = parse_study(TEXT, "s.yaml")
    trials = design(study)
    lost = next(each.trial_id for each in trials if each.cell.mesh == "istio" and each.role == "cell")
    with (
        Unruly(study, thin=10, crashes=[lost]) as testbed,
        Archive.start(tmp_path / "a", study, trials, testbed.environment()) as archive,
    ):
        summary = run_study(study, schedule_of(study, trials), testbed, archive, lambda _: None)
    reader = ArchiveReader.open(tmp_path / "a")
    assert (summary.failed, summary.unproven) == (1, 0)
    [row] = reader.trials().filter(pl.col("trial_id") == lost).to_dicts()
    assert row["status"] == "failed"
    assert row["flags"][0].startswith("event_failed: ")
    [event] = reader.events().filter(pl.col("trial_id").cast(pl.String) == lost).to_dicts()
    assert (event["event"], event["begun_ns"], event["done_ns"]) == ("fail controller", 10 * S, None)
    assert reader.scan_requests([lost]).collect().height > 0
    assert reader.trials().filter(pl.col("trial_id") == f"{lost}-r1")["status"].to_list() == ["ok"]
