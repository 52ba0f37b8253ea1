"""The fake testbed: its truth comes back, its noise is what it says, and its faults take the real ways."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.support import studies
from tests.support.fake_study import run_fake, small_study
from tests.support.testbed_conformance import DOOMED, BedConformance

from meshwise.archive.read import ArchiveReader
from meshwise.study.design.blocks import design
from meshwise.study.model import LADDER, Study, Trial
from meshwise.testbed import seam
from meshwise.testbed.fake import FakeTestbed, SimulatedNoise, truth
from meshwise.testbed.seam import Measurement

STUDY = small_study()


def measured(trial: Trial, study: Study = STUDY, **more: object) -> Measurement:
    with FakeTestbed(study, **more) as testbed:  # type: ignore[arg-type]
        return testbed.measure([trial], lambda progress: None)[trial.trial_id]


def median_us(requests: pa.Table) -> float:
    return float(np.median(np.asarray(requests["done_ns"]) - np.asarray(requests["sent_ns"])) / 1e3)


class TestFakeTestbed(BedConformance):
    @classmethod
    def question(cls) -> Study:
        return studies.study([studies.cell(), studies.cell(LADDER[0]), studies.cell(LADDER[4])])

    @classmethod
    def make(cls, question: Study) -> seam.Testbed:
        return FakeTestbed(question, crashes={studies.trial(DOOMED, question.cells[0]).trial_id})

    @classmethod
    def seen(cls) -> object:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    @classmethod
    def accident(cls) -> seam.Observe:
        return lambda progress: None


def test_it_says_that_it_is_a_fake() -> None:
    assert FakeTestbed(STUDY).environment()["testbed"] == "fake"


def test_without_noise_the_truth_comes_back() -> None:
    study = small_study("workers: 1\n")
    for trial in design(study)[:6]:
        found = measured(trial, study, noise=SimulatedNoise(0, 0, 0))
        assert median_us(found.requests) == pytest.approx(truth(trial.cell).service_us, rel=0.12)
        assert cpu_us(found, trial) == pytest.approx(truth(trial.cell).proxy_cpu_us, rel=1e-6)


def cpu_us(found: Measurement, trial: Trial) -> float:
    """CPU of all sidecars over the requests of the measured time, from cumulative readings."""
    spent = 0.0
    rows = found.telemetry.to_pylist()
    for source in {row["source"] for row in rows if row["source"].endswith("/proxy")}:
        series = [row["value"] for row in rows if row["source"] == source and row["metric"] == "cpu_ns"]
        spent += series[-1] - series[0]
    return spent / 1e3 / (trial.cell.rate_rps * STUDY.trial.duration_ns / 1e9)


def test_block_and_process_noise_is_shared_as_it_should_be() -> None:
    trials = [trial for trial in design(STUDY) if trial.block == 0]
    only_block = [
        median_us(measured(trial, noise=SimulatedNoise(0.5, 0, 0)).requests) / truth(trial.cell).service_us
        for trial in trials
    ]
    assert np.std(np.log(only_block)) < 0.1
    assert abs(np.mean(np.log(only_block))) > 0.1
    strict = [trial for trial in trials if trial.cell.posture.name == "strict"]
    only_execution = {
        trial.process_set: median_us(measured(trial, noise=SimulatedNoise(0, 0.5, 0)).requests)
        for trial in strict
    }
    assert abs(np.log(only_execution["a"] / only_execution["b"])) > 0.1


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    trial = design(STUDY)[0]
    first, second, other = (measured(trial, seed=seed).requests for seed in (0, 0, 1))
    assert first.equals(second)
    assert not first.equals(other)


def test_harder_postures_cost_more() -> None:
    study = small_study().cells
    costs = [truth(cell).service_us for cell in study]
    assert costs == sorted(costs)
    assert truth(study[0]).proxy_cpu_us == 0


def test_telemetry_has_the_shape_of_a_real_one() -> None:
    trial = next(trial for trial in design(STUDY) if trial.cell.posture.name == "strict")
    rows = measured(trial).telemetry.to_pylist()
    sources = {row["source"] for row in rows}
    prefix = f"istio/{trial.process_set}"
    assert sources == {
        f"{prefix}/client/instrument", f"{prefix}/client/proxy", f"{prefix}/node-1/proxy",
        f"{prefix}/node-1/service",
    }  # fmt: skip
    for source in sources:
        times = [row["t_ns"] for row in rows if row["source"] == source and row["metric"] == "cpu_ns"]
        values = [row["value"] for row in rows if row["source"] == source and row["metric"] == "cpu_ns"]
        assert times[0] == 0
        assert times[-1] == STUDY.trial.duration_ns
        assert values == sorted(values)


def test_faults_are_stored_as_the_runner_says(tmp_path: Path) -> None:
    trials = design(STUDY)
    crashed, refused, unproven = (trials[place].trial_id for place in (1, 3, 4))
    testbed = FakeTestbed(STUDY, crashes={crashed, f"{crashed}-r1"}, refuses={refused}, unproven={unproven})
    summary = run_fake(tmp_path / "a", STUDY, testbed)
    assert (summary.failed, summary.unproven) == (3, 1)
    rows = {row["trial_id"]: row for row in ArchiveReader.open(tmp_path / "a").trials().to_dicts()}
    assert rows[crashed]["status"] == rows[f"{crashed}-r1"]["status"] == "failed"
    assert "segmentation fault" in rows[crashed]["log_tail"]
    assert 0 < rows[crashed]["requests_rows"] < 120
    assert rows[f"{refused}-r1"]["status"] == "ok"
    assert rows[unproven]["requests_rows"] is None
    assert f"measure {unproven}" not in testbed.log
    assert testbed.log[-1] == "exit"


def test_an_interrupted_study_keeps_what_is_complete_and_is_continued(tmp_path: Path) -> None:
    trials = design(STUDY)
    with pytest.raises(KeyboardInterrupt):
        run_fake(tmp_path / "a", STUDY, FakeTestbed(STUDY, interrupts={trials[7].trial_id}))
    assert ArchiveReader.open(tmp_path / "a").trials().height == 7
    run_fake(tmp_path / "a", STUDY, resume=True)
    stored = ArchiveReader.open(tmp_path / "a").trials()["trial_id"].to_list()
    assert stored == [trial.trial_id for trial in trials]
