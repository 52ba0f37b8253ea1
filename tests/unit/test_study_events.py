"""`events` of a study file: what each entry becomes, when it happens, and what each mistake is told."""

from __future__ import annotations

import re

import pytest

from meshwise.cli.plan_events import events_document, events_lines, late_events
from meshwise.cli.wiring import not_applicable
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.study.design.blocks import design_block
from meshwise.study.design.rounds import block_rounds, disturbed
from meshwise.study.file.read import parse_study
from meshwise.study.model import Arrangement, MeshName, Role, Study
from meshwise.study.security import POSTURES
from meshwise.study.timeline import (
    Act,
    ChangePosture,
    Declared,
    Fail,
    Failing,
    PushPolicies,
    RenewalFault,
    Restart,
    Restarted,
    Rotate,
    Rotated,
    Skew,
    Timeline,
    event_name,
)

S = 10**9


def study(
    *events: str, more: str = "", posture: str = "[none, strict]", meshes: str = "none, istio"
) -> Study:
    lines = "".join(f"  - {event}\n" for event in events)
    text = (
        f"name: changing\nenvironments: [{meshes}]\nfactors: {{posture: {posture}, rate: 100/s}}\n"
        f"trial: {{duration: 60s}}\n{more}events:\n{lines}"
    )
    return parse_study(text, "s.yaml", not_applicable)


def refused(*events: str, **more: str) -> str:
    with pytest.raises(MeshwiseError) as caught:
        study(*events, **more)
    assert caught.value.exit_status is ExitStatus.BAD_INPUT
    return str(caught.value)


@pytest.mark.parametrize(
    ("said", "act"),
    [
        ("{rotate: leaf, at: 1s}", Rotate(Rotated.LEAF)),
        ("{rotate: issuer, spread: 2s, at: 1s}", Rotate(Rotated.ISSUER, 2 * S)),
        ("{rotate: anchor, overlap: false, at: 1s}", Rotate(Rotated.ANCHOR, overlap=False)),
        ("{push: policies, count: 1000, relevant: true, at: 1s}", PushPolicies(1000, relevant=True)),
        ("{posture: strict+namespace, at: 1s}", ChangePosture(POSTURES["strict+namespace"])),
        ("{restart: proxy, drain: true, at: 1s}", Restart(Restarted.PROXY, drain=True)),
        ("{restart: service, workload: node-1, at: 1s}", Restart(Restarted.SERVICE, workload="node-1")),
        ("{restart: controller, at: 1s}", Restart(Restarted.CONTROLLER)),
        ("{fail: renewal, lasts: 5s, at: 1s}", Fail(Failing.RENEWAL, 5 * S, RenewalFault.REFUSED)),
        ("{fail: renewal, how: slow, lasts: 5s, at: 1s}", Fail(Failing.RENEWAL, 5 * S, RenewalFault.SLOW)),
        ("{fail: controller, lasts: 5s, at: 1s}", Fail(Failing.CONTROLLER, 5 * S, RenewalFault.GONE)),
        ("{fail: policy, how: slow, lasts: 5s, at: 1s}", Fail(Failing.POLICY, 5 * S, RenewalFault.SLOW)),
        ("{skew: 1h, lasts: 5s, at: 1s}", Skew(3600 * S, 5 * S)),
        ("{skew: -10m, lasts: 5s, at: 1s}", Skew(-600 * S, 5 * S)),
    ],
)
def test_each_entry_is_one_act(said: str, act: Act) -> None:
    assert study(said).trial.timeline == Timeline((Declared(act, (S,)),))


def test_a_study_without_events_has_an_empty_timeline() -> None:
    assert not parse_study("name: a\nenvironments: [istio]\nfactors: {posture: strict}\n", "s").trial.timeline


def test_periods_begin_after_one_and_times_are_as_said() -> None:
    found = study("{rotate: leaf, every: 25s}", "{restart: proxy, at: [30s, 3s]}").trial.timeline
    told = [(each.number, each.entry, each.intended_ns // S) for each in found.occurrences(60 * S)]
    assert told == [(0, 1, 3), (1, 0, 25), (2, 1, 30), (3, 0, 50)]


def test_of_a_period_only_those_happen_that_are_over_before_the_trial_is() -> None:
    found = study("{fail: renewal, every: 20s, lasts: 15s}", "{rotate: leaf, every: 25s, spread: 10s}")
    told = [(each.entry, each.intended_ns // S) for each in found.trial.timeline.occurrences(60 * S)]
    assert told == [(0, 20), (1, 25), (0, 40), (1, 50)]
    found = study("{fail: renewal, every: 20s, lasts: 20s}")
    assert [each.intended_ns // S for each in found.trial.timeline.occurrences(60 * S)] == [20, 40]
    found = study("{fail: renewal, every: 25s, lasts: 11s}")
    assert [each.intended_ns // S for each in found.trial.timeline.occurrences(60 * S)] == [25]


def test_a_posture_goes_back_every_second_time() -> None:
    found = study("{posture: permissive, every: 20s}").trial.timeline.occurrences(60 * S)
    assert [each.back for each in found] == [False, True]


@pytest.mark.parametrize(
    ("events", "place", "words"),
    [
        (["{rotate: leaf, at: 60s}"], "6:24", "the trial is over after 1m, before this `rotate leaf`"),
        (["{rotate: leaf, at: [5s, 2m]}"], "6:29", "the trial is over after 1m"),
        (["{rotate: leaf, every: 2m}"], "6:27", "before the first `rotate leaf`"),
        (["{rotate: leaf, every: 4s}"], "6:27", "at most every 5s"),
        (["{restart: proxy, every: 500ms}"], "6:29", "at most every 1s"),
        (["{rotate: leaf, every: 6s, spread: 8s}"], "6:27", "at most every 8s"),
        (["{rotate: leaf}"], "6:5", "does not say when"),
        (["{rotate: leaf, at: 1s, every: 5s}"], "6:5", "both say when"),
        (["{at: 1s}"], "6:5", "does not say what is done"),
        (["{rotate: leaf, restart: proxy, at: 1s}"], "6:5", "says 2 things"),
        (["{rotate: leafs, at: 1s}"], "6:14", "did you mean `leaf`"),
        (["{rotate: leaf, at: 1s, sprad: 1s}"], "6:28", "did you mean `spread`"),
        (["{restart: proxy, at: 1s, lasts: 1s}"], "6:30", "the keys here: `at`, `every`, `restart`"),
        (["{push: policies, at: 1s}"], "6:5", "the key `count` is missing"),
        (["{push: policies, count: 1001, at: 1s}"], "6:29", "1001"),
        (["{fail: renewal, at: 1s}"], "6:5", "the key `lasts` is missing"),
        (["{fail: renewal, at: 50s, lasts: 11s}"], "6:25", "would not be over when the trial is"),
        (["{fail: controller, at: 5s, lasts: 1s, how: refused}"], "6:48", "only renewals are"),
        (["{skew: 1h, at: 5s, lasts: 0s}"], "6:31", "over when it begins"),
        (["{posture: none, at: 1s}"], "6:15", "`none` is not a posture"),
        (["{posture: plaintext+fine, at: 1s}"], "6:15", "cannot be brought to every cell: istio: without"),
        (["{restart: proxy, workload: node-9, at: 1s}"], "6:32", "did you mean `node-1`"),
        (["{restart: service, workload: client, at: 1s}"], "6:34", "the client has no service"),
        (["{restart: controller, workload: node-1, at: 1s}"], "6:37", "there is one for all"),
        (["{rotate: leaf, at: [5s, 5500ms]}"], "6:5", "begins before"),
        (["{rotate: leaf, at: 5s, spread: 4s}", "{rotate: anchor, at: 8s}"], "7:5", "is over (4s)"),
        (["{fail: renewal, at: 5s, lasts: 9s}", "{fail: renewal, at: 8s, lasts: 1s}"], "7:5", "is over (9s)"),
        (["{fail: renewal, every: 50s, lasts: 20s}"], "6:28", "before the first `fail renewal` is over"),
        (["{skew: 0s, at: 5s, lasts: 1s}"], "6:12", "a clock that is right is no event"),
        (["{rotate: leaf, at: 5s, overlap: false}"], "6:37", "only of an anchor two are trusted"),
        (["{rotat: leaf, at: 5s}"], "6:5", "does not say what is done; did you mean `rotate`"),
        (["null"], "6:5", "entry 1 of `events` has no value"),
        (["{fail: controller, at: 5s, lasts: 9s}", "{restart: controller, at: 8s}"], "7:5", "is over (9s)"),
        (["{fail: controller, at: 5s, lasts: 9s}", "{fail: policy, at: 8s, lasts: 1s}"], "7:5", "both need"),
        (["{fail: renewal, at: 5s, lasts: 9s}", "{fail: controller, at: 8s, lasts: 1s}"], "7:5", "both need"),
        (["{skew: 1h, at: 5s, lasts: 9s}", "{fail: controller, at: 8s, lasts: 1s}"], "7:5", "both need the"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_a_remedy(events: list[str], place: str, words: str) -> None:
    told = refused(*events)
    assert words in told
    assert re.search(rf"s\.yaml:{place}\b", told), told
    assert "hint:" in told


def test_plaintext_clients_may_be_there_where_they_will_be_refused() -> None:
    found = study(
        "{posture: strict, at: 1s}", "{posture: permissive+namespace, at: 5s}",
        posture="permissive, plaintext_share: 20%", meshes="istio, linkerd",
    )  # fmt: skip
    assert {cell.plaintext_share for cell in found.cells} == {0.2}


def test_forbidden_requests_may_be_there_where_they_will_be_refused() -> None:
    found = study(
        "{posture: strict+namespace, at: 1s}", "{posture: plaintext, at: 5s}",
        posture="strict, forbidden_share: 20%, forbidden_by: identity", meshes="istio, linkerd",
    )  # fmt: skip
    assert {cell.stranger_share for cell in found.cells} == {0.2}


def test_events_of_different_kinds_may_be_at_the_same_time() -> None:
    found = study(
        "{fail: renewal, at: 4s, lasts: 20s}", "{rotate: leaf, every: 5s}", "{restart: proxy, at: 5s}"
    )
    names = [event_name(each.act) for each in found.trial.timeline.occurrences(11 * S)]
    assert names == ["fail renewal", "rotate leaf", "restart proxy", "rotate leaf"]
    study("{fail: renewal, at: 4s, lasts: 20s}", "{fail: policy, at: 8s, lasts: 5s}")
    study("{fail: renewal, at: 4s, lasts: 20s}", "{restart: controller, at: 8s}")
    study("{fail: controller, at: 4s, lasts: 20s}", "{rotate: leaf, every: 5s}", "{restart: proxy, at: 5s}")


def test_a_study_with_events_runs_apart_and_they_happen_in_every_trial() -> None:
    found = study("{rotate: leaf, every: 5s}")
    assert found.arrangement is Arrangement.APART
    assert all(disturbed(found, trial) for trial in design_block(found, 0))


def test_together_each_cell_with_sidecars_has_an_undisturbed_twin_in_its_round() -> None:
    found = study(
        "{rotate: leaf, every: 5s}",
        more="arrangement: together\n",
        posture="[none, strict, permissive]",
        meshes="none, istio, linkerd",
    )
    rounds = [[(task.cell.mesh, task.role) for task in arms] for arms in block_rounds(found)]
    assert sorted(rounds) == sorted(
        [
            [(MeshName.NONE, Role.CELL)],
            [(MeshName.ISTIO, Role.CELL)] * 2 + [(MeshName.ISTIO, Role.TWIN)] * 2,
            [(MeshName.LINKERD, Role.CELL)] * 2 + [(MeshName.LINKERD, Role.TWIN)] * 2,
        ]
    )
    trials = [each for each in design_block(found, 0) if each.role is not Role.ALONE]
    assert {trial.role for trial in trials if disturbed(found, trial)} == {Role.CELL}
    sets = {(trial.cell.mesh, trial.process_set) for trial in trials}
    assert len(sets) == len(trials), "each on processes of its own"


def test_the_plan_says_what_will_happen_in_words() -> None:
    found = study(
        "{rotate: leaf, at: 5s}", "{restart: controller, at: 8s}", "{restart: proxy, every: 30s}",
        "{restart: service, at: 9s, drain: true}", "{posture: strict, at: [10s, 20s]}",
        "{fail: renewal, at: 20s, lasts: 5s}", "{fail: controller, at: 30s, lasts: 5s, how: slow}",
        "{fail: policy, at: 40s, lasts: 5s}", "{push: policies, count: 1, at: 3s}",
        posture="strict", meshes="istio, linkerd",
    )  # fmt: skip
    told = [" ".join(line.split()) for line in events_lines(found)]
    assert told[1:] == [
        "at 5s: every sidecar gets a new certificate, all at once",
        "at 8s: the control plane's process is killed and started again",
        "every 30s (1 time): a proxy is killed and started again",
        "at 9s: a service is drained and started again",
        "at 10s, 20s: posture strict; the next time back again",
        "at 20s: the authority refuses to sign certificates for 5s",
        "at 30s: the control plane's process stands still, with its connections open, for 5s",
        "at 40s: nobody hands out policies for 5s",
        next(line for line in told if "no part of it can fail alone" in line),
        "at 3s: 1 policy pushed, on other workloads",
    ]
    document = events_document(found)
    assert document is not None
    postures = [each["what"] for each in document["occurrences"] if each["event"] == "posture"]
    assert postures == ["posture strict", "the cell's own posture again"]


def test_the_plan_warns_of_events_that_wait_for_a_proxy_to_drain() -> None:
    """Istio's proxy is given 5 s; Linkerd's ends at once."""
    said = "{restart: proxy, at: 10s, drain: true}", "{rotate: leaf, at: [5s, 12s, 20s]}"
    [told] = late_events(study(*said))
    assert "`rotate leaf` of 12s waits for `restart proxy` of 10s" in told
    assert late_events(study(*said, posture="strict", meshes="linkerd")) == []
    assert late_events(study("{restart: proxy, at: 10s}", "{rotate: leaf, at: 12s}")) == []
    beside = "{fail: renewal, at: 11s, lasts: 2s}"
    assert late_events(study("{restart: proxy, at: 10s, drain: true}", beside)) == []
    assert len(late_events(study("{restart: proxy, every: 2s, drain: true}"))) == 1
