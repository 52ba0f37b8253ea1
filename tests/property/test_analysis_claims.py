"""Whatever the numbers: no verdict, flag or sentence claims more than its interval, and JSON holds it all."""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.support.synthetic import cell, ladder_cells, requests_frame, telemetry_frame

from meshwise.analysis.findings import findings
from meshwise.analysis.sentence import number
from meshwise.analysis.settings import Settings
from meshwise.findings.document import to_json
from meshwise.findings.metric import MetricKey
from meshwise.findings.schema import schema
from meshwise.findings.subject import Kind
from meshwise.measure.trial import TrialResult, measure
from meshwise.mesh.traits import NAMES
from meshwise.stats.multiplicity import holm
from meshwise.stats.quantile import quantile
from meshwise.stats.verdict import Direction, Evidence, Verdict, judge
from meshwise.study.model import MeshName, Role, Trial

CELLS = ladder_cells(MeshName.ISTIO, MeshName.LINKERD)[::2]
VALUES = st.one_of(
    st.floats(1e-3, 1e9),
    st.sampled_from([0.0, 1.0, 200.0, float("inf"), float("nan")]),
    st.floats(199.0, 201.0),
)
VALIDATOR = Draft202012Validator(schema(NAMES))
REQUESTS = st.tuples(st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["", "timeout", "reset"]))
CLAIMS = re.compile(r"\b(adds|takes|higher with|lower with|more with|less with)\b")


@st.composite
def studies(draw: st.DrawFn) -> list[TrialResult]:
    """Any values at all in any subset of trials, controls included."""
    results = []
    for block in range(draw(st.integers(1, 6))):
        execution = block // draw(st.sampled_from([1, 2]))
        for position, what in enumerate(CELLS):
            for role in (Role.CELL, Role.AA) if position == 1 else (Role.CELL,):
                if draw(st.booleans()) or draw(st.booleans()):
                    trial = Trial(f"b{block}-p{position}-{role}", block, execution, position, what, role)
                    values = {MetricKey(name): draw(VALUES) for name in ("response_p50_us", "error_ratio")}
                    results.append(TrialResult(trial, values, requests=100))
    return results


@pytest.mark.filterwarnings("error")
@settings(max_examples=60, deadline=None)
@given(studies(), st.sampled_from(["none", "hampel 3", "cause"]), st.sampled_from([None, 0.1]))
def test_no_finding_claims_more_than_its_interval(
    results: list[TrialResult], rule: str, margin: float | None
) -> None:
    asked = Settings("any", 1, ("response_p50_us",), outlier_rule=rule, margin=margin, cells=CELLS)
    document = findings(results, [], asked)
    assert list(VALIDATOR.iter_errors(json.loads(json.dumps(to_json(document), allow_nan=False)))) == []
    assert len({f.id for f in document.findings}) == len(document.findings)
    for f in document.findings:
        if f.low is not None and f.high is not None and f.estimate is not None:
            assert f.low <= f.high
        if f.kind not in (Kind.INCREMENT, Kind.DIFFERENCE):
            continue
        if f.verdict is Verdict.DISTINGUISHABLE:
            assert f.low is not None
            assert f.high is not None
            assert f.low > 0 or f.high < 0
            assert f.estimate is not None
            assert (f.estimate > 0) == (f.direction is Direction.COSTS)
            assert f.p_adjusted is not None
            assert f.p_adjusted < 0.05
            assert f.n >= 2
        else:
            assert f.direction is None
            assert not CLAIMS.search(f.sentence), f.sentence
        assert f.sentence.endswith(".")


SHARE = st.one_of(st.none(), st.floats(0, 1))


@given(st.floats(-1, 1), SHARE, SHARE, st.booleans(), SHARE, st.booleans())
def test_a_judgement_follows_from_its_evidence(
    estimate: float, p: float | None, floor: float | None, excludes: bool, tost_p: float | None, worse: bool
) -> None:
    judged = judge(Evidence(estimate, p, floor, excludes, tost_p), 0.05, more_is_worse=worse)
    claimed = judged.verdict is Verdict.DISTINGUISHABLE
    assert claimed == (p is not None and p < 0.05 and excludes and (floor is None or abs(estimate) > floor))
    assert (judged.direction is None) != claimed
    assert (judged.verdict is Verdict.NOT_ESTIMABLE) == (p is None)
    if judged.verdict is Verdict.EQUIVALENT:
        assert tost_p is not None
        assert tost_p < 0.05


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_never_lowers_a_p_nor_changes_their_order(p_values: list[float]) -> None:
    p = np.array(p_values)
    adjusted = holm(p)
    assert (adjusted >= p - 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60), st.integers(0, 5))
def test_percentiles_rise_with_p_and_lie_inside(values: list[float], failures: int) -> None:
    x = np.sort(np.array(values + [np.inf] * failures))
    found = [quantile(x, p) for p in (0.0, 0.5, 0.9, 0.99, 0.999, 1.0)]
    assert found == sorted(found)
    assert found[0] == x[0]
    assert found[-1] == x[-1]
    if not failures:
        assert np.allclose(found, np.quantile(x, (0.0, 0.5, 0.9, 0.99, 0.999, 1.0)), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(REQUESTS, max_size=50))
def test_any_table_of_requests_can_be_measured(rows: list[tuple[bool, bool, bool, str]]) -> None:
    """Rows with any combination of: never sent, never done, outside the mesh, kind of error."""
    frame = requests_frame(np.full(len(rows), 100.0), errors={i: row[3] for i, row in enumerate(rows)})
    if rows:
        frame = frame.with_columns(
            sent_ns=pl.Series(
                [None if row[0] else v for row, v in zip(rows, frame["sent_ns"], strict=True)], dtype=pl.Int64
            ),
            done_ns=pl.Series(
                [None if row[1] else v for row, v in zip(rows, frame["done_ns"], strict=True)], dtype=pl.Int64
            ),
            client=pl.Series(["outside" if row[2] else "mesh" for row in rows]),
        )
    trial = Trial("x", 0, 0, 0, cell())
    values = measure(trial, frame, telemetry_frame(trial, end_ns=10**9, cpu_us={"proxy": 1e3})).values
    if rows:
        failed = sum(row[1] or bool(row[3]) for row in rows)
        assert values[MetricKey("error_ratio")] == failed / len(rows)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_numbers_are_read_without_an_exponent(value: float) -> None:
    if 1e-4 < abs(value) < 1e15:
        assert "e" not in number(value)
        assert float(number(value)) == np.float64(value) or abs(float(number(value)) / value - 1) < 0.02
