"""The conformance suite of the seam `Testbed`: what the runner may rely on, wherever trials live.

class TestMyTestbed(BedConformance):
    @classmethod
    def question(cls) -> Study: ...                    # two cells or more, all of them applicable
    @classmethod
    def make(cls, question: Study) -> Testbed: ...
    @classmethod
    def seen(cls) -> object: ...                       # of its processes and links, from where the tests run
    @classmethod
    def accident(cls) -> Observe: ...                  # ends a proxy, or a service, while a trial is measured

One testbed serves all tests of a class but the first, in their order; two are not asked to live side by side.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from meshwise.archive.schema import REQUESTS, TELEMETRY, conform
from meshwise.study.model import NO_MESH, Study, Trial
from meshwise.telemetry.source import Source
from meshwise.testbed.seam import LiveProgress, Observe, Testbed
from tests.support.studies import trial

DOOMED = 9
"""Number of the trial during which the accident happens."""
STATE_BYTES = 8 << 20
"""Far more than any testbed keeps of a failure."""


class BedConformance:
    @classmethod
    def question(cls) -> Study:
        raise NotImplementedError

    @classmethod
    def make(cls, question: Study) -> Testbed:
        raise NotImplementedError

    @classmethod
    def seen(cls) -> object:
        raise NotImplementedError

    @classmethod
    def accident(cls) -> Observe:
        raise NotImplementedError

    def trials(self) -> list[Trial]:
        return [trial(number, cell) for number, cell in enumerate(self.question().cells)]

    @pytest.fixture(scope="class")
    @classmethod
    def bed(cls) -> Iterator[Testbed]:
        """Entered and started once; leaving it leaves nothing."""
        before = cls.seen()
        with cls.make(cls.question()) as bed:
            bed.restart(0)
            yield bed
        assert cls.seen() == before

    def test_left_by_an_error_it_leaves_nothing_and_its_state_never_raises(self) -> None:
        before, question = self.seen(), self.question()

        def fail() -> None:
            with self.make(question) as bed:
                self.is_state(bed, self.trials()[-1])  # of processes that were never started
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert self.seen() == before

    def test_its_environment_is_plain_facts(self, bed: Testbed) -> None:
        found, question = bed.environment(), self.question()
        told = json.loads(json.dumps(found))
        assert isinstance(told["testbed"], str)
        assert set(told["proxies"]) == {str(mesh) for mesh in question.environments}
        assert told["workers"] == question.proxy_workers
        assert set(told["cpus"]) >= {"instrument", "others"}
        for difference in told["fidelity"]:
            assert {"code", "what", "effect"} <= set(difference)

    def test_every_posture_is_proven_after_every_other(self, bed: Testbed) -> None:
        trials = self.trials()
        for one in (*trials, *reversed(trials)):
            bed.apply(one)
            proof = bed.prove(one)
            assert proof.passed, [str(check) for check in proof.checks if not check.passed]
            assert proof.checks
            assert proof.duration_ns > 0
            assert all(isinstance(value, str) for value in proof.facts.values())

    def test_resources_belong_to_the_cell_alone(self, bed: Testbed) -> None:
        trials = self.trials()
        texts = [bed.resources(one) for one in trials]
        assert texts == [bed.resources(one) for one in trials]
        assert len(set(texts)) == len(texts)
        for text in texts:
            list(yaml.safe_load_all(text))

    def test_what_is_measured_fits_the_archive(self, bed: Testbed) -> None:
        for one in self.trials():
            bed.apply(one)
            progress: list[LiveProgress] = []
            begun_unix_ns = time.time_ns()
            found = bed.measure([one], progress.append)[one.trial_id]
            assert (found.failure, found.flags, found.checks) == ("", (), ())
            assert begun_unix_ns <= found.started_unix_ns <= time.time_ns()
            assert progress
            assert all(each.elapsed_s >= 0 and each.completed >= 0 for each in progress)
            json.dumps(dict(found.instrument))
            assert {"limited_by", "lateness_p99_us", "cpu_us_per_request"} <= set(found.instrument)
            self.requests_are_those_that_were_asked(one, conform(found.requests, REQUESTS, one.trial_id))
            self.every_process_was_read(one, conform(found.telemetry, TELEMETRY, one.trial_id))

    def requests_are_those_that_were_asked(self, one: Trial, table: pa.Table) -> None:
        plan, window_ns = self.question().trial, self.question().window_ns(one)
        intended = table["intended_ns"].to_pylist()
        assert len(intended) == round(one.cell.rate_rps * (plan.warmup_ns + window_ns) / 1e9)
        assert intended == sorted(intended)
        assert (intended[0], intended[-1] < window_ns) == (-plan.warmup_ns, True)
        order = [table[name] for name in ("intended_ns", "sent_ns", "first_byte_ns", "done_ns")]
        for earlier, later in itertools.pairwise(order):
            assert later.null_count == 0
            assert pc.all(pc.less_equal(earlier, later)).as_py()
        assert set(table["error"].to_pylist()) == {""}
        assert set(table["bytes"].to_pylist()) == {one.cell.response_bytes}

    def every_process_was_read(self, one: Trial, table: pa.Table) -> None:
        series: dict[Source, list[float]] = {}
        for row in table.to_pylist():
            source = Source.read(row["source"])
            assert source is None or source.is_of(one)
            if source and row["metric"] == "cpu_ns":
                series.setdefault(source, []).append(row["value"])
        client, *nodes = (workload.name for workload in one.cell.topology.workloads)
        due = {(client, "instrument"), *((node, "service") for node in nodes)}
        if one.cell.posture != NO_MESH:
            due |= {(name, "proxy") for name in (client, *nodes)}
        assert {(source.workload, source.role) for source in series} >= due
        for values in series.values():
            assert len(values) >= 2
            assert values == sorted(values)
            assert values[-1] > values[0]

    def test_after_an_accident_the_state_is_told_and_a_restart_heals(self, bed: Testbed) -> None:
        doomed = trial(DOOMED, self.question().cells[-1])
        bed.apply(doomed)
        assert bed.prove(doomed).passed
        found = bed.measure([doomed], self.accident())[doomed.trial_id]
        assert found.failure
        assert found.requests.num_rows, "what was recorded until then is kept"
        conform(found.requests, REQUESTS, doomed.trial_id)
        self.is_state(bed, doomed)
        bed.restart(1)
        again = self.trials()[-1]
        bed.apply(again)
        assert bed.prove(again).passed

    def is_state(self, bed: Testbed, one: Trial) -> None:
        state = bed.state(one)
        assert state
        assert all(isinstance(text, str) and "/" not in name for name, text in state.items())
        assert sum(map(len, state.values())) < STATE_BYTES
        assert "PRIVATE KEY" not in "".join(state.values())

    def test_a_trial_can_be_reached_and_is_revived_only_if_something_ended(self, bed: Testbed) -> None:
        one = self.trials()[-1]
        bed.apply(one)
        with bed.reached(one) as found:
            target = found.placement.of(one.cell.topology)[1].name
            assert found.placement.mesh is one.cell.mesh
            assert found.reach.listens(target, one.cell.topology.entry.port(one.cell.protocol))
        assert list(bed.revive(one)) == []
        (revived,) = bed.revive(one, [target])
        assert "/proxy" in revived
        assert "fell silent" in revived
        bed.apply(one)
        assert bed.prove(one).passed
