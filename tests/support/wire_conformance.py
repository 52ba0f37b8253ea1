"""The conformance suite of the seam `WireProtocol`: what the engine may rely on, whatever is spoken.

Subclass it and say what the peer says:

    class TestMine(WireConformance):
        def make(self) -> WireProtocol: ...            # of a new connection
        def answer(self, number: int, note: bytes = b"") -> bytes: ...
        forms = {"whole": Form(b"...", Answer(7, 200, ErrorKind.NONE, 5))}
        malformed = {"cut": b"..."}

Requests are numbered from 0 in the order in which the connection starts them.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import ClassVar

import pytest

from meshwise.load.wire.seam import ErrorKind, WireError, WireProtocol
from tests.support.wire import Answer, answer_of, cut, every_byte, feed

TAG = 7
"""Of the first request, wherever there is one only."""
WALKS, STEPS = 20, 40
NOISES = 120
ENDLESS_BYTES, PIECE_BYTES = 2 << 20, 1 << 16
HELD_BYTES = 1 << 20
"""The most that a connection may keep, whatever comes: more than any head or header block that is read."""
FOREIGN = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
    b"\x15\x03\x03\x00\x02\x02\x46",
    b"\0\0\x12\x04\0\0\0\0\0" + bytes(18),
    b"SSH-2.0-x\r\n",
    bytes(64),
    b"\xff" * 64,
)


@dataclass(frozen=True)
class Form:
    """One form that a good answer to the first request, with the tag TAG, may have."""

    data: bytes
    answer: Answer
    keeps: bool = True
    """Whether the connection takes requests behind it."""


Forms = Mapping[str, Form]


class WireConformance:
    forms: ClassVar[Forms]
    malformed: ClassVar[Mapping[str, bytes]]
    """Answers to the first request that are none."""
    alone: ClassVar[bool] = False
    """A malformed answer leaves the connection and its other requests as they were."""
    hello: ClassVar[bytes] = b""
    """What a peer says first; empty where it waits for a request."""
    endless: ClassVar[Mapping[str, tuple[bytes, bytes]]] = {}
    """How an answer may begin that never ends, and what then comes again and again."""

    def make(self) -> WireProtocol:
        raise NotImplementedError

    def answer(self, number: int, note: bytes = b"") -> bytes:
        """A whole good answer, whose head has the note where the protocol has room for one."""
        raise NotImplementedError

    def last(self, number: int) -> bytes | None:
        """The same, of a peer that wants no more requests; None where no peer can say so."""
        return None

    def opened(self) -> WireProtocol:
        protocol = self.make()
        protocol.opening()
        assert feed(protocol, [self.hello]) == []
        settle(protocol)
        return protocol

    # --- a connection and its requests -----------------------------------------------------------

    def test_a_new_connection_has_nothing_and_is_ready_when_the_peer_is(self) -> None:
        protocol = self.make()
        assert isinstance(protocol.opening(), bytes)
        assert (protocol.used, protocol.closing, protocol.attention) == (False, False, False)
        assert (protocol.open_tags(), protocol.reasons, protocol.broken) == ([], [], None)
        assert protocol.ready is not bool(self.hello)
        if self.hello:
            assert protocol.start(TAG) == b""
            assert (protocol.open_tags(), protocol.used) == ([], False)
            for piece in every_byte(self.hello):
                assert list(protocol.receive(piece, 1)) == []
            assert protocol.attention, "what became ready is worth a look"
        assert protocol.ready
        assert protocol.limit >= 1
        assert isinstance(protocol.farewell(), bytes)

    def test_no_more_requests_are_open_than_its_limit(self) -> None:
        protocol = self.opened()
        limit = protocol.limit
        for tag in range(limit):
            assert protocol.start(tag)
            assert protocol.open_tags() == list(range(tag + 1))
        assert protocol.start(limit) == b""
        assert protocol.open_tags() == list(range(limit))
        assert protocol.used is bool(self.hello), "where the peer has no first words, an answer shows it"
        for number in range(limit):
            assert [one.tag for one in feed(protocol, [self.answer(number)])] == [number]
        assert protocol.used
        assert protocol.start(limit)

    def test_every_form_of_an_answer_at_every_cut(self) -> None:
        for name, form in self.forms.items():
            for pieces in cuts(form.data):
                protocol = self.opened()
                assert protocol.start(TAG), name
                assert feed(protocol, pieces) == [form.answer], (name, pieces)
                assert (protocol.used, protocol.open_tags(), protocol.reasons) == (True, [], []), name
                assert protocol.broken is None
                assert protocol.closing is not form.keeps, name
                assert protocol.attention or form.keeps, name
                assert bool(protocol.start(TAG + 1)) is form.keeps, name
                if form.keeps:  # by whatever short cut the first answer made possible
                    assert [one.tag for one in feed(protocol, [self.answer(1)])] == [TAG + 1], name

    def test_the_first_byte_is_timed_within_the_answer(self) -> None:
        data = self.answer(0)
        for place in range(1, len(data)):
            protocol = self.opened()
            protocol.start(TAG)
            assert list(protocol.receive(data[:place], 50)) == []
            ((_, first_ns, _),) = protocol.receive(data[place:], 90)
            assert first_ns in (50, 90)
        assert first_ns == 50, "only the last byte was to come"

    def test_answers_that_repeat_are_all_taken_whole_or_cut(self) -> None:
        protocol, limit = self.opened(), self.opened().limit
        chance, numbers, held = Random(1), itertools.count(), 0
        for turn in range(100):
            asked = [next(numbers) for _ in range(limit)]
            assert all(protocol.start(number) for number in asked)
            data = b"".join(map(self.answer, asked))
            places = [] if turn % 2 else [chance.randrange(len(data)) for _ in range(3)]
            assert [one.tag for one in feed(protocol, cut(data, places))] == asked
            settle(protocol)
            held = held or held_bytes(protocol) * (turn == 20)
        assert protocol.reasons == []
        assert held_bytes(protocol) < held + 1024, "what was answered leaves nothing behind"

    def test_every_tag_is_accounted_for_once(self) -> None:
        for seed in range(WALKS):
            chance, tags = Random(seed), itertools.count()
            protocol, opened, number = self.opened(), dict[int, int](), 0
            for _ in range(STEPS):
                if protocol.closing:
                    protocol, opened, number = self.opened(), {}, 0
                move = chance.choice(("start", "start", "answer", "answer", "cancel"))
                if move == "start":
                    tag = next(tags)
                    if protocol.start(tag):
                        opened[tag] = number
                        number += 1
                elif opened:
                    tag = chance.choice(list(opened))
                    of = opened.pop(tag)
                    if move == "cancel":
                        assert protocol.cancel(tag) is not protocol.closing
                    else:
                        data = self.answer(of)
                        pieces = cut(data, [chance.randrange(len(data)) for _ in range(chance.randrange(3))])
                        assert [one.tag for one in feed(protocol, pieces)] == [tag]
                assert protocol.open_tags() == list(opened)
                assert protocol.closing or len(opened) <= protocol.limit
                settle(protocol)

    # --- how requests and connections end -----------------------------------------------------------

    def test_a_cancelled_request_is_gone_and_the_connection_says_whether_it_goes_on(self) -> None:
        for came in (0, len(self.answer(0)) - 1):
            protocol, limit = self.opened(), self.opened().limit
            for tag in range(limit):
                protocol.start(tag)
            feed(protocol, [self.answer(0)[:came]])
            goes_on = protocol.cancel(0)
            assert protocol.open_tags() == list(range(1, limit))
            assert protocol.closing is not goes_on
            settle(protocol)
            if not goes_on:
                assert protocol.start(limit) == b""
                continue
            assert feed(protocol, [self.answer(0)[came:]]) == [], "its late answer belongs to no request"
            assert protocol.start(limit)
            for number in range(1, limit + 1):
                assert [one.tag for one in feed(protocol, [self.answer(number)])] == [number]

    def test_after_the_end_of_the_stream_nothing_is_asked_and_nothing_is_lost(self) -> None:
        for form in self.forms.values():
            for place in range(len(form.data)):
                protocol = self.opened()
                protocol.start(TAG)
                done = feed(protocol, [form.data[:place]])
                done += [answer_of(one) for one in protocol.end_of_stream(9)]
                assert protocol.closing
                assert protocol.start(TAG + 1) == b""
                assert sorted([one.tag for one in done] + protocol.open_tags()) == [TAG]
                assert all(one.error for one in done), "an answer that was cut is no answer"

    def test_a_connection_that_ends_before_it_is_ready_or_idle_answers_nothing(self) -> None:
        idle = self.opened()
        assert list(idle.end_of_stream(1)) == []
        assert (idle.closing, idle.start(TAG), idle.open_tags()) == (True, b"", [])
        if self.hello:
            with pytest.raises(WireError):
                self.make().end_of_stream(1)

    def test_a_peer_that_wants_no_more_is_asked_no_more(self) -> None:
        data = self.last(0)
        if data is None:
            return
        for pieces in cuts(data):
            protocol = self.opened()
            protocol.start(TAG)
            (answer,) = feed(protocol, pieces)
            assert (answer.tag, answer.error) == (TAG, ErrorKind.NONE)
            assert (protocol.closing, protocol.attention) == (True, True)
            assert protocol.start(TAG + 1) == b""
            assert protocol.open_tags() == []

    # --- what is wrong -------------------------------------------------------------------------------

    def test_a_malformed_answer_fails_its_request_only(self) -> None:
        for name, data in self.malformed.items():
            for pieces in cuts(data):
                protocol = self.opened()
                others = list(range(TAG + 1, TAG + protocol.limit))
                for tag in (TAG, *others):
                    protocol.start(tag)
                settle(protocol)
                done, broken = fed(protocol, pieces)
                if broken is not None:
                    assert not self.alone, name
                    assert broken.kind is ErrorKind.PROTOCOL, name
                    assert (done, protocol.open_tags()) == ([], [TAG, *others])
                    continue
                (failed,) = done
                assert (failed.tag, failed.error) == (TAG, ErrorKind.PROTOCOL), name
                assert len(protocol.reasons) == 1, name
                assert protocol.attention
                assert protocol.open_tags() == others
                assert protocol.closing is not self.alone, name
                settle(protocol)
                if self.alone:
                    for number, tag in enumerate(others, 1):
                        assert [one.tag for one in feed(protocol, [self.answer(number)])] == [tag], name
                    assert protocol.start(99)
                    (good,) = feed(protocol, [self.answer(len(others) + 1)])
                    assert (good.tag, good.error) == (99, ErrorKind.NONE)
                else:
                    assert protocol.start(99) == b"", name

    def test_noise_is_refused_or_waits_and_no_tag_is_lost(self) -> None:
        """Whatever comes: an answer, a WireError, or patience; no other exception."""
        for seed in range(NOISES):
            chance = Random(seed)
            protocol = self.opened() if seed % 3 else self.make()
            tags = [tag for tag in range(4) if protocol.start(tag)]
            data = bytearray(self.hello + b"".join(self.answer(number) for number in range(len(tags) or 1)))
            if seed % 4 == 0:
                data = bytearray(chance.randbytes(60))
            elif seed % 4 == 1:
                data = bytearray(chance.choice(FOREIGN))
            else:
                for _ in range(chance.randint(1, 4)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
            places = [chance.randrange(len(data)) for _ in range(4)]
            done, broken = fed(protocol, cut(bytes(data), places))
            assert broken is None or (str(broken) and broken.kind)
            assert sorted([one.tag for one in done] + protocol.open_tags()) == tags, seed
            assert isinstance(protocol.farewell(), bytes)

    # --- without bound ---------------------------------------------------------------------------------

    def test_what_never_ends_is_not_kept(self) -> None:
        beginnings = dict(self.endless)
        beginnings |= {f"byte {byte}": (b"", bytes([byte])) for byte in (0, 10, 65, 255)}
        beginnings["the hello"] = (b"", self.hello or b"\r\n")
        for name, (begin, again) in beginnings.items():
            protocol = self.opened()
            protocol.start(TAG)
            piece = again * max(1, PIECE_BYTES // len(again))
            try:
                feed(protocol, [begin])
                for _ in range(ENDLESS_BYTES // len(piece)):
                    feed(protocol, [piece])
                    settle(protocol)
            except WireError:
                pass
            assert held_bytes(protocol) < HELD_BYTES, name

    def test_answers_that_never_repeat_are_not_kept(self) -> None:
        protocol = self.opened()
        for number in range(400):
            assert protocol.start(number)
            note = b"%06d" % number * (2000 if number % 2 else 1)
            assert [one.tag for one in feed(protocol, [self.answer(number, note)])] == [number]
            settle(protocol)
        assert held_bytes(protocol) < HELD_BYTES


def fed(protocol: WireProtocol, pieces: Iterable[bytes]) -> tuple[list[Answer], WireError | None]:
    """The answers, and what broke the connection, if anything did."""
    done: list[Answer] = []
    try:
        for piece in pieces:
            done += feed(protocol, [piece])
            if protocol.broken is not None:
                assert (protocol.closing, protocol.attention) == (True, True)
                return done, protocol.broken
    except WireError as error:
        return done, error
    return done, None


def settle(protocol: WireProtocol) -> None:
    """What the engine does when something is worth a look."""
    if protocol.attention:
        protocol.take_control()
        protocol.reasons.clear()
        protocol.attention = False
        assert protocol.take_control() == b"", "what was taken is gone"


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Whole, in single bytes, and in two at every place."""
    yield [data]
    yield every_byte(data)
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]


def held_bytes(thing: object, seen: set[int] | None = None) -> int:
    """Memory of an object and all that it refers to, but for what programs are made of."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, type) or callable(thing):
        return 0
    seen.add(id(thing))
    inner: list[object] = []
    if isinstance(thing, dict):
        inner = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        inner = list(thing)
    elif not isinstance(thing, bytes | str | int | memoryview):
        inner = list(getattr(thing, "__dict__", {}).values())
        names = (name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()))
        inner += [getattr(thing, name, None) for name in names]
    return sys.getsizeof(thing) + sum(held_bytes(each, seen) for each in inner)
