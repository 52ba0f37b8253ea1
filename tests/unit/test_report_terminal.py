"""The terminal report: golden texts, width, colour, words. Golden files are made anew with
`MESHWISE_UPDATE_GOLDEN=1 pytest tests/unit/test_report_terminal.py`; look at the difference then."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.report_sample import NOT_APPLICABLE, STATUSES, chain, factorial, findings, policies

from meshwise.findings.finding import Finding
from meshwise.findings.flag import Flag
from meshwise.findings.metric import MetricKey
from meshwise.findings.subject import CellLevel, LadderStep, MeshDifference
from meshwise.report import edge, terminal
from meshwise.report.blocks import Row, Setting, Style, Table, TableColumn
from meshwise.report.content import content
from meshwise.report.record import Record
from meshwise.report.sections import report_of
from meshwise.report.words import Footnotes, Form, form_for, notes_of, verdict_words
from meshwise.stats.verdict import Direction, Verdict

GOLDEN = Path(__file__).parent.parent / "golden" / "report"


def shown(document: dict[str, object], *, width: int = 100, color: bool = False, **more: object) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )
    found = content(document, "findings.json", **more)  # type: ignore[arg-type]
    terminal.show(report_of(found, Record()), console)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "meshes", "protocols"),
    [
        ("one-mesh", ("istio",), ("http1", "grpc")),
        ("two-meshes", ("istio", "linkerd"), ("http1",)),
        ("no-mesh", (), ("http1",)),
    ],
)
def test_golden(name: str, meshes: tuple[str, ...], protocols: tuple[str, ...]) -> None:
    document = findings(meshes, protocols)
    document["study"]["not_applicable"] = NOT_APPLICABLE if "linkerd" in meshes else []
    text = shown(document, statuses=STATUSES)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("MESHWISE_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("chain", chain()),
        ("chain-two-meshes", chain(("istio", "linkerd"))),
        ("features", factorial()),
        ("policies", policies()),
    ],
)
def test_golden_of_further_factors(name: str, document: dict[str, object]) -> None:
    text = shown(document)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("MESHWISE_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text


def test_slopes_and_interactions_are_no_difference_between_meshes() -> None:
    for document in (chain(("istio", "linkerd")), factorial()):
        for part in content(document).slices:
            for ladder in part.ladders:
                assert all(" - " in str(finding.scope["mesh"]) for finding in ladder.differences)


def test_a_slope_is_told_with_its_step_and_its_interval() -> None:
    text = " ".join(shown(chain()).split())
    step = "no mesh, http1 at 800/s: each further chain node adds 212 us (204 to 220)"
    assert f"{step} to the median response time" in text
    assert "permissive 377 754 1508 +377 [-151, 905] ~ not distinguishable (below 528)" in text


def test_an_interaction_is_claimed_where_it_is_distinguishable() -> None:
    text = " ".join(shown(factorial()).split())
    parts = "the sum of the parts (mtls=strict x authorization=request)"
    told = f"the median response time is 9.00 us (4.90 to 13.1) more with both features than {parts}"
    assert f"istio, http1 at 800/s: {told}" in text
    change = f"the change in the median response time beyond {parts} is not distinguishable from no change"
    assert f"istio, grpc at 800/s: {change}" in text
    assert "costs more together" in text
    assert "16 connections" not in text.split("together and alone")[1], "they follow from the protocol"


def test_a_hopeless_interval_takes_no_room_and_hides_no_digits() -> None:
    form = form_for("us", [85.0, 622.0, 664.0, 858.0], [1e9, 40.0, 30.0, 50.0])
    assert form.interval(0.2, 1e9) == "[0, >9000]"
    assert form.interval(-1e9, 700.0) == "[<-9000, 700]"
    assert form_for("us", [700.0, 860.0, 950.0, 1300.0, 12_000.0], [2e9]).value(700.0) == "700"
    assert form_for("us", [400.0, 2800.0, 3600.0, 12_000.0], [2e9]).value(2800.0) == "2.8"
    tiny = form_for("us/KiB", [0.01, 0.02], [0.3, 0.3])
    assert tiny.most >= 3, "a small slope measured well is not called too noisy"


@pytest.mark.parametrize("meshes", [("istio",), ("istio", "linkerd")])
def test_legible_at_100_columns_without_color_or_blank_ends(meshes: tuple[str, ...]) -> None:
    lines = shown(findings(meshes, ("http1", "http2", "grpc"))).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)
    assert not any("…" in line for line in lines), "nothing is cut off"


@pytest.mark.parametrize("grouped", ["", "strict"])
def test_a_long_label_is_wrapped_and_cuts_no_number_off(grouped: str) -> None:
    label = ", ".join(["rsa-2048 key", "3 intermediates", "no revocation list", "certificates of 24h"] * 2)
    columns = (TableColumn("posture", Setting.LABEL, ""), TableColumn("value"), TableColumn("95% interval"))
    rows = (Row((label, "123456", "[100000, 200000]"), grouped), Row(("plain", "7", "[1, 2]")))
    stream = io.StringIO()
    table = Table("t", "a table", columns, rows, Style.LADDER)
    terminal.show_blocks([table], Console(file=stream, width=60, highlight=False))
    said = stream.getvalue()
    assert "123456" in said
    assert "[100000, 200000]" in said
    assert "…" not in said
    assert " ".join(said.split()).count("certificates") == 2


def test_color_never_carries_the_meaning_alone() -> None:
    plain = shown(findings())
    colored = shown(findings(), color=True)
    assert "\x1b[" in colored
    assert plain.count("costs") == colored.count("costs") > 0
    assert "~ not distinguishable (below" in plain


def test_piped_output_is_100_columns_and_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    console = edge.console()
    assert console.width == 100
    assert console.color_system is None


def test_a_fake_archive_is_marked_and_makes_no_claim() -> None:
    document = findings()
    document["environment"]["testbed"] = "fake"
    text = shown(document)
    assert text.startswith("NOT A MEASUREMENT")
    assert "adds" not in text


def test_flags_become_footnotes_with_a_remedy() -> None:
    document = findings()
    flagged = next(f for f in document["findings"] if f["kind"] == "increment")
    flagged["flags"] = ["late_sends: sends were late (in 3 of 8 trials)", "exploratory: not primary"]
    text = shown(document)
    assert "costs ¹" in text
    assert "¹ sends were late; lower the rate, or give the load generator a CPU of its own" in text
    assert "²" not in text, "what the table's title says needs no footnote"


def test_footnotes_are_one_per_text() -> None:
    notes = Footnotes()
    first, second = (
        Finding(
            "i",
            CellLevel({}),
            MetricKey("m"),
            1.0,
            None,
            None,
            0.95,
            "us",
            1,
            "",
            flags=(Flag.read(f"late_sends: late (in {n} of 8 trials)"),),
        )
        for n in (3, 4)
    )
    assert notes.mark(notes_of(first)) == notes.mark(notes_of(second)) == "¹"
    assert len(notes.lines()) == 1


def increment(**changes: object) -> Finding:
    finding = Finding(
        "i",
        LadderStep({}, "plaintext", "strict"),
        MetricKey("response_p50_us"),
        9.0,
        4.0,
        14.0,
        0.95,
        "us",
        8,
        "",
    )
    return replace(finding, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (increment(verdict=Verdict.DISTINGUISHABLE, direction=Direction.COSTS), "costs"),
        (increment(verdict=Verdict.DISTINGUISHABLE, direction=Direction.SAVES), "saves"),
        (
            increment(verdict=Verdict.NOT_DISTINGUISHABLE, mde=12.0, floor=15.0),
            "~ not distinguishable (below 15)",
        ),
        (increment(verdict=Verdict.EQUIVALENT, equivalent_within=0.05), "~ equivalent (within 5%)"),
        (increment(verdict=Verdict.NOT_ESTIMABLE, estimate=None), "not estimable"),
        (
            increment(
                subject=MeshDifference({}, "istio", "linkerd"),
                verdict=Verdict.DISTINGUISHABLE,
                direction=Direction.COSTS,
            ),
            "istio costs more",
        ),
        (increment(), ""),
        (None, ""),
    ],
)
def test_verdicts_are_words(finding: Finding | None, said: str) -> None:
    assert str(verdict_words(finding, Form("us"))).replace("\N{NO-BREAK SPACE}", " ") == said


@pytest.mark.parametrize(
    ("unit", "values", "widths", "text"),
    [
        ("us", [212.4, 405.0], [4.1], "405 us"),
        ("us", [0.0, 96.31], [0.8], "96.3 us"),
        ("us", [12_000.0, 31_400.0], [210.0], "31.4 ms"),
        ("bytes", [52e6, 104e6], [300_000.0], "99.2 MiB"),
        ("bytes", [0.0, 9_000.0], [900.0], "8.8 KiB"),
        ("ratio", [0.0, 0.0213], [0.004], "2.1 %"),
        ("1/s", [799.6, 800.2], [0.3], "800.2 requests/s"),
    ],
)
def test_a_table_has_one_form(unit: str, values: list[float], widths: list[float], text: str) -> None:
    assert form_for(unit, values, widths).with_unit(values[-1]) == text


def test_numbers_near_zero_have_no_sign() -> None:
    form = Form("us", decimals=0)
    assert form.signed(-0.2) == "0"
    assert form.signed(0.2) == "0"
    assert form.signed(3.0) == "+3"
    assert form.signed(-3.0) == "-3"
    assert form.value(None) == "n/a"
    assert form.value(float("inf")) == "inf"


def test_words_that_are_used_are_explained_on_top_once() -> None:
    text = " ".join(shown(findings(("istio",), ("http1",))).split())
    for explained in ("sidecar: the mesh's proxy", "block: one pass", "A/A: a cell measured against itself"):
        assert text.count(explained) == 1
    assert text.index("words ") < text.index("response time p50")
    assert "arm: " not in text
