"""Deterministic CPU work: a fixed number of hash rounds, never "spin until the clock says so".

A spin would make a slow moment do less work and hide the very effect that is measured. A round hashes
64 bytes with SHA-256 in one chain; the rounds of a microsecond are counted once (`calibrate`) and given to
every node of a study, so that all nodes do the same work.
"""

from __future__ import annotations

import hashlib
import time

_SEED = bytes(64)
_TRIAL_ROUNDS = 2_000
_TRIALS = 15


def work(rounds: int) -> bytes:
    """Do it. The digest is returned so that nothing can be left out."""
    sha256 = hashlib.sha256
    state = _SEED
    for _ in range(rounds):
        state = sha256(state).digest()
    return state


def calibrate() -> float:
    """Rounds in one microsecond of CPU: the fastest of a few short trials, about 20 ms in all."""
    clock = time.thread_time_ns
    best_ns: int | None = None
    for _ in range(_TRIALS):
        begun = clock()
        work(_TRIAL_ROUNDS)
        spent = max(clock() - begun, 1)
        best_ns = spent if best_ns is None else min(best_ns, spent)
    assert best_ns is not None
    return _TRIAL_ROUNDS * 1_000 / best_ns


def rounds_for(work_us: int, rounds_per_us: float) -> int:
    return round(work_us * rounds_per_us)
