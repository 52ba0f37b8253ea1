"""Which cause a late request has, as functions of what the loop knows."""

from __future__ import annotations

import pytest

from meshwise.load.waits import Waited, blocked_cause, late_cause

MS = 10**6


@pytest.mark.parametrize(
    ("live", "slots", "streams", "ahead", "expected"),
    [
        (0, 4, 1, 0, Waited.CONNECTION),
        (0, 4, 1, 99, Waited.CONNECTION),
        (4, 4, 1, 0, Waited.SLOT),
        (3, 4, 1, 0, Waited.CONNECTION),
        (3, 4, 1, 1, Waited.SLOT),
        (3, 4, 8, 7, Waited.CONNECTION),
        (3, 4, 8, 8, Waited.SLOT),
    ],
)
def test_without_a_free_slot(live: int, slots: int, streams: int, ahead: int, expected: Waited) -> None:
    assert blocked_cause(live, slots, streams, ahead) is expected


@pytest.mark.parametrize(
    ("late", "overslept", "awake", "cpu", "expected"),
    [
        (5 * MS, 5 * MS, 0, 0, Waited.HOST),  # its timer rang, and it was not woken
        (5 * MS, 0, 5 * MS, 5 * MS, Waited.INSTRUMENT),
        (5 * MS, 0, 6 * MS, 1 * MS, Waited.HOST),  # runnable, and something else ran
        (5 * MS, 1 * MS, 4 * MS, 4 * MS, Waited.INSTRUMENT),
        (5 * MS, 2 * MS, 4 * MS, 3 * MS, Waited.HOST),
        (5 * MS, 0, 5 * MS, 5 * MS + 1, Waited.INSTRUMENT),  # two clocks, never below nothing
    ],
)
def test_with_a_free_slot(late: int, overslept: int, awake: int, cpu: int, expected: Waited) -> None:
    assert late_cause(late, overslept, awake, cpu) is expected
