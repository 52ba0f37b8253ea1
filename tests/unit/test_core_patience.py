"""How long to wait: one value, all of it longer on a slow run; and how slowness is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest

from meshwise.core import patience
from meshwise.core.patience import MOST, REFERENCE_S, USUAL, Patience, Slowness, measured
from meshwise.report.facts import machine_words
from meshwise.testbed.local.calibration import words


def test_every_wait_is_so_much_longer() -> None:
    slow = USUAL.slowed(2.5)
    for each in fields(Patience):
        assert getattr(slow, each.name) == 2.5 * getattr(USUAL, each.name), each.name
    assert (USUAL.slowness, slow.slowness, slow.slowed(2).slowness) == (1, 2.5, 5)
    assert USUAL.slowed(1) == USUAL
    with pytest.raises(ValueError, match=r"0\.5 times"):
        USUAL.slowed(0.5)


@pytest.mark.parametrize(
    ("took_s", "found"),
    [
        ({"computing": 0.05, "Envoy": 0.04}, Slowness(1.0)),
        ({"computing": 1.9 * REFERENCE_S, "Envoy": 0.04}, Slowness(1.0)),
        ({"computing": 0.05, "Envoy": 0.73}, Slowness(7.3, "Envoy")),
        ({"computing": 0.31, "Envoy": 0.04}, Slowness(3.1, "computing")),
        ({"computing": 1e4}, Slowness(MOST, "computing")),
    ],
)
def test_the_slowest_work_says_how_slow_a_run_is(
    monkeypatch: pytest.MonkeyPatch, took_s: dict[str, float], found: Slowness
) -> None:
    now = [100.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])

    def taking(seconds: float) -> Callable[[], None]:
        def work() -> None:
            now[0] += seconds

        return work

    assert measured({name: taking(seconds) for name, seconds in took_s.items()}) == found


def test_only_a_slow_run_says_so() -> None:
    assert words(Slowness(1.0)) == ""
    assert words(Slowness(7.3, "starting Envoy")) == (
        "this run is 7.3 times slower than on an idle machine (starting Envoy); "
        "whatever is waited for may take so much longer"
    )


def test_the_report_says_of_the_machine_that_it_was_slow() -> None:
    machine = {"machine": {"cpu_model": "A CPU", "cpus": 2, "kernel": "6.1"}}
    usual = machine_words({**machine, "slowness": 1.0})
    assert usual == machine_words(machine) == ["2 x A CPU", "Linux 6.1"]
    slow = machine_words({**machine, "slowness": 7.3})
    assert slow == [*usual, "7.3 times slower at the start than when idle"]
