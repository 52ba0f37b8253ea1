"""Scales and drawings hold for any numbers: finite, inside their range, ticks round and in order."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

from hypothesis import example, given
from hypothesis import strategies as st

from meshwise.report import svg
from meshwise.report.words import Form, form_for

numbers = st.floats(allow_nan=True, allow_infinity=True)
sane = st.floats(min_value=-1e12, max_value=1e12)


@given(st.lists(sane, max_size=20), st.booleans(), sane)
def test_linear_scale_stays_in_its_range(values: list[float], zero: bool, probe: float) -> None:
    scale = svg.linear(values, 100.0, 300.0, zero=zero)
    assert 100 <= scale(probe) <= 300
    for value in values:
        assert 99.9 <= scale(value) <= 300.1
    ticks = scale.ticks()
    assert list(ticks) == sorted(set(ticks))
    assert len(ticks) <= 12


@given(st.lists(st.floats(min_value=1e-3, max_value=1e9), min_size=1, max_size=20))
def test_log_scale_holds_its_values_in_order(values: list[float]) -> None:
    scale = svg.logarithmic(values, 0.0, 300.0)
    places = [scale(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(math.isfinite(tick) for tick in scale.ticks(8))


@given(numbers, numbers, numbers, st.text())
def test_whatever_is_drawn_is_well_formed_and_finite(x: float, y: float, size: float, text: str) -> None:
    text = "".join(letter for letter in text if letter.isprintable())
    parts = [
        svg.line(x, y, size, size, "a"),
        svg.strokes([[(x, y), (size, size)], [(1.0, 1.0), (2.0, y)]], "s"),
        svg.rect(x, y, size, size, "b", text),
        svg.circle(x, y, 3.0, "c", text),
        svg.diamond(x, y, 3.0, "d", text),
        svg.polyline([(x, y), (size, size), (1.0, 2.0)], "e", text),
        svg.text(x, y, text, text),
    ]
    drawing = ET.fromstring(svg.drawing("n", 380, 100, text, text, parts))
    for element in drawing.iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
            if element.get(name) is not None:
                assert math.isfinite(float(element.get(name) or ""))
        assert "nan" not in (element.get("d") or "")
        assert "inf" not in (element.get("d") or "")


@given(
    st.lists(st.one_of(st.none(), numbers), max_size=8), st.sampled_from(["us", "bytes", "ratio", "1/s", ""])
)
@example([-1.8e306], "ratio")
def test_forms_never_fail(values: list[float | None], unit: str) -> None:
    form = form_for(unit, values, values)
    for value in values:
        assert form.value(value)
        assert form.signed(value)
    assert form.decimals >= 0


@given(st.floats(min_value=-1e9, max_value=1e9), st.integers(0, 3))
def test_a_sign_is_never_on_what_reads_as_zero(value: float, decimals: int) -> None:
    text = Form("us", decimals=decimals).signed(value)
    assert (text[0] in "+-") == bool(text.strip("+-0."))
