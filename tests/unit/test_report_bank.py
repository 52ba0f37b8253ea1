"""What the report says of the bank: nothing that it does not choose, nothing twice, no empty table."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from tests.support.report_sample import environment

from meshwise.report import terminal
from meshwise.report.content import content
from meshwise.report.record import Record
from meshwise.report.sections import report_of

AT = {
    "protocol": "http1", "rate_rps": 30.0, "request_bytes": 0, "response_bytes": 0, "connections": 16,
    "streams": 1, "shape": "bank", "length": 1,
}  # fmt: skip


def level(metric: str, part: str, kind: str, posture: str, estimate: float | None) -> dict[str, Any]:
    scope = AT | {"mesh": "istio" if posture != "none" else "none", "posture": posture}
    if part:
        scope |= {"workload": part, kind: part}
    return {
        "id": f"level/{metric}/{part}/{posture}", "kind": "level", "metric": metric, "scope": scope,
        "estimate": estimate, "low": estimate and estimate * 0.9, "high": estimate and estimate * 1.1,
        "confidence": 0.95, "unit": "us", "n": 6, "method": "",
    }  # fmt: skip


def shown(*entries: dict[str, Any]) -> str:
    study = {"name": "bank", "primary_metrics": ["response_p50_us"]}
    headline = [level("response_p50_us", "", "", posture, 900.0) for posture in ("none", "strict")]
    document = {
        "schema_version": 1, "study": study, "environment": environment(), "findings": [*headline, *entries],
    }  # fmt: skip
    stream = io.StringIO()
    terminal.show(report_of(content(document), Record()), Console(file=stream, width=100))
    return stream.getvalue()


def operations(p99: float | None) -> list[dict[str, Any]]:
    made = []
    for posture in ("none", "strict"):
        for name in ("transfer", "login"):
            made.append(level("operation_response_p50_us", name, "operation", posture, 700.0))
            made.append(level("operation_response_p99_us", name, "operation", posture, p99))
    return made


def test_a_table_by_operation_without_any_value_is_left_out() -> None:
    assert "response time p99 by operation" in shown(*operations(4000.0))
    text = shown(*operations(None))
    assert "response time p50 by operation" in text
    assert "p99 by operation" not in text
    assert "n/a" not in text


def test_roles_and_depths_with_the_same_sidecars_are_told_once() -> None:
    values = {"edge": 10.0, "inner": 12.0, "leaf": 15.0, "depth 1": 10.0, "depth 2": 12.0, "depth 3": 14.0}
    places = [
        level("place_cpu_us_per_request", name, "place", "strict", used) for name, used in values.items()
    ]
    text = shown(*places)
    for name in ("edge", "inner", "leaf", "depth 3"):
        assert f"  {name} " in text
    assert "depth 1" not in text
    assert "depth 2" not in text


def test_the_headline_says_nothing_of_sizes_that_the_bank_chooses() -> None:
    text = shown()
    assert "the bank" in text
    assert "request 0B" not in text
    assert "response 0B" not in text
