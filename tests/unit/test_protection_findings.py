"""Tries become findings: outcomes, counts with what the tries leave open, and cost against protection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.protection_sample import STOPPED, THROUGH, tries

from meshwise.analysis.protection_findings import protection_findings, with_protection
from meshwise.analysis.tradeoff import trade_points
from meshwise.archive.outcome import ProtectionTry
from meshwise.findings.document import read_finding, row, to_json
from meshwise.findings.finding import Finding, Findings, Provenance
from meshwise.findings.metric import MetricKey
from meshwise.findings.protection import AttemptCounts, AttemptTries, Standing, TradePoint
from meshwise.findings.schema import schema
from meshwise.findings.subject import (
    AgainstNone,
    CellLevel,
    LadderStep,
    PostureProtection,
    Protection,
    Subject,
)
from meshwise.mesh.protection.attempt import AttemptOutcome
from meshwise.stats.verdict import Verdict
from meshwise.study.factors import CONTEXT_FIELDS

UNDECIDED = AttemptOutcome.UNDECIDED
FEW = ("sniff-request", "plaintext-call", "wrong-account", "token-wrong-audience", "tunnel-port")
OTHERWISE = {
    ("linkerd", "strict+fine", "wrong-account"): (STOPPED,) * 7 + (THROUGH,) * 3,
    ("istio", "strict+fine", "token-wrong-audience"): (THROUGH,) * 10,
    ("istio", "strict", "plaintext-call"): (STOPPED,) * 9 + (UNDECIDED,),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Finding]:
    made = protection_findings(list(tries(attempts=FEW, outcomes=OTHERWISE)), 0.95)
    return {each.id: each for each in made}


def test_an_attempt_has_its_share_its_interval_over_tries_and_its_evidence(found: dict[str, Finding]) -> None:
    one = found["protection/istio/strict+namespace/http1/plaintext-call"]
    assert isinstance(one.subject, Protection)
    assert one.scope == {
        "mesh": "istio", "posture": "strict+namespace", "protocol": "http1", "attempt": "plaintext-call"
    }  # fmt: skip
    assert (one.estimate, one.high, one.n, one.confidence) == (1.0, 1.0, 10, 0.95)
    assert one.low == pytest.approx(0.025 ** (1 / 10)), "ten of ten: the bound of Clopper and Pearson"
    assert one.provenance == Provenance.TRIED
    evidence = "403; RBAC: access denied; counted: rbac.denied 1"
    assert one.tried == AttemptTries("stopped", "stopped", 10, 10, 0, 0, evidence)
    assert one.flags == ()
    assert one.sentence.startswith("istio `strict+namespace`: `plaintext-call` (a pod outside the mesh, on ")
    assert one.sentence.endswith(f"was stopped in 10 of 10 tries ({evidence}).")


def test_what_is_not_as_documented_says_what_is_and_where(found: dict[str, Finding]) -> None:
    one = found["protection/istio/strict+fine/http1/token-wrong-audience"]
    assert one.tried is not None
    assert one.tried.surprising
    words = "documented is that it is stopped (istio.io/latest/docs/reference/config/security/jwt/)"
    assert [str(flag) for flag in one.flags] == [f"not_as_documented: {words}"]
    assert one.sentence.endswith("was let through in 10 of 10 tries (200); documented is that it is stopped.")


def test_tries_that_differ_are_undecided_and_say_so(found: dict[str, Finding]) -> None:
    one = found["protection/linkerd/strict+fine/http1/wrong-account"]
    assert one.tried is not None
    assert (one.tried.outcome, one.tried.stopped, one.tried.let_through) == ("undecided", 7, 3)
    assert one.estimate == pytest.approx(0.7)
    assert [flag.code for flag in one.flags] == ["tries_differ"]


def test_what_means_nothing_has_no_number_and_a_reason(found: dict[str, Finding]) -> None:
    one = found["protection/linkerd/strict/http1/tunnel-port"]
    assert (one.estimate, one.low, one.high, one.n) == (None, None, None, 0)
    assert one.sentence.endswith("means nothing there (not tried; it means nothing here).")


@pytest.mark.parametrize(
    ("place", "interval", "n", "counts"),
    [
        # stopped, let through, differing, undecided, not applicable, surprising
        ("none/none", (0, 0, 0), 3, AttemptCounts(0, 3, 0, 0, 2, 0)),
        ("istio/plaintext", (1, 1, 1), 4, AttemptCounts(1, 3, 0, 0, 1, 0)),
        ("istio/strict", (2, 2, 3), 5, AttemptCounts(2, 2, 0, 1, 0, 0)),
        ("istio/strict+fine", (4, 4, 4), 5, AttemptCounts(4, 1, 0, 0, 0, 1)),
        ("linkerd/strict+fine", (2, 2, 3), 4, AttemptCounts(2, 1, 1, 0, 1, 0)),
    ],
)
def test_a_posture_has_what_it_stops_in_every_try_and_what_it_may_stop(
    found: dict[str, Finding],
    place: str,
    interval: tuple[float, float, float],
    n: int,
    counts: AttemptCounts,
) -> None:
    one = found[f"protection/{place}/attempts_stopped"]
    assert isinstance(one.subject, PostureProtection)
    assert (one.estimate, one.low, one.high) == interval
    assert (one.n, one.attempts, one.unit) == (n, counts, "attempts")
    assert one.confidence == 1.0, "it is no confidence interval"


def test_the_sentence_of_a_posture_tells_what_is_open(found: dict[str, Finding]) -> None:
    assert found["protection/istio/strict/attempts_stopped"].sentence == (
        "istio `strict` stops 2 of the 5 attempts that mean something there in every try, and lets 2 "
        "through; stopped in some tries only, or undecided: 1."
    )


def test_they_are_read_back_as_they_were_written(found: dict[str, Finding]) -> None:
    for finding in found.values():
        written = json.loads(json.dumps(row(finding)))
        again = read_finding(written)
        assert row(again) == written
        assert (again.subject, again.tried, again.attempts) == (
            finding.subject,
            finding.tried,
            finding.attempts,
        )


# --- cost against protection ---------------------------------------------------------------------------

AT = dict.fromkeys(CONTEXT_FIELDS, 0) | {"protocol": "http1", "policy_count": 0, "key_type": "rsa-2048"}
CPU = "cpu_us_per_request"


def level(mesh: str, posture: str, value: float, half: float, metric: str = CPU) -> Finding:
    at = AT | {"mesh": mesh, "posture": posture}
    return of(CellLevel(at), f"level/{mesh}/{posture}/{metric}", value, half, metric)


def of(subject: Subject, name: str, value: float, half: float, metric: str = CPU) -> Finding:
    return Finding(name, subject, MetricKey(metric), value, value - half, value + half, 0.95, "us", 8, "t")


def traded(
    costs: Mapping[tuple[str, str], tuple[float, float]],
    outcomes: Mapping[tuple[str, str], str],
    compared: Sequence[Finding] = (),
    metric: str = CPU,
) -> dict[str, TradePoint]:
    """`costs`: value and half-width. `outcomes`: of attempts a, b, c, ...: s(topped), t(hrough), u(ndecided),
    n(ot applicable)."""
    words = {"s": STOPPED, "t": THROUGH, "u": UNDECIDED, "n": AttemptOutcome.NOT_APPLICABLE}
    made = [
        ProtectionTry(mesh, posture, "http1", "abcdef"[place], 0, number, str(words[letter]), "{}", 1)
        for (mesh, posture), letters in outcomes.items()
        for place, letter in enumerate(letters)
        for number in range(2)
    ]
    levels = [level(*place, *cost, metric) for place, cost in costs.items()]
    points = trade_points([*levels, *compared, *protection_findings(made, 0.95)])
    named = [f"{point.at['mesh']} {point.at['posture']}" for point in points]
    return dict(zip(named, points, strict=True))


def dominators(points: Mapping[str, TradePoint], name: str) -> list[str]:
    return [list(points)[place] for place in points[name].dominated_by]


NONE, PLAIN, STRICT, FINE = (
    ("none", "none"),
    ("istio", "plaintext"),
    ("istio", "strict"),
    ("istio", "strict+fine"),
)
OTHER = ("linkerd", "strict")


def test_who_costs_more_and_stops_no_more_is_dominated() -> None:
    points = traded(
        {NONE: (0, 0), PLAIN: (100, 1), STRICT: (120, 1), OTHER: (80, 1)},
        {NONE: "ttn", PLAIN: "tts", STRICT: "sts", OTHER: "sss"},
    )
    assert {name: (point.standing, dominators(points, name)) for name, point in points.items()} == {
        "none none": (Standing.FRONT, []),
        # What it stops means nothing without a mesh: no mesh stops as much of the rest and costs nothing.
        "istio plaintext": (Standing.DOMINATED, ["none none", "linkerd strict"]),
        "istio strict": (Standing.DOMINATED, ["linkerd strict"]),
        "linkerd strict": (Standing.FRONT, []),
    }
    assert (points["istio strict"].stopped, points["istio strict"].of) == (2, 3)
    assert points["none none"].of == 2


def test_what_another_lets_through_keeps_a_posture_on_the_front() -> None:
    points = traded({STRICT: (120, 1), OTHER: (80, 1)}, {STRICT: "sttt", OTHER: "tsss"})
    assert {point.standing for point in points.values()} == {Standing.FRONT}


@pytest.mark.parametrize(
    ("strict", "fine", "standing"),
    [
        # costs with half-widths; fine stops more
        ((100, 5), (104, 5), Standing.PERHAPS),
        ((100, 1), (104, 1), Standing.FRONT),
        ((104, 1), (100, 1), Standing.DOMINATED),
        ((104, 5), (100, 5), Standing.PERHAPS),
    ],
)
def test_costs_that_cannot_be_told_apart_dominate_perhaps(
    strict: tuple[float, float], fine: tuple[float, float], standing: Standing
) -> None:
    points = traded({STRICT: strict, FINE: fine}, {STRICT: "st", FINE: "ss"})
    assert points["istio strict"].standing is standing
    assert points["istio strict+fine"].standing is Standing.FRONT


def test_the_study_s_own_comparison_goes_before_intervals() -> None:
    """Steps are paired, and told apart where levels are not."""
    at = AT | {"mesh": "istio", "posture": "strict+fine"}
    step = replace(
        of(LadderStep(at, "strict", "strict+fine"), "step", 4.0, 1.0), verdict=Verdict.DISTINGUISHABLE
    )
    costs = {STRICT: (100.0, 5.0), FINE: (104.0, 5.0)}
    found = traded(costs, {STRICT: "st", FINE: "ss"}, [step])
    assert found["istio strict"].standing is Standing.FRONT
    less = replace(step, estimate=-4.0)
    assert traded(costs, {STRICT: "st", FINE: "ss"}, [less])["istio strict"].standing is Standing.DOMINATED
    none = AT | {"mesh": "istio", "posture": "plaintext"}
    same = replace(
        of(AgainstNone(none, "plaintext"), "none", 1.0, 2.0, "response_p50_us"),
        verdict=Verdict.NOT_DISTINGUISHABLE,
    )
    times = {NONE: (10.0, 0.1), PLAIN: (11.0, 0.1)}
    told = traded(times, {NONE: "tt", PLAIN: "tt"}, [same], "response_p50_us")
    assert told["istio plaintext"].standing is Standing.PERHAPS


def test_an_undecided_attempt_dominates_nobody_for_sure() -> None:
    costs = {STRICT: (100.0, 1.0), OTHER: (80.0, 1.0)}
    assert traded(costs, {STRICT: "ss", OTHER: "su"})["istio strict"].standing is Standing.PERHAPS
    assert traded(costs, {STRICT: "su", OTHER: "ss"})["istio strict"].standing is Standing.DOMINATED
    undecided = traded(costs, {STRICT: "su", OTHER: "st"})["istio strict"]
    assert (undecided.standing, undecided.stopped, undecided.stopped_high) == (Standing.PERHAPS, 1, 2)


def test_no_mesh_costs_no_sidecars_where_it_has_no_level_and_times_are_not_made_up() -> None:
    outcomes = {NONE: "tt", PLAIN: "tt"}
    counted = traded({PLAIN: (9000.0, 1.0)}, outcomes, metric="instructions_per_request")
    assert (counted["none none"].estimate, counted["none none"].high) == (0.0, 0.0)
    assert counted["istio plaintext"].standing is Standing.DOMINATED
    few = traded({NONE: (0.0, 0.0), PLAIN: (300.0, 400.0)}, {NONE: "tt", PLAIN: "st"})
    assert few["none none"].standing is Standing.FRONT, "however wide an interval is"
    timed = traded({PLAIN: (300.0, 1.0)}, outcomes, metric="response_p50_us")
    assert list(timed) == ["istio plaintext"]


def test_without_protection_or_costs_there_is_no_point() -> None:
    assert trade_points([level(*STRICT, 100.0, 1.0)]) == ()
    assert traded({}, {STRICT: "s"}) == {}


def test_the_document_has_points_that_are_read_back_and_a_schema_that_knows_them() -> None:
    study = {"name": "s", "confidence": 0.95, "primary_metrics": [CPU], "blocks": 8, "executions": 8}
    document = Findings(study, {}, (level(*STRICT, 100.0, 1.0), level(*FINE, 120.0, 1.0)))
    made = with_protection(document, list(tries(attempts=FEW, outcomes=OTHERWISE)), 0.95)
    assert made.study["protection"] == {"attempts": 5, "executions": 2, "tries": 470}
    written = json.loads(json.dumps(to_json(made)))
    assert tuple(map(TradePoint.read, written["tradeoff"])) == made.tradeoff
    assert [point["scope"]["posture"] for point in written["tradeoff"]] == ["none", "strict", "strict+fine"]
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    jsonschema.validate(written, schema(()))
    committed = Path(__file__).parents[2] / "docs" / "findings.schema.json"
    assert "TradePoint" in json.loads(committed.read_text())["$defs"]
