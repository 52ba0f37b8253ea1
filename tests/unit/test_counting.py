"""Counting trials: from the key of a study through the fake testbed to `counts.parquet`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.support.fake_study import run_fake, small_study
from tests.support.schedule_conformance import walk

from meshwise.archive.read import ArchiveReader
from meshwise.archive.store import Archive
from meshwise.cli.analyze import analyze_archive
from meshwise.cli.counting import CountingLine
from meshwise.core.errors import MeshwiseError
from meshwise.findings.document import to_json
from meshwise.runner.loop import TrialStarted, run_study, schedule_of
from meshwise.study.counting import Counting, WindowKind
from meshwise.study.design.blocks import design
from meshwise.study.design.counting import counted_cells, counting_design, planned_windows
from meshwise.study.design.estimate import counting_estimate
from meshwise.study.file.read import parse_study
from meshwise.study.model import Cell, MeshName, Role, Study
from meshwise.testbed.fake import FakeTestbed
from meshwise.testbed.fake_counting import CountingNoise, counted_truth

COUNT = "count: {requests: 50, windows: 3, warmup: 20, handshakes: 4, executions: 4, at_once: 2}\n"


def counting_study(extra: str = COUNT) -> Study:
    return small_study(extra)


def only_counted(extra: str = COUNT) -> Study:
    return replace(counting_study(extra), timed=False)


def rows(directory: Path) -> pl.DataFrame:
    names = ("trial_id", "kind", "source", "counter", "metric", "name")
    return ArchiveReader.open(directory).counts().with_columns(pl.col(name).cast(pl.String) for name in names)


# --- the key ---------------------------------------------------------------------------------------


def test_the_key_is_read_with_its_defaults() -> None:
    assert small_study().counting is None
    assert small_study("count: {}\n").counting == Counting()
    assert counting_study().counting == Counting(50, 3, 20, 4, 4, 2)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("count: {executions: 1}", "an interval needs two executions at least"),
        ("count: {request: 3}", "`request` is not a key"),
        ("count: {requests: 8, connections: [1, 16]}", "fewer requests than connections"),
        ("count: {requests: 0}", "`0` does not fit `requests`"),
    ],
)
def test_mistakes_are_told_with_their_place(said: str, words: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        small_study(said + "\n")
    assert words in caught.value.what
    assert caught.value.where.startswith("small.yaml:10:")
    assert caught.value.remedy


def test_a_study_without_sidecars_has_nothing_to_count() -> None:
    with pytest.raises(MeshwiseError, match="without a mesh there is no sidecar to count"):
        parse_study("name: alone\nenvironments: none\ncount: {}\n", "alone.yaml")


def test_who_has_a_mesh_is_not_told_to_add_one() -> None:
    said = (
        "name: streams\nenvironments: [none, istio]\n"
        "factors: {posture: [none, strict], protocol: grpc, streaming: client}\ncount: {}\n"
    )
    with pytest.raises(MeshwiseError, match="a stream of messages is not one request") as caught:
        parse_study(said, "streams.yaml")
    assert "without a mesh" not in caught.value.what
    assert "environments" not in caught.value.remedy


# --- the design ------------------------------------------------------------------------------------


def test_cells_that_differ_by_rate_are_counted_once_and_what_cannot_be_counted_has_a_reason() -> None:
    study = parse_study(
        "name: rates\nenvironments: [none, istio]\n"
        "include:\n  - {posture: [none, strict], rate: [100/s, 200/s], churn: [0/s, 1/s]}\n"
        "  - {posture: strict, requests_per_connection: 1}\ncount: {}\n",
        "rates.yaml",
    )
    found = counted_cells(study.cells, Counting())
    assert [(cell.posture.name, cell.rate_rps, cell.churn_per_s) for cell in found.cells] == [
        ("strict", 0, 0)
    ]
    assert [cell.requests_per_connection for cell in found.cells] == [0], "new ones are counted as handshakes"
    assert found.merged == 2
    assert Counter(cell.mesh for cell in found.left_out) == {MeshName.NONE: 4, MeshName.ISTIO: 2}


def test_levels_of_connections_and_streams_multiply_the_cells() -> None:
    study = parse_study(
        "name: batching\nenvironments: istio\nfactors: {posture: strict, protocol: [http1, grpc]}\n"
        "count: {connections: [1, 16], streams: [1, 4]}\n",
        "batching.yaml",
    )
    assert study.counting is not None
    levels = [
        (str(cell.protocol), cell.connections, cell.streams)
        for cell in counted_cells(study.cells, study.counting).cells
    ]
    assert levels == [("http1", 1, 1), ("http1", 16, 1)] + [
        ("grpc", connections, streams) for connections in (1, 16) for streams in (1, 4)
    ]


def test_handshakes_of_a_post_quantum_group_are_not_counted_with_another_group() -> None:
    study = parse_study(
        "name: groups\nenvironments: [istio]\n"
        "factors: {posture: strict, tls_group: [x25519, x25519mlkem768]}\n",
        "groups.yaml",
    )
    kinds = [{window.kind for window in planned_windows(Counting(), cell)} for cell in study.cells]
    assert [WindowKind.FRESH in each for each in kinds] == [True, False]
    assert [WindowKind.REQUESTS in each for each in kinds] == [True, True]


def test_a_counted_linkerd_has_one_kind_of_certificate() -> None:
    study = parse_study(
        "name: deep\nenvironments: [istio, linkerd]\n"
        "factors: {posture: strict, key: ecdsa-p256, chain_depth: [1, 3]}\ncount: {}\n",
        "deep.yaml",
    )
    found = counted_cells(study.cells, Counting())
    counted = {(cell.mesh, cell.chain_depth) for cell in found.cells}
    assert counted == {(MeshName.ISTIO, 1), (MeshName.ISTIO, 3), (MeshName.LINKERD, 1)}
    assert "one certificate all its life" in next(iter(found.left_out.values()))


def test_cells_of_other_protocols_than_asked_for_are_left_out_with_the_reason() -> None:
    study = parse_study(
        "name: one\nenvironments: istio\nfactors: {posture: strict, protocol: [http1, grpc, tcp]}\n"
        "count: {protocol: [http1, tcp]}\n",
        "one.yaml",
    )
    assert study.counting is not None
    found = counted_cells(study.cells, study.counting)
    assert [str(cell.protocol) for cell in found.cells] == ["http1", "tcp"]
    assert list(found.left_out.values()) == ["the study counts http1 and tcp only"]


def test_the_line_counts_counted_trials_and_not_what_was_timed_before() -> None:
    trials = design(counting_study())
    own = [trial for trial in trials if trial.role is Role.COUNT]
    line = CountingLine(trials)
    timed = len(trials) - len(own)
    line.note(TrialStarted(own[0], timed + 1, len(trials)))
    assert line.text.startswith(f"counted 0/{len(own)} · ")
    resumed = CountingLine(trials)
    resumed.note(TrialStarted(own[5], timed + 6, len(trials)))
    assert resumed.text.startswith(f"counted 5/{len(own)} · ")


def test_every_cell_is_counted_once_in_every_life_and_lives_share_rounds() -> None:
    study = counting_study()
    trials = counting_design(study)
    lives = {trial.life for trial in trials}
    assert lives == {(2, "a"), (2, "b"), (3, "a"), (3, "b")}
    cells = {cell.posture.name for cell in {trial.cell for trial in trials}}
    assert cells == {"plaintext", "strict"}
    assert Counter((trial.cell, trial.life) for trial in trials).most_common(1)[0][1] == 1
    assert len(trials) == 2 * 4
    assert {trial.role for trial in trials} == {Role.COUNT}
    assert set(Counter(trial.round for trial in trials).values()) == {2}
    assert min(trial.round for trial in trials) > max(
        trial.round for trial in design(study) if trial.role is not Role.COUNT
    )
    assert len({trial.trial_id for trial in design(study)}) == len(design(study))
    estimate = counting_estimate(study)
    assert (estimate.cells, estimate.trials, estimate.executions) == (2, 8, 4)
    assert 20 < estimate.wall_s < 60


def test_two_meshes_count_at_the_same_time() -> None:
    study = parse_study(
        "name: both\nenvironments: [istio, linkerd]\nfactors: {posture: [plaintext, strict]}\n"
        "count: {executions: 3}\n",
        "both.yaml",
    )
    rounds: dict[int, list[str]] = {}
    for trial in counting_design(study):
        rounds.setdefault(trial.round, []).append(f"{trial.cell.mesh}/{trial.process_set}")
    assert list(rounds.values()) == [["istio/a", "linkerd/a"]] * 6


def test_windows_end_with_an_idle_one_and_handshakes() -> None:
    strict = next(cell for cell in counting_study().cells if cell.posture.name == "strict")
    plaintext = next(cell for cell in counting_study().cells if cell.posture.name == "plaintext")
    counting = Counting(50, 2, 20, 4)
    kinds = [window.kind for window in planned_windows(counting, strict)]
    assert kinds == ["warmup", "requests", "requests", "idle", "fresh", "resumed"]
    assert [window.kind for window in planned_windows(counting, plaintext)][-1] is WindowKind.FRESH
    assert [window.kind for window in planned_windows(Counting(5, 1, 0, 0), strict)] == ["requests", "idle"]


def test_the_schedule_keeps_to_the_seam_and_counts_last() -> None:
    study = counting_study()
    roles = [trial.role for trial in walk(schedule_of(study, design(study)))]
    assert roles.index(Role.COUNT) == len(roles) - 8
    searching = parse_study(
        "name: both\nkind: saturation\nenvironments: [istio]\nfactors: {posture: strict}\nblocks: 2\n"
        "objective: {p99: 20ms}\ncount: {executions: 2}\n",
        "both.yaml",
    )
    schedule = schedule_of(searching, design(searching))
    tried = replace(searching, search=None)
    assert schedule is not None
    assert [each.role for each in walk(schedule_of(tried, design(tried)))][-2:] == [Role.COUNT] * 2


# --- the archive -----------------------------------------------------------------------------------


def test_every_window_of_every_sidecar_is_stored(tmp_path: Path) -> None:
    study = only_counted()
    summary = run_fake(tmp_path / "counts", study)
    assert (summary.ok, summary.failed, summary.unproven) == (8, 0, 0)
    found = rows(tmp_path / "counts")
    assert set(found["counter"]) == {"fake"}
    strict = next(trial for trial in counting_design(study) if trial.cell.posture.name == "strict")
    own = found.filter((pl.col("trial_id") == strict.trial_id) & (pl.col("metric") == "instructions"))
    assert own["window"].to_list() == [number for number in range(7) for _ in range(2)]
    assert set(own["source"]) == {f"istio/{strict.process_set}/{name}/proxy" for name in ("client", "node-1")}
    shown = own.unique("window").sort("window").select("kind", "requests", "connections").rows()
    assert shown == [
        ("warmup", 20, 16), *[("requests", 50, 16)] * 3, ("idle", 0, 16), ("fresh", 4, 4), ("resumed", 4, 4),
    ]  # fmt: skip
    calls = found.filter((pl.col("metric") == "system_calls") & (pl.col("kind") == "requests"))
    assert set(calls["name"]) == {"epoll_wait", "readv", "writev"}
    reader = ArchiveReader.open(tmp_path / "counts")
    with reader.connect() as database:
        assert database.sql("SELECT count(*) FROM counts").fetchall() == [(found.height,)]
    assert reader.study() == replace(study, notes=())
    assert reader.timed().height == 0
    assert reader.trials().height == 8


def test_without_noise_the_truth_comes_back(tmp_path: Path) -> None:
    study = only_counted()
    quiet = FakeTestbed(study, counting_noise=CountingNoise(0, 0, 0, 0))
    run_fake(tmp_path / "counts", study, quiet)
    found = rows(tmp_path / "counts").filter(pl.col("metric") == "instructions")
    cells = {trial.trial_id: trial.cell for trial in counting_design(study)}

    def per_request(trial_id: str, workload: str) -> float:
        own = found.filter((pl.col("trial_id") == trial_id) & pl.col("source").str.contains(f"/{workload}/"))
        counted = own.filter(pl.col("kind") == "requests")
        idle = own.filter(pl.col("kind") == "idle")["value"].mean()
        return (sum(counted["value"]) / counted.height - idle) / 50  # type: ignore[operator]

    for trial_id, cell in cells.items():
        for (workload, _), truth in counted_truth(cell).items():
            assert per_request(trial_id, workload) == pytest.approx(truth, rel=1e-3)
    plaintext, strict = (
        sum(counted_truth(next(c for c in study.cells if c.posture.name == name)).values())
        for name in ("plaintext", "strict")
    )
    assert strict > plaintext * 1.03


def test_a_window_in_which_a_request_failed_is_left_out_and_said(tmp_path: Path) -> None:
    study = only_counted()
    run_fake(tmp_path / "counts", study, FakeTestbed(study, uncounted={"c000-p00": [2]}))
    found = rows(tmp_path / "counts").filter(pl.col("trial_id") == "c000-p00")
    assert 2 not in set(found["window"])
    row = next(
        r for r in ArchiveReader.open(tmp_path / "counts").trials().to_dicts() if r["trial_id"] == "c000-p00"
    )
    assert (row["status"], len(row["flags"])) == ("ok", 1)
    assert row["flags"][0].endswith("which are left out: 2")


def test_a_failed_counting_trial_is_told_and_tried_again_with_its_round(tmp_path: Path) -> None:
    study = only_counted()
    summary = run_fake(tmp_path / "counts", study, FakeTestbed(study, crashes=["c001-p01"]))
    assert (summary.ok, summary.failed) == (8, 1)
    trials = {row["trial_id"]: row for row in ArchiveReader.open(tmp_path / "counts").trials().to_dicts()}
    assert trials["c001-p01"]["failure"] == "istio/b/node-1/proxy ended with status 139"
    assert trials["c001-p01-r1"]["status"] == "ok"
    assert "c001-p00-r1" not in trials
    assert trials["c001-p00"]["flags"] == []


def test_counting_resumes_at_the_first_missing_trial(tmp_path: Path) -> None:
    study = only_counted()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_fake(whole, study)
    with pytest.raises(KeyboardInterrupt):
        run_fake(cut, study, FakeTestbed(study, interrupts=["c001-p00"]))
    assert ArchiveReader.open(cut).trials().height == 4
    testbed = FakeTestbed(study)
    run_fake(cut, study, testbed, resume=True)
    assert [each for each in testbed.log if each.startswith("count")] == [
        f"count c001-p{number:02d}" for number in range(4)
    ]
    order = ["trial_id", "window", "source", "metric", "name"]
    assert rows(cut).sort(order).equals(rows(whole).sort(order))


def test_what_a_killed_run_left_of_an_unfinished_trial_is_not_read(tmp_path: Path) -> None:
    """Counts are written before the trials' rows, so a run can be killed between the two."""
    study, directory = only_counted(), tmp_path / "counts"
    testbed, trials = FakeTestbed(study), design(study)

    def stop_before_the_rows(name: str, content: object) -> None:
        if name == "trials.parquet":
            raise KeyboardInterrupt
        write(name, content)  # type: ignore[arg-type]

    with testbed, Archive.start(directory, study, trials, testbed.environment()) as archive:
        write = archive._folder.write
        archive._folder.write = stop_before_the_rows  # type: ignore[method-assign,assignment]
        with pytest.raises(KeyboardInterrupt):
            run_study(study, schedule_of(study, trials), testbed, archive, lambda event: None)
    assert (directory / "counts.parquet").exists()
    assert rows(directory).height == 0
    run_fake(directory, study, resume=True)
    assert Counter(rows(directory).unique(["trial_id", "window"])["trial_id"]).total() == 8 * 6 + 4


# --- beside what is timed --------------------------------------------------------------------------


def test_nothing_that_is_counted_enters_the_analysis_of_times(tmp_path: Path) -> None:
    both, timed = tmp_path / "both", tmp_path / "timed"
    run_fake(both, counting_study())
    run_fake(timed, small_study())
    found, expected = (to_json(analyze_archive(ArchiveReader.open(directory))) for directory in (both, timed))
    assert found["study"].pop("counting")["counter"] == "fake"
    found["findings"] = [each for each in found["findings"] if each["provenance"] == "measured"]
    assert found["findings"].pop()["metric"] == "counted"  # the check of what was counted
    pictures, wanted = found["pictures"], expected["pictures"]
    assert len(pictures.pop("flames")) > len(wanted.pop("flames")) == 0
    pictures["cells"] = pictures["cells"][: len(wanted["cells"])]  # those of the flames come last
    assert found == expected


def test_a_cell_that_is_only_counted_is_no_cell_of_the_study(tmp_path: Path) -> None:
    directory = tmp_path / "both"
    study = counting_study("count: {executions: 2, connections: [1, 2]}\n")
    run_fake(directory, study)
    cells: tuple[Cell, ...] = ArchiveReader.open(directory).cells()
    assert cells == study.cells
