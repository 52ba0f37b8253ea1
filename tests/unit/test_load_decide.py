"""What a pool does next: every combination of what is known, and whole lives of a pool without a socket."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshwise.load.agenda import AT_ONCE, NEVER, Agenda
from meshwise.load.decide import (
    Decision,
    Happened,
    Known,
    State,
    Successor,
    address_of,
    decide,
    retry_wait_ns,
)

MS = 10**6
PLAIN = Known(
    state=State.LIVE, ready=True, limit=1, granted=1, held=0, open=0, waiting=False, left=1 << 62, used=True,
    replaced=False, young=False, failed=0, live=1, addresses=1, on_demand=False, closed_loop=False,
    broke_protocol=False,
)  # fmt: skip
BOTH = (False, True)


def every(**domains: tuple[object, ...]) -> list[Known]:
    names = list(domains)
    return [
        PLAIN._replace(**dict(zip(names, values, strict=True)))
        for values in itertools.product(*domains.values())
    ]


ENDING = every(
    state=(State.CONNECTING, State.WAITING, State.LIVE), open=(0, 2), waiting=BOTH, left=(0, 3), used=BOTH,
    replaced=BOTH, young=BOTH, failed=(0, 1, 2), live=(0, 1, 2), addresses=(1, 3), on_demand=BOTH,
    closed_loop=BOTH, broke_protocol=BOTH,
)  # fmt: skip


def test_a_slot_is_never_lost_and_never_given_twice() -> None:
    for known, happened in itertools.product(ENDING, (Happened.CLOSING, Happened.LOST, Happened.NOT_MADE)):
        done = decide(happened, known)
        if known.on_demand:  # the successor comes when the connection ends
            assert (done.successor is not None) is done.end
        elif happened is Happened.NOT_MADE:
            assert done.successor is not None
        else:  # it comes once, at the first word of the end
            assert (done.successor is not None) is not known.replaced
        if happened is not Happened.CLOSING:
            assert done.end


def test_what_ends_grants_nothing_and_fails_what_is_open() -> None:
    for known, happened in itertools.product(ENDING, (Happened.CLOSING, Happened.LOST, Happened.NOT_MADE)):
        done = decide(happened, known)
        assert (done.grant, done.goes_live, done.send_waiting) == (0, False, False)
        takes_over = done.successor is not None and done.successor.takes_over
        if done.end and (known.open or known.waiting):
            assert done.fail_open is not takes_over
        if happened is Happened.CLOSING and not known.waiting:
            assert not done.fail_open
            assert done.end is (known.open == 0)
        if done.part:
            assert known.state is State.LIVE


def test_an_outage_needs_every_address_to_have_failed_and_nothing_that_lives() -> None:
    for known in ENDING:
        found = decide(Happened.NOT_MADE, known).outage
        assert found is (known.live == 0 and not known.on_demand and known.failed + 1 >= known.addresses)
        assert not decide(Happened.CLOSING, known._replace(waiting=False)).outage
        lost = decide(Happened.LOST, known)
        assert not lost.outage or (known.broke_protocol and not known.used and known.live <= 1)


def test_after_a_failure_a_closed_loop_on_demand_waits() -> None:
    for known in ENDING:
        if not (known.on_demand and known.closed_loop):
            continue
        successor = decide(Happened.NOT_MADE, known).successor
        assert successor is not None
        untried = (known.failed + 1) % known.addresses != 0
        assert successor.wait_ns > 0 or untried


def test_a_waiting_request_moves_on_while_an_address_is_untried() -> None:
    known = PLAIN._replace(
        state=State.CONNECTING, waiting=True, on_demand=True, addresses=3, live=0, used=False
    )
    steps = [decide(Happened.NOT_MADE, known._replace(failed=failed)) for failed in range(3)]
    assert [step.fail_open for step in steps] == [False, False, True]
    assert [step.successor for step in steps] == [
        Successor(0, 1, takes_over=True), Successor(0, 2, takes_over=True), Successor(0, 3, cold=True),
    ]  # fmt: skip


GRANTS = every(
    state=tuple(State), ready=BOTH, limit=(0, 1, 4), granted=(-1, 0, 1, 4), held=(0, 1, 2), open=(0, 1, 3),
    waiting=BOTH, left=(0, 1, 9),
)  # fmt: skip


def test_slots_are_granted_up_to_what_peer_and_pattern_allow() -> None:
    for known in GRANTS:
        done = decide(Happened.STIRRED, known)
        lives = known.state is State.LIVE or (known.state is State.WAITING and known.ready)
        assert done.goes_live is (known.state is State.WAITING and known.ready)
        assert done.send_waiting is (lives and known.waiting and known.limit > 0)
        assert (done.end, done.fail_open, done.successor) == (False, False, None)
        if not lives or known.limit == known.granted:
            assert done.grant == 0
            continue
        taken = known.open + known.held + done.send_waiting
        room = min(known.limit - taken, known.left - done.send_waiting)
        assert done.grant == max(0, room)


@pytest.mark.parametrize("addresses", [1, 2, 5])
def test_waits_double_with_every_round_of_the_addresses(addresses: int) -> None:
    waits = [retry_wait_ns(failed, addresses) for failed in range(12 * addresses)]
    assert all(wait == 0 for failed, wait in enumerate(waits) if failed % addresses)
    rounds = [wait // MS for wait in waits[::addresses]]
    assert rounds == [0, 5, 10, 20, 40, 80, 160, 200, 200, 200, 200, 200]


def test_addresses_are_tried_in_a_circle() -> None:
    assert [address_of(7, failed, 2, 3, spread=False) for failed in range(4)] == [2, 0, 1, 2]
    assert [address_of(slot, 0, 2, 3, spread=True) for slot in range(4)] == [0, 1, 2, 0]
    assert address_of(1, 1, 0, 3, spread=True) == 2


def test_the_agenda_opens_in_waves_and_in_time() -> None:
    agenda = Agenda(churn_gap_ns=100)
    assert agenda.next_ns(0) == NEVER
    agenda.add(range(AT_ONCE + 3))
    assert len(agenda.due(0, 0)) == AT_ONCE
    assert agenda.next_ns(0) == MS
    assert agenda.due(0, AT_ONCE) == []
    assert agenda.due(0, AT_ONCE - 2) == [(AT_ONCE, 0), (AT_ONCE + 1, 0)]
    agenda.clear()
    agenda.later(50, 1, 2)
    agenda.later(20, 2, 0)
    assert agenda.next_ns(0) == 20
    assert agenda.due(19, 0) == []
    assert agenda.due(60, AT_ONCE) == [(2, 0), (1, 2)]
    agenda.begin(1000)
    assert [agenda.churn(now) for now in (1099, 1100, 1350, 1350, 1400)] == [0, 1, 2, 0, 1]
    assert agenda.next_ns(1400) == 1500


# --- whole lives -----------------------------------------------------------------------------------


@dataclass(eq=False)
class Modelled:
    """A connection of the model: what the pool would keep of it."""

    slot: int
    failed: int
    state: State = State.CONNECTING
    replaced: bool = False
    used: bool = False
    granted: int = -1
    open: int = 0
    free: int = 0
    limit: int = field(default=1)


class Lives(RuleBasedStateMachine):
    """Kept connections, opened, lost, closed and granted in any order; decisions are carried out on a
    model."""

    SLOTS = 3

    def __init__(self) -> None:
        super().__init__()
        self.agenda = Agenda()
        self.agenda.add(range(self.SLOTS))
        self.now = 0
        self.there: list[Modelled] = []
        self.scheduled = [1] * self.SLOTS
        self.live = 0
        self.outage = False

    def happen(self, happened: Happened, one: Modelled, *, young: bool = False) -> Decision:
        known = PLAIN._replace(
            state=one.state, ready=True, limit=one.limit, granted=one.granted, held=one.free, open=one.open,
            used=one.used, replaced=one.replaced, young=young, failed=one.failed, live=self.live, addresses=2,
        )  # fmt: skip
        done = decide(happened, known)
        if done.goes_live:
            one.state, self.outage = State.LIVE, False
            self.live += 1
        if happened is Happened.STIRRED and one.state is State.LIVE:
            one.granted, one.free = one.limit, one.free + done.grant
            assert not done.grant or one.free + one.open <= one.limit
        if done.replace:
            one.replaced = True
            self.live -= one.state is State.LIVE
        if done.outage:
            self.outage = True
        if done.end:
            self.live -= one.state is State.LIVE and not one.replaced
            self.there.remove(one)
        if done.successor is not None:
            assert not done.successor.cold
            self.agenda.later(self.now + done.successor.wait_ns, one.slot, done.successor.failed)
            self.scheduled[one.slot] += 1
        return done

    def pick(self, data: st.DataObject, *states: State) -> Modelled | None:
        found = [one for one in self.there if one.state in states]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(step_ns=st.integers(0, 300 * MS))
    def time_passes(self, step_ns: int) -> None:
        self.now += step_ns
        for slot, failed in self.agenda.due(self.now, 0):
            self.scheduled[slot] -= 1
            self.there.append(Modelled(slot, failed))

    @rule(data=st.data())
    def is_made(self, data: st.DataObject) -> None:
        if (one := self.pick(data, State.CONNECTING)) is not None:
            one.state = State.WAITING
            self.happen(Happened.STIRRED, one)

    @rule(data=st.data())
    def is_not_made(self, data: st.DataObject) -> None:
        if (one := self.pick(data, State.CONNECTING)) is not None:
            self.happen(Happened.NOT_MADE, one)

    @rule(data=st.data(), limit=st.integers(0, 4))
    def allows_another_number(self, data: st.DataObject, limit: int) -> None:
        one = self.pick(data, State.LIVE)
        if one is not None and not one.replaced:
            one.limit = limit
            self.happen(Happened.STIRRED, one)

    @rule(data=st.data())
    def is_asked(self, data: st.DataObject) -> None:
        one = self.pick(data, State.LIVE)
        if one is not None and not one.replaced and one.free:
            one.free -= 1  # beyond a lowered limit `start` refuses, and the slot is gone
            if one.open < one.limit:
                one.open, one.used = one.open + 1, True

    @rule(data=st.data())
    def answers(self, data: st.DataObject) -> None:
        one = self.pick(data, State.LIVE)
        if one is None or not one.open:
            return
        one.open -= 1
        if one.replaced:
            self.happen(Happened.CLOSING, one)
        else:
            one.free += 1

    @rule(data=st.data())
    def takes_no_more(self, data: st.DataObject) -> None:
        if (one := self.pick(data, State.LIVE)) is not None:
            self.happen(Happened.CLOSING, one)

    @rule(data=st.data(), young=st.booleans())
    def breaks(self, data: st.DataObject, young: bool) -> None:
        if (one := self.pick(data, State.LIVE, State.CONNECTING)) is not None:
            self.happen(Happened.LOST, one, young=young)

    @invariant()
    def every_slot_is_taken_once(self) -> None:
        for slot in range(self.SLOTS):
            own = sum(one.slot == slot and not one.replaced for one in self.there)
            assert own + self.scheduled[slot] == 1

    @invariant()
    def live_ones_are_counted(self) -> None:
        assert self.live == sum(one.state is State.LIVE and not one.replaced for one in self.there)
        assert not (self.outage and self.live)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
