"""Whatever is declared, occurrences are in order, within the window, each once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshwise.archive.timelines import timeline_of_values, timeline_values
from meshwise.study.security import NO_MESH, POSTURES
from meshwise.study.timeline import (
    ChangePosture,
    Declared,
    Fail,
    Failing,
    PushPolicies,
    RenewalFault,
    Restart,
    Restarted,
    Rotate,
    Rotated,
    Skew,
    Timeline,
    keep_apart,
    lasts_ns,
    room_ns,
)

TIMES = st.integers(0, 10**11)
ACTS = st.one_of(
    st.builds(Rotate, st.sampled_from(Rotated), TIMES, st.booleans()),
    st.builds(PushPolicies, st.integers(1, 1000), st.booleans()),
    st.builds(ChangePosture, st.sampled_from([each for each in POSTURES.values() if each != NO_MESH])),
    st.builds(Restart, st.sampled_from(Restarted), st.booleans(), st.sampled_from(["", "node-1"])),
    st.builds(Fail, st.sampled_from(Failing), TIMES, st.sampled_from(RenewalFault)),
    st.builds(Skew, st.integers(-(10**13), 10**13), TIMES),
)
DECLARED = st.one_of(
    st.builds(lambda act, at: Declared(act, tuple(at)), ACTS, st.lists(TIMES, min_size=1, max_size=5)),
    st.builds(lambda act, every: Declared(act, every_ns=every), ACTS, st.integers(10**9, 10**11)),
)
TIMELINES = st.builds(lambda each: Timeline(tuple(each)), st.lists(DECLARED, max_size=5))


@given(TIMELINES, st.integers(1, 10**11))
def test_occurrences_are_in_order_within_the_window_and_counted(timeline: Timeline, window_ns: int) -> None:
    found = timeline.occurrences(window_ns)
    assert [each.number for each in found] == list(range(len(found)))
    times = [each.intended_ns for each in found]
    assert times == sorted(times)
    assert all(0 <= at_ns < window_ns for at_ns in times)
    for entry, declared in enumerate(timeline.declared):
        own = [each for each in found if each.entry == entry]
        assert all(each.act == declared.act for each in own)
        assert [each.repeat for each in own] == list(range(len(own)))
        wanted = [at_ns for at_ns in declared.at_ns if at_ns < window_ns]
        if declared.every_ns:
            periods = range(1, -(-window_ns // declared.every_ns))
            ends_ns = window_ns - lasts_ns(declared.act)
            wanted = [n * declared.every_ns for n in periods if n * declared.every_ns <= ends_ns]
        assert [each.intended_ns for each in own] == sorted(wanted)


@given(TIMELINES, st.integers(1, 10**11))
def test_what_does_not_overlap_keeps_apart(timeline: Timeline, window_ns: int) -> None:
    """Against every pair, where the timeline looks at neighbours only."""
    found = timeline.occurrences(window_ns)
    wanted = any(
        keep_apart(one.act, other.act) and one.intended_ns + room_ns(one.act) > other.intended_ns
        for place, one in enumerate(found)
        for other in found[place + 1 :]
    )
    assert bool(list(timeline.overlapping(window_ns))) == wanted


@given(TIMELINES)
def test_a_timeline_is_read_from_an_archive_as_it_was_written(timeline: Timeline) -> None:
    assert timeline_of_values(timeline_values(timeline)) == timeline
