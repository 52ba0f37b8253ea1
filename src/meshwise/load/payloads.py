"""The sizes of a run's requests and answers: a small pool of pairs, and the order in which they are taken.

Requests are encoded once, before the run; a distribution is therefore a pool of drawn sizes. A draw is
stratified: each of n equal shares of the distribution gives one size, so that a small pool has the shape of
the whole, and a large one of the rare sizes is as rare as it should be. Weighted sizes are taken as they are,
with their weights. Which entry a request takes is drawn too, and depends only on the seed and on the
request's number: every trial of a block meets the same sizes in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meshwise.study.load.payload import Family, Payload

POOL_ENTRIES = 256
"""At most; an entry's number is one byte."""
LEAST_ENTRIES = 16
POOL_BYTES = 64 * 2**20
"""Of request bodies, over which the pool is made smaller, down to LEAST_ENTRIES."""
ORDER_ENTRIES = 1 << 16
"""After so many requests the order begins anew."""
RESPONSE_SLOT = "{response_bytes}"
"""In a path or a header: the size of the answer that this request asks for."""

_MOST_SIZES_PAIRED = 16


@dataclass(frozen=True)
class PayloadPool:
    """What a run sends and asks for."""

    pairs: tuple[tuple[int, int], ...]
    """(request bytes, response bytes)"""
    order: bytes
    """Request number modulo ORDER_ENTRIES -> place in `pairs`. Empty: there is one pair only."""


def fixed_pool(request_bytes: int, response_bytes: int) -> PayloadPool:
    return PayloadPool(((request_bytes, response_bytes),), b"")


def draw_pool(request: int | Payload, response: int | Payload, seed: int) -> PayloadPool:
    """A number is a fixed size."""
    if isinstance(request, int) and isinstance(response, int):
        return fixed_pool(request, response)
    random = np.random.default_rng((seed, 0x5EED))
    entries = POOL_ENTRIES
    while True:
        pairs, weights = _pairs(request, response, entries, random)
        if entries <= LEAST_ENTRIES or sum(size for size, _ in pairs) <= POOL_BYTES:
            break
        entries //= 2
    share = np.asarray(weights) / sum(weights)
    order = random.choice(len(pairs), ORDER_ENTRIES, p=share).astype(np.uint8).tobytes()
    return PayloadPool(tuple(pairs), order)


def _pairs(
    request: int | Payload, response: int | Payload, entries: int, random: np.random.Generator
) -> tuple[list[tuple[int, int]], list[float]]:
    """At most `entries` pairs and their weights. The two sizes of a pair are independent of each other."""
    listed = [_listed(side) for side in (request, response)]
    counts = [len(side) if side else 0 for side in listed]
    if all(counts) and counts[0] * counts[1] <= entries:
        pass
    elif bool(counts[0]) != bool(counts[1]) and max(counts) <= min(_MOST_SIZES_PAIRED, entries):
        strata = entries // max(counts)
        listed = [
            side or _strata(drawn, strata, random)
            for side, drawn in zip(listed, (request, response), strict=True)
        ]
    else:
        sides = [_strata(drawn, entries, random) for drawn in (request, response)]
        places = random.permutation(entries)
        return [(sides[0][at][0], sides[1][place][0]) for at, place in enumerate(places)], [1.0] * entries
    product = [(one, other) for one in listed[0] for other in listed[1]]
    pairs = [(one[0], other[0]) for one, other in product]
    return pairs, [one[1] * other[1] for one, other in product]


def _listed(side: int | Payload) -> list[tuple[int, float]]:
    """The sizes with their weights, where there is a list of them."""
    if isinstance(side, int):
        return [(side, 1.0)]
    if side.family is Family.EMPIRICAL:
        return list(zip(side.sizes, side.weights, strict=True))
    return []


def _strata(side: int | Payload, entries: int, random: np.random.Generator) -> list[tuple[int, float]]:
    if isinstance(side, int):
        return [(side, 1.0)] * entries
    shares = (np.arange(entries) + random.uniform(1e-9, 1 - 1e-9, entries)) / entries
    return [(side.quantile(share), 1.0) for share in shares.tolist()]
