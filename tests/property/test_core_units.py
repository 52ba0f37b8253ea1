"""What the product prints, it reads; what people write means what they mean."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwise.core.errors import MeshwiseError
from meshwise.core.units import (
    DURATION_PATTERN,
    format_duration,
    format_size,
    parse_duration_ns,
    parse_rate_rps,
    parse_share,
    parse_size_bytes,
    plural,
)

HOUR_NS = 3600 * 10**9


@given(st.integers(0, 200 * HOUR_NS))
def test_a_printed_duration_is_read_as_what_it_was(duration_ns: int) -> None:
    shown = format_duration(duration_ns)
    assert re.fullmatch(DURATION_PATTERN, shown)
    half_a_step = 500_000_000 if "m" in shown.replace("ms", "") or "h" in shown else duration_ns * 0.0051
    assert abs(parse_duration_ns(shown) - duration_ns) <= half_a_step
    assert format_duration(parse_duration_ns(shown)) == shown


@given(st.integers(0, 2**52))
def test_a_printed_size_is_read_as_what_it_was(size_bytes: int) -> None:
    shown = format_size(size_bytes)
    assert abs(parse_size_bytes(shown) - size_bytes) <= size_bytes * 0.0051
    assert "e" not in shown


@given(st.floats(1e-6, 1e9))
def test_a_printed_rate_is_read_as_what_it_was(rate_rps: float) -> None:
    assert parse_rate_rps(f"{rate_rps:g}/s") == float(f"{rate_rps:g}")


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999), st.booleans())
def test_parts_are_added(hours: int, minutes: int, seconds: int, millis: int, apart: bool) -> None:
    written = (" " if apart else "").join((f"{hours}h", f"{minutes}m", f"{seconds}s", f"{millis}ms"))
    total_s = hours * 3600 + minutes * 60 + seconds
    assert parse_duration_ns(written) == total_s * 10**9 + millis * 10**6


def test_as_people_write_them() -> None:
    assert parse_duration_ns("1m30s") == 90 * 10**9
    assert parse_duration_ns("1h 5m") == 65 * 60 * 10**9
    assert parse_duration_ns(" 1.5 m ") == 90 * 10**9
    assert parse_duration_ns("3μs") == parse_duration_ns("3µs") == 3000
    assert (format_duration(999.9e6), format_duration(59.97e9)) == ("1s", "1m")
    assert (format_size(1023.9 * 2**10), format_size(1005 * 2**30)) == ("1MiB", "1005GiB")


@pytest.mark.parametrize(
    "text",
    ["", " ", "5", "30s 1m", "1s1s", "1m,30s", "m", "1m30", "-1s", "1m -2s", "99999999999h", "9" * 400 + "s"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        parse_duration_ns(text)
    assert caught.value.code == "MW101"


@given(st.text("0123456789.ehms µKiB/%x", max_size=30))
def test_any_text_is_a_value_or_bad_input(text: str) -> None:
    for parse in (parse_duration_ns, parse_size_bytes, parse_rate_rps, parse_share):
        with contextlib.suppress(MeshwiseError):
            assert 0 <= parse(text) < 2**1023  # type: ignore[operator]


def test_a_count_is_said_with_its_noun() -> None:
    assert [plural(count, "node") for count in (0, 1, 3, 1_000_000)] == [
        "0 nodes", "1 node", "3 nodes", "1000000 nodes",
    ]  # fmt: skip
