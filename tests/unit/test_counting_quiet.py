"""What keeps chance out of counts: what sidecars have had before, and the time of the day."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.support.studies import cell, study

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.seam import Proof
from meshwise.study.counting import Counting
from meshwise.study.design.counting import counting_design
from meshwise.study.model import LADDER, Trial
from meshwise.testbed.applications.echo import COUNTED_DATE, node_spec
from meshwise.testbed.layout import lay_out
from meshwise.testbed.local.going_through import go_through

PLAINTEXT, _, STRICT, *_, FINE = LADDER
COUNTED = study(
    [cell(STRICT), cell(FINE, length=2), cell(PLAINTEXT)],
    counting=Counting(executions=4, at_once=2),
    timed=False,
)


def test_every_posture_is_gone_through_once_in_every_life_in_the_order_of_counting() -> None:
    trials = counting_design(COUNTED)
    execution = trials[0].execution
    own = [trial for trial in trials if trial.execution == execution]
    seen: dict[str, list[str]] = {}
    lock = threading.Lock()

    def apply(trial: Trial) -> None:
        with lock:
            seen.setdefault(trial.process_set, []).append(trial.trial_id)

    proven: list[str] = []

    def prove(trial: Trial) -> Proof:
        proven.append(trial.trial_id)
        return Proof(())

    go_through(own, apply, prove)
    assert seen == {
        life: [trial.trial_id for trial in own if trial.process_set == life] for life in ("a", "b")
    }
    assert sorted(proven) == sorted(trial.trial_id for trial in own)


def test_a_proxys_fault_is_left_to_its_trial_and_any_other_is_raised() -> None:
    def fail(error: MeshwiseError) -> None:
        def apply(trial: Trial) -> None:
            raise error

        go_through(counting_design(COUNTED)[:1], apply, lambda trial: Proof(()))

    fail(messages.PROCESS_GONE.error(name="x", ending="ended", tail=""))
    with pytest.raises(MeshwiseError):
        fail(messages.NO_VALGRIND.error(reason="there is none"))


def test_a_counted_node_answers_one_date_and_no_other_does(tmp_path: Path) -> None:
    [counted, *_] = lay_out(COUNTED, tmp_path, counting=True)
    assert node_spec(counted, "node-1").date == COUNTED_DATE
    [timed] = lay_out(study([cell(STRICT)]), tmp_path)
    assert node_spec(timed, "node-1").date == ""
