"""When a target stopped answering: of arrays, exactly."""

from __future__ import annotations

import numpy as np

from meshwise.load.records import Columns
from meshwise.load.silence import LEAST, Silence, silence_of
from meshwise.load.wire.seam import ERROR_SHIFT, ErrorKind

MS = 10**6


def columns(kinds: list[ErrorKind], *, warmup: int = 0) -> Columns:
    """A request every 10 ms; the first `warmup` are before the measured time."""
    intended = np.arange(len(kinds), dtype=np.int64) * 10 * MS + 500
    done = np.array([0 if kind in (ErrorKind.TIMEOUT, ErrorKind.STOPPED) else 1 for kind in kinds], np.int64)
    outcome = np.array([int(kind) << ERROR_SHIFT for kind in kinds], np.int64)
    nothing = np.zeros(len(kinds), np.uint8)
    return Columns(500, warmup * 10 * MS, True, intended, intended, done, done, outcome, nothing)


GOOD, LATE, STATUS, STOPPED = ErrorKind.NONE, ErrorKind.TIMEOUT, ErrorKind.HTTP_STATUS, ErrorKind.STOPPED


def test_it_counts_from_the_first_request_without_an_answer_to_the_end() -> None:
    assert silence_of([columns([GOOD] * 5 + [LATE] + [GOOD] * 4 + [LATE] * LEAST)]) == Silence(0.1, LEAST)
    assert silence_of([columns([GOOD] * 10 + [LATE] * LEAST, warmup=4)]) == Silence(0.06, LEAST)
    assert silence_of([columns([LATE] * 12)]) == Silence(0.0, 12)


def test_few_failures_and_answers_of_any_status_are_no_silence() -> None:
    assert silence_of([columns([GOOD] * 5 + [LATE] * (LEAST - 1))]) is None
    assert silence_of([columns([GOOD] * 5 + [STATUS] * 20)]) is None
    assert silence_of([columns([LATE] * 20 + [GOOD])]) is None
    assert silence_of([columns([GOOD] * 5 + [STOPPED] * 20)]) is None


def test_the_last_answer_may_be_of_any_process() -> None:
    assert silence_of([columns([LATE] * 20), columns([GOOD] * 20)]) is None
    assert silence_of([columns([LATE] * 20), columns([GOOD] * 8 + [LATE] * 12)]) == Silence(0.08, 24)
