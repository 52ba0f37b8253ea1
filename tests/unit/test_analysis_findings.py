"""The whole analysis on small studies whose truth is known: what is found, what is said, what is flagged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from tests.support.synthetic import cell, ladder_cells, requests_frame, synthetic_study, telemetry_frame

from meshwise.analysis.checks import Outcome
from meshwise.analysis.findings import findings
from meshwise.analysis.settings import Settings
from meshwise.findings.document import to_json
from meshwise.findings.finding import Finding, Findings
from meshwise.findings.flag import Flag
from meshwise.findings.metric import MetricKey
from meshwise.findings.schema import schema
from meshwise.findings.subject import Kind
from meshwise.measure.trial import TrialResult, measure
from meshwise.mesh.traits import NAMES
from meshwise.stats.verdict import Direction, Verdict
from meshwise.study.model import Authorization, Cell, MeshName, MtlsMode, Posture, Role, Trial

BOTH = ladder_cells(MeshName.ISTIO, MeshName.LINKERD)
TRUTH = [100.0, 200, 200, 215, 216, 230, 150, 150, 170, 171, 180]
METRICS = ("response_p50_us", "cpu_us_per_request", "response_p90_us")
SETTINGS = Settings("study", 1, METRICS[:2], cells=BOTH)


def analysed(settings: Settings = SETTINGS, drop: object = None, **study: object) -> Findings:
    usual = {"seed": 4, "truth": TRUTH, "metrics": METRICS, "same": BOTH[1:2], "twin": BOTH[3:4], "s_b": 0.01}
    results = synthetic_study(BOTH, **(usual | study))  # type: ignore[arg-type]
    kept = [result for result in results if not callable(drop) or not drop(result.trial)]
    outcomes = [Outcome(result.trial, "ok") for result in kept]
    return findings(kept, outcomes, settings)


@pytest.fixture(scope="module")
def document() -> Findings:
    return analysed()


def one(document: Findings, end: str, kind: str = "") -> Finding:
    (found,) = [f for f in document.findings if f.id.startswith(kind) and f.id.endswith(end)]
    return found


def test_the_document_is_what_its_committed_schema_says(document: Findings) -> None:
    committed = json.loads(Path("docs/findings.schema.json").read_text())
    assert committed == schema(NAMES), (
        "renew it: python scripts/findings_schema.py > docs/findings.schema.json"
    )
    Draft202012Validator.check_schema(committed)
    text = json.dumps(to_json(document), allow_nan=False)
    assert list(Draft202012Validator(committed).iter_errors(json.loads(text))) == []


def test_the_interfaces_keys_and_kinds_are_there(document: Findings) -> None:
    row = to_json(document)["findings"][0]
    assert set(row) >= {
        "id", "kind", "metric", "scope", "estimate", "low", "high", "confidence", "unit", "n", "method",
        "verdict", "provenance", "flags",
    }  # fmt: skip
    assert {str(f.kind) for f in document.findings} == {
        "level", "increment", "difference", "noise_floor", "variance", "check",
    }  # fmt: skip


def test_ids_are_unique_readable_and_the_same_again(document: Findings) -> None:
    ids = [finding.id for finding in document.findings]
    assert len(set(ids)) == len(ids)
    assert "increment/istio/permissive..strict/http1/800rps/response_p50_us" in ids
    assert "difference/istio-linkerd/strict/http1/800rps/cpu_us_per_request" in ids
    assert to_json(document) == to_json(analysed())


def test_a_step_is_found_with_its_size_direction_and_words(document: Findings) -> None:
    found = one(document, "istio/permissive..strict/http1/800rps/response_p50_us")
    assert found.verdict is Verdict.DISTINGUISHABLE
    assert found.direction is Direction.COSTS
    assert found.low is not None
    assert found.high is not None
    assert found.low < 15 < found.high
    assert found.ratio == pytest.approx(1.075, abs=0.02)
    assert found.scope["from"] == "permissive"
    assert found.scope["to"] == "strict"
    assert found.n == found.higher_in == 8
    assert found.sentence.startswith("istio, http1 at 800/s: `strict` adds ")


def test_what_is_not_distinguishable_says_what_it_could_have_seen(document: Findings) -> None:
    found = one(document, "istio/plaintext..permissive/http1/800rps/response_p50_us")
    assert found.verdict is Verdict.NOT_DISTINGUISHABLE
    assert found.direction is None
    assert found.mde is not None
    assert found.floor is not None
    assert found.mde >= found.floor
    assert found.floor_ratio is not None
    assert found.floor == pytest.approx((found.floor_ratio - 1) * 200, rel=0.1)  # a share of where it starts
    assert "is not distinguishable from no change" in found.sentence
    assert "mostly not have been seen" in found.sentence


def test_equivalence_needs_a_declared_margin() -> None:
    end = "istio/plaintext..permissive/http1/800rps/response_p50_us"
    assert one(analysed(), end).verdict is Verdict.NOT_DISTINGUISHABLE
    found = one(analysed(replace(SETTINGS, margin=0.05)), end)
    assert found.verdict is Verdict.EQUIVALENT
    assert found.equivalent_within == 0.05
    assert "lies within 5% either way" in found.sentence


def test_meshes_differ_in_levels_and_in_steps(document: Findings) -> None:
    level = one(document, "istio-linkerd/strict/http1/800rps/response_p50_us")
    assert level.verdict is Verdict.DISTINGUISHABLE
    assert "higher with istio than with linkerd" in level.sentence
    assert level.scope["mesh"] == "istio - linkerd"
    assert any(str(flag).startswith("unequal: key_type") for flag in level.flags)
    step = one(document, "istio-linkerd/permissive..strict/http1/800rps/response_p50_us")
    assert step.low is not None
    assert step.high is not None
    assert step.low < -5 < step.high


def test_across_processes_the_twin_floor_counts_and_within_them_it_does_not() -> None:
    loud_twin = analysed(B=4, K=6, s_E=0.05, s_b=0.005)
    within = one(loud_twin, "istio/permissive..strict/http1/800rps/response_p50_us").floor_ratio
    across = one(loud_twin, "istio-linkerd/strict/http1/800rps/response_p50_us").floor_ratio
    assert within is not None
    assert across is not None
    assert np.log(across) > 2 * np.log(within)


def test_without_a_control_there_is_no_floor_and_it_is_said() -> None:
    found = one(analysed(same=(), twin=()), "istio/permissive..strict/http1/800rps/response_p50_us")
    assert found.floor is None
    assert any(flag.code == "no_floor" for flag in found.flags)


def test_blocks_of_one_execution_are_one_unit() -> None:
    found = one(analysed(K=5, B=4), "istio/permissive..strict/http1/800rps/response_p50_us")
    assert found.n == 5
    assert any(str(flag).startswith("grouped: 20 blocks") for flag in found.flags)


def test_two_units_have_an_interval_and_a_warning_and_one_has_none() -> None:
    end = "istio/permissive..strict/http1/800rps/response_p50_us"
    two, single = one(analysed(K=2), end), one(analysed(K=1), end)
    assert two.low is not None
    assert any(flag.code == "few_units" for flag in two.flags)
    assert single.low is None
    assert single.estimate is not None
    assert single.verdict is Verdict.NOT_ESTIMABLE


def test_a_lost_trial_is_counted_where_it_is_missed() -> None:
    document = analysed(
        drop=lambda trial: trial.block == 3 and trial.cell == BOTH[3] and trial.role is Role.CELL
    )
    hit = one(document, "istio/permissive..strict/http1/800rps/response_p50_us")
    assert hit.n == 7
    assert any(str(flag).startswith("lost_pairs: 1 blocks") for flag in hit.flags)
    spared = one(document, "/linkerd/permissive..strict/http1/800rps/response_p50_us")
    assert spared.n == 8
    assert not spared.flags


def test_failed_unproven_and_missing_trials_are_checks() -> None:
    results = synthetic_study(BOTH, seed=1, truth=TRUTH, metrics=METRICS)
    design = tuple(result.trial for result in results)
    outcomes = [Outcome(trial, "ok") for trial in design[3:]]
    outcomes += [Outcome(design[0], "failed", "node-1 ended\nlog"), Outcome(design[1], "unproven", "tls: no")]
    outcomes.append(Outcome(replace(design[0], trial_id="again", attempt=1), "ok"))
    document = findings(results[3:], outcomes, replace(SETTINGS, design=design))
    proofs, failed = one(document, "check/proofs"), one(document, "check/failed_trials")
    assert (proofs.estimate, proofs.verdict) == (1, Verdict.WARNING)
    assert list(map(str, proofs.flags)) == [f"unproven: {design[1].cell.name}: tls: no"]
    assert (failed.estimate, failed.verdict) == (1, Verdict.WARNING)
    assert "1 were made good" in failed.sentence
    assert one(document, "check/completeness").estimate == 2
    assert document.study["trials"] == {"ok": len(design) - 2, "failed": 1, "unproven": 1}


def test_an_outlier_is_flagged_and_shown_without_but_not_dropped() -> None:
    results = synthetic_study(BOTH, seed=4, truth=TRUTH, metrics=METRICS, s_b=0.01, s_block=0.01)
    spoilt = [
        replace(r, values={k: v * 5 for k, v in r.values.items()})
        if r.trial.block == 2 and r.trial.cell == BOTH[3]
        else r
        for r in results
    ]
    outcomes = [Outcome(r.trial, "ok") for r in spoilt]
    end = "istio/permissive..strict/http1/800rps/response_p50_us"
    plain = one(findings(spoilt, outcomes, SETTINGS), end)
    ruled = one(findings(spoilt, outcomes, replace(SETTINGS, outlier_rule="hampel 5")), end)
    assert plain.without_outliers is None
    assert ruled.estimate == plain.estimate
    assert ruled.without_outliers is not None
    assert ruled.without_outliers.removed == 1
    assert ruled.without_outliers.n == 7
    assert ruled.without_outliers.estimate == pytest.approx(15, abs=4)
    assert ruled.estimate is not None
    assert ruled.estimate > 80


def test_trials_in_doubt_are_the_rule_cause() -> None:
    results = synthetic_study(BOTH, seed=4, truth=TRUTH, metrics=METRICS)
    doubtful = [replace(r, flags=(Flag.read("late_sends: x"),)) if r.trial.block == 0 else r for r in results]
    document = findings(doubtful, [], replace(SETTINGS, outlier_rule="cause"))
    found = one(document, "istio/permissive..strict/http1/800rps/response_p50_us")
    assert found.without_outliers is not None
    assert found.without_outliers.n == 7
    assert one(document, "check/instrument").verdict is Verdict.WARNING


def test_percentiles_that_failures_reach_are_not_numbers() -> None:
    results = synthetic_study(BOTH, seed=4, truth=TRUTH, metrics=METRICS)
    broken = [
        replace(r, values=dict(r.values) | {MetricKey("response_p90_us"): np.inf})
        if r.trial.cell == BOTH[3]
        else r
        for r in results
    ]
    document = findings(broken, [], SETTINGS)
    found = one(document, "istio/permissive..strict/http1/800rps/response_p90_us")
    assert (found.estimate, found.verdict) == (None, Verdict.NOT_ESTIMABLE)
    assert any(str(flag).startswith("failures: in 8 of 8 blocks") for flag in found.flags)
    assert one(document, "level/istio/strict/http1/800rps/response_p90_us").estimate is None
    json.dumps(to_json(document), allow_nan=False)


def test_too_few_exceedances_are_not_estimable_and_said_in_the_level() -> None:
    results = [
        replace(r, exceedances={MetricKey("response_p90_us"): 4.0})
        for r in synthetic_study(BOTH, seed=4, truth=TRUTH, metrics=METRICS)
    ]
    document = findings(results, [], SETTINGS)
    found = one(document, "level/istio/strict/http1/800rps/response_p90_us")
    assert found.verdict is Verdict.NOT_ESTIMABLE
    assert "not estimable" in found.sentence
    assert not [f for f in document.findings if f.kind is Kind.INCREMENT and f.metric == "response_p90_us"]


def test_without_a_mesh_cpu_has_a_difference_and_no_ratio() -> None:
    truth = [0.0, *TRUTH[1:]]
    document = analysed(truth=truth)
    found = one(document, "istio/none..plaintext/http1/800rps/cpu_us_per_request")
    assert found.ratio is None
    assert found.verdict is Verdict.DISTINGUISHABLE
    assert found.method.endswith("difference")


def test_no_failure_is_no_certainty() -> None:
    def result(block: int, error_ratio: float) -> TrialResult:
        return TrialResult(
            Trial(f"b{block}", block, block, 0, cell()),
            {MetricKey("error_ratio"): error_ratio},
            requests=1000,
        )

    none = one(findings([result(b, 0.0) for b in range(8)], [], SETTINGS), "800rps/error_ratio")
    assert (none.estimate, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 8000))
    some = one(findings([result(b, 0.001 * b) for b in range(8)], [], SETTINGS), "800rps/error_ratio")
    assert some.estimate == pytest.approx(0.0035)
    assert some.low is not None
    assert some.low >= 0


def test_variance_shares_sum_to_one_and_name_where_it_comes_from() -> None:
    document = analysed(K=6, B=4, s_E=0.02, s_block=0.03, truth=[200.0] * 11)
    shares = {
        f.scope["source"]: f for f in document.findings if f.kind is Kind.VARIANCE and f.metric == METRICS[0]
    }
    parts = [shares[source].estimate or 0.0 for source in ("cell", "execution", "block", "residual")]
    assert sum(parts) == pytest.approx(1.0)
    assert parts[2] == max(parts)
    assert all(f.low is not None and f.high is not None for f in shares.values())
    confounded = [f for f in analysed().findings if f.kind is Kind.VARIANCE]
    assert "block" not in {f.scope["source"] for f in confounded}
    assert all(any(flag.code == "confounded" for flag in f.flags) for f in confounded)


def test_drift_within_blocks_and_carry_over_are_noticed() -> None:
    quiet = {"truth": [200.0] * 11, "s_b": 0.005, "K": 12}
    drifting = one(analysed(drift=0.2, **quiet), "check/position/response_p50_us")
    assert drifting.verdict is Verdict.WARNING
    assert drifting.low is not None
    assert drifting.high is not None
    assert drifting.low < np.expm1(0.2 * 12 / 13) < drifting.high
    carried = one(analysed(carry=0.1, **quiet), "check/previous_cell/response_p50_us")
    assert carried.verdict is Verdict.WARNING
    calm = analysed(**quiet)
    assert one(calm, "check/position/response_p50_us").verdict is Verdict.OK
    assert one(calm, "check/previous_cell/response_p50_us").verdict is Verdict.OK


def test_a_cell_that_never_settles_is_noticed() -> None:
    random = np.random.default_rng(0)
    results = []
    for block in range(6):
        for position, (what, growth) in enumerate(((cell(), 0.0), (cell(MeshName.NONE), 0.5))):
            trial = Trial(f"b{block}-p{position}", block, block, position, what)
            response = 200 * (1 + growth * np.linspace(0, 1, 900)) * random.lognormal(0, 0.1, 900)
            telemetry = telemetry_frame(trial, end_ns=10**9, cpu_us={"proxy": 1.0, "service": 1.0})
            results.append(measure(trial, requests_frame(response), telemetry))
    checks = {f.scope["mesh"]: f for f in findings(results, [], SETTINGS).findings if f.metric == "steady"}
    assert checks["istio"].verdict is Verdict.OK
    assert checks["none"].verdict is Verdict.WARNING
    assert checks["none"].sentence.endswith("it was not steady.")


def test_a_hop_an_entry_and_an_idle_second_have_their_price() -> None:
    lengths = tuple(cell(length=length) for length in (1, 2, 4))
    rates = tuple(cell(MeshName.LINKERD, rate_rps=rate) for rate in (200.0, 400.0))
    cells = lengths + rates
    per_second = [1000.0 + 50.0 * rate for rate in (200.0, 400.0)]
    truth = [
        100.0,
        150.0,
        250.0,
        *(used / rate for used, rate in zip(per_second, (200.0, 400.0), strict=True)),
    ]
    results = synthetic_study(
        cells, seed=1, truth=truth, s_b=0.002, s_block=0.0, metrics=("response_p50_us", "cpu_us_per_request")
    )
    document = findings(results, [], replace(SETTINGS, cells=cells))
    hop = one(document, "istio/strict/length-slope/http1/800rps/response_p50_us")
    assert hop.estimate == pytest.approx(50.0, rel=0.02)
    assert hop.unit == "us/node"
    assert "each further chain node adds 50" in hop.sentence
    request = one(document, "rate_rps-per-request/http1/cpu_us_per_request")
    idle = one(document, "rate_rps-idle/http1/cpu_us_per_request")
    assert (request.unit, idle.unit) == ("us", "us/s")
    assert request.estimate == pytest.approx(50.0, abs=0.5)
    assert idle.estimate == pytest.approx(1000.0, abs=150.0)


def test_super_additivity_is_judged_on_costs_and_needs_all_four_cells() -> None:
    cells = tuple(
        cell(posture=Posture(mode, authorization))
        for mode in (MtlsMode.DISABLE, MtlsMode.STRICT)
        for authorization in (Authorization.NONE, Authorization.REQUEST)
    )

    def verdict(truth: list[float], chosen: tuple[Cell, ...] = cells) -> list[Finding]:
        results = synthetic_study(cells, seed=2, truth=truth, s_b=0.005, same=cells[:1])
        kept = [r for r in results if r.trial.cell in chosen]
        return [f for f in findings(kept, [], SETTINGS).findings if "interaction" in f.scope]

    (additive,) = verdict([100.0, 120.0, 130.0, 150.0])
    (multiplicative,) = verdict([100.0, 120.0, 130.0, 170.0])
    assert additive.verdict is Verdict.NOT_DISTINGUISHABLE
    assert multiplicative.verdict is Verdict.DISTINGUISHABLE
    assert "with both features than the sum of the parts" in multiplicative.sentence
    assert verdict([100.0, 120.0, 130.0, 150.0], cells[1:]) == []
