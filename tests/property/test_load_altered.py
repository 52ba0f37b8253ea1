"""Right exchanges altered at random: no traceback, every request accounted for once, neighbours answered.

`benchmarks/hostile_answers.py` does the same for as long as wanted, and through sockets.
"""

from __future__ import annotations

from collections import Counter

import pytest
from tests.support.altered import KINDS, exchange

from meshwise.load.wire.seam import ErrorKind

EXCHANGES = 1500


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_of_altered_answers_adds_up(kind: str) -> None:
    errors: Counter[ErrorKind] = Counter()
    broke = 0
    for seed in range(EXCHANGES):
        found = exchange(kind, seed)
        assert not found.wrong, f"{kind} {seed}: {found.wrong}"
        errors.update(found.errors)
        broke += found.broke
    # The alterations reach what they are meant to reach.
    assert errors[ErrorKind.PROTOCOL] > EXCHANGES / 20
    assert errors[ErrorKind.NONE] > EXCHANGES / 4
    assert broke
