"""Feeding a `WireProtocol` in pieces, and reading what it made of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshwise.load.wire.seam import (
    BYTES_SHIFT,
    ERROR_MASK,
    ERROR_SHIFT,
    STATUS_MASK,
    Completion,
    ErrorKind,
    WireProtocol,
)


@dataclass(frozen=True)
class Answer:
    tag: int
    status: int
    error: ErrorKind
    body_bytes: int


def answer_of(completion: Completion) -> Answer:
    tag, _, outcome = completion
    error = ErrorKind(outcome >> ERROR_SHIFT & ERROR_MASK)
    return Answer(tag, outcome & STATUS_MASK, error, outcome >> BYTES_SHIFT)


def feed(protocol: WireProtocol, pieces: Iterable[bytes]) -> list[Answer]:
    """All answers that come of the pieces, one `receive` each, the time counting up from 1."""
    answers: list[Answer] = []
    for time_ns, piece in enumerate(pieces, 1):
        if piece:
            answers += [answer_of(completion) for completion in protocol.receive(piece, time_ns)]
    return answers


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def every_byte(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]
