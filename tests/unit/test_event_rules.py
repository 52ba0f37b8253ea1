"""Posture changes under load: the last request under the old rule, by kind of connection."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from tests.support.event_world import MS
from tests.support.synthetic import cell

from meshwise.measure.moments import Happening, Moments
from meshwise.measure.rule_change import Passed, rule_changes
from meshwise.study.model import LADDER, ForbiddenBy

_, PERMISSIVE, STRICT, *_ = LADDER
ACCEPTED = 5000 * MS
CHANGE = Happening("posture strict", 0, ACCEPTED, ACCEPTED, ACCEPTED + 40 * MS)
MOMENTS = Moments((CHANGE,), {}, 10_000 * MS)


def rows(times_ms: list[float], passed: list[bool], client: str, connection: int) -> pl.DataFrame:
    at = [round(ms * MS) for ms in times_ms]
    return pl.DataFrame(
        {
            "intended_ns": at, "sent_ns": at, "done_ns": [each + MS for each in at],
            "error": ["" if each else "http_status" for each in passed], "client": client,
            "connection": connection, "waited_for": "",
        }
    )  # fmt: skip


def steady(client: str, connection: int, last_passed_ms: float, every_ms: int = 100) -> pl.DataFrame:
    """Passes until then, and is refused after."""
    times = [float(ms) for ms in range(0, 10_000, every_ms)]
    return rows(times, [ms <= last_passed_ms for ms in times], client, connection)


def by_kind(found: tuple[Passed, ...]) -> dict[str, Passed]:
    return {each.connection: each for each in found}


def test_who_fares_alike_before_and_after_tells_nothing() -> None:
    everyone = steady("mesh", 1, 1e9)
    assert rule_changes(everyone, [CHANGE], MOMENTS) == ()
    assert rule_changes(everyone, [], MOMENTS) == ()


def test_the_last_that_passed_on_a_busy_and_on_an_idle_connection_is_named() -> None:
    """An idle connection was used just before the change, and 3 s after it again: it still passes."""
    idle = rows([100.0, 4800.0, 8050.0, 9900.0], [True, True, True, False], "outside", 9)
    frame = pl.concat([steady("mesh", 1, 1e9), steady("outside", 2, 5300.0), idle])
    found = by_kind(rule_changes(frame, [CHANGE], MOMENTS))
    assert set(found) == {"", "busy", "idle"}
    assert found["busy"].last_old_ms == 300.0
    assert found["busy"].first_new_ms == 400.0
    assert found["idle"].last_old_ms == 3050.0
    assert found[""].last_old_ms == 3050.0
    assert found[""].last_old_at_ns == 8050 * MS
    assert found[""].client == "outside"
    assert all(each.closes for each in found.values())


def test_a_connection_made_after_the_change_is_new() -> None:
    lost = steady("outside", 3, 5100.0).with_columns(
        error=pl.when(pl.col("sent_ns") == 5200 * MS).then(pl.lit("reset")).otherwise(pl.col("error"))
    )
    late = rows([5350.0], [True], "outside", 3)
    found = by_kind(rule_changes(pl.concat([lost, late]), [CHANGE], MOMENTS))
    assert found["busy"].last_old_ms == 100.0
    assert (found["new"].last_old_ms, found["new"].first_new_ms) == (350.0, 300.0)


def test_none_after_it_was_accepted_is_told_as_before() -> None:
    found = by_kind(rule_changes(steady("outside", 2, 4900.0), [CHANGE], MOMENTS))
    assert found[""].last_old_ms == pytest.approx(-100.0)
    assert found["busy"].last_old_ms is None, "no request of it passed after the change"


def test_a_change_that_lets_through_what_was_refused_is_an_opening() -> None:
    frame = steady("outside", 2, 5300.0).with_columns(
        error=pl.when(pl.col("error") == "").then(pl.lit("http_status")).otherwise(pl.lit(""))
    )
    found = by_kind(rule_changes(frame, [CHANGE], MOMENTS))
    assert not found[""].closes
    assert found[""].first_new_ms == 400.0


def test_forbidden_requests_of_a_client_are_told_apart_from_its_others() -> None:
    """On the same connection every fourth request is forbidden; all others pass on."""
    times = [float(ms) for ms in range(0, 10_000, 50)]
    forbidden = [number % 4 == 3 for number in range(len(times))]
    passed = [not no or ms <= 5200 for ms, no in zip(times, forbidden, strict=True)]
    frame = rows(times, passed, "mesh", 1).with_columns(forbidden=pl.Series(forbidden))
    found = by_kind(rule_changes(frame, [CHANGE], MOMENTS))
    assert (found[""].client, found[""].forbidden) == ("mesh", True)
    assert (found["busy"].last_old_ms, found["busy"].first_new_ms) == (150.0, 350.0)
    assert rule_changes(frame.drop("forbidden"), [CHANGE], MOMENTS) == (), "as a whole it tells nothing"


@pytest.mark.parametrize(("last_ms", "still"), [(5300.0, False), (9000.0, False), (1e9, True)])
def test_what_is_known_to_be_forbidden_is_told_however_long_it_passes(last_ms: float, still: bool) -> None:
    """A change settles half-way to the end, at 7.5 s; without the knowledge, what passes for longer tells
    nothing."""
    change = replace(CHANGE, event="posture strict+namespace")
    moments = Moments((change,), {}, 10_000 * MS)
    strange = steady("stranger", 2, last_ms).with_columns(forbidden=pl.lit(True))
    one = cell(posture=STRICT, forbidden_share=0.2, forbidden_by=ForbiddenBy.IDENTITY)
    [whole, busy] = rule_changes(strange, [change], moments, one)
    last = min(last_ms, 9900.0)
    assert (whole.last_old_ms, whole.still_open) == (last - 5000.0, still)
    assert (busy.connection, busy.last_old_ms) == ("busy", last - 5000.0)
    assert (rule_changes(strange, [change], moments) != ()) == (last_ms == 5300.0)
    by_request = replace(one, forbidden_by=ForbiddenBy.REQUEST)
    assert (rule_changes(strange, [change], moments, by_request) != ()) == (last_ms == 5300.0), (
        "is let through"
    )
    back = replace(change, event="posture strict+namespace, back")
    assert (rule_changes(strange, [back], moments, one) != ()) == (last_ms == 5300.0), "back forbids nothing"


def test_a_plaintext_client_that_strict_does_not_stop_is_told() -> None:
    one = cell(posture=PERMISSIVE, plaintext_share=0.2)
    [whole, _] = rule_changes(steady("outside", 2, 1e9), [CHANGE], MOMENTS, one)
    assert (whole.closes, whole.still_open, whole.last_old_ms) == (True, True, 4900.0)
    assert rule_changes(steady("mesh", 2, 1e9), [CHANGE], MOMENTS, one) == ()


def test_archives_without_connections_tell_all_together() -> None:
    frame = steady("outside", 2, 5300.0).drop("connection", "waited_for")
    assert set(by_kind(rule_changes(frame, [CHANGE], MOMENTS))) == {""}
