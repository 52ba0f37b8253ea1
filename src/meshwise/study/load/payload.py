"""Sizes of payloads that vary: a distribution as people write it, and its quantiles. Pure.

    uniform(1KiB, 64KiB)                      every size between, equally likely
    lognormal(1KiB, 1.5)                      median, and sigma of the logarithm
    lognormal(1KiB, 1.5, 1MiB)                the same with an upper bound of its own
    empirical(200B: 6, 4KiB: 3, 1MiB: 1)      these sizes, in proportion to these weights

Nothing is larger than `MAX_PAYLOAD_BYTES`; what lies beyond a bound is the bound itself, so that a heavy tail
keeps its share. A semicolon may stand for a comma, which YAML takes for its own inside `[...]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from statistics import NormalDist

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.units import parse_size_bytes

MAX_PAYLOAD_BYTES = 10 * 2**20
MAX_ENTRIES = 64
MAX_SIGMA = 5.0

_CALL = re.compile(r"\s*([a-z]+)\s*\((.*)\)\s*", re.DOTALL)
_NORMAL = NormalDist()


class Family(StrEnum):
    UNIFORM = "uniform"
    LOGNORMAL = "lognormal"
    EMPIRICAL = "empirical"


@dataclass(frozen=True)
class Payload:
    """A distribution of sizes; `str` writes it so that `parse_payload` reads the same."""

    family: Family
    sizes: tuple[int, ...]
    """uniform: low, high. lognormal: median, upper bound. empirical: the sizes, ascending."""
    weights: tuple[float, ...] = ()
    """lognormal: sigma. empirical: one per size."""

    def __str__(self) -> str:
        sizes = [_size_text(size) for size in self.sizes]
        match self.family:
            case Family.UNIFORM:
                inner = ", ".join(sizes)
            case Family.LOGNORMAL:
                bound = [] if self.sizes[1] == MAX_PAYLOAD_BYTES else [sizes[1]]
                inner = ", ".join([sizes[0], _plain(self.weights[0]), *bound])
            case Family.EMPIRICAL:
                pairs = zip(sizes, self.weights, strict=True)
                inner = ", ".join(f"{size}: {_plain(weight)}" for size, weight in pairs)
        return f"{self.family}({inner})"

    @property
    def mean_bytes(self) -> float:
        match self.family:
            case Family.UNIFORM:
                return sum(self.sizes) / 2
            case Family.LOGNORMAL:
                return _lognormal_mean(self.sizes[0], self.sizes[1], self.weights[0])
            case Family.EMPIRICAL:
                products = (size * weight for size, weight in zip(self.sizes, self.weights, strict=True))
                return sum(products) / sum(self.weights)

    @property
    def largest_bytes(self) -> int:
        return self.sizes[-1]

    def quantile(self, share: float) -> int:
        """The size below which this share lies; `share` in (0, 1)."""
        match self.family:
            case Family.UNIFORM:
                low, high = self.sizes
                return low + int(share * (high - low + 1))
            case Family.LOGNORMAL:
                median, bound = self.sizes
                exponent = self.weights[0] * _NORMAL.inv_cdf(share)
                return min(round(median * math.exp(exponent)), bound)
            case Family.EMPIRICAL:
                wanted = share * sum(self.weights)
                reached = zip(self.sizes, accumulate(self.weights), strict=True)
                return next((size for size, total in reached if wanted < total), self.sizes[-1])


def is_distribution(text: str) -> bool:
    """Whether the text means to be a distribution and not one size."""
    return "(" in text or bool(re.match(r"\s*[a-zA-Z]", text))


def parse_payload(text: str) -> Payload:
    """Raises MW105 with what was meant."""
    call = _CALL.fullmatch(text)
    if call is None or call[1] not in _READERS:
        raise _refused(f"`{text}` is not a size or a distribution of sizes")
    arguments = [part.strip() for part in re.split(r"[,;]", call[2]) if part.strip()]
    try:
        payload = _READERS[call[1]](arguments)
    except MeshwiseError as error:
        raise _refused(f"`{text}`: {error.what}") from error
    except ValueError as error:
        raise _refused(f"`{text}`: {error}") from error
    if payload.largest_bytes > MAX_PAYLOAD_BYTES:
        raise _refused(f"`{text}` goes beyond {_size_text(MAX_PAYLOAD_BYTES)}, the most that is sent")
    return payload


def _refused(reason: str) -> MeshwiseError:
    remedy = "write `1KiB`, `uniform(1KiB, 64KiB)`, `lognormal(1KiB, 1.5)` or `empirical(1KiB: 9, 1MiB: 1)`"
    return messages.BAD_VALUE.error(reason=reason, remedy=remedy)


def _read_uniform(arguments: list[str]) -> Payload:
    if len(arguments) != 2:
        raise ValueError("uniform takes two sizes, the least and the most")
    low, high = (parse_size_bytes(text) for text in arguments)
    if low > high:
        raise ValueError("the least is more than the most")
    return Payload(Family.UNIFORM, (low, high))


def _read_lognormal(arguments: list[str]) -> Payload:
    if len(arguments) not in (2, 3):
        raise ValueError("lognormal takes a median, sigma and, if wanted, an upper bound")
    median = parse_size_bytes(arguments[0])
    bound = parse_size_bytes(arguments[2]) if len(arguments) == 3 else MAX_PAYLOAD_BYTES
    sigma = _number(arguments[1])
    if not 0 < sigma <= MAX_SIGMA:
        raise ValueError(f"sigma must be above 0 and at most {MAX_SIGMA:g}")
    if not 0 < median <= bound:
        raise ValueError("the median must be above 0 and within the bound")
    return Payload(Family.LOGNORMAL, (median, bound), (sigma,))


def _read_empirical(arguments: list[str]) -> Payload:
    weights: dict[int, float] = {}
    for argument in arguments:
        text, colon, weight_text = argument.partition(":")
        size, weight = parse_size_bytes(text), _number(weight_text) if colon else 1.0
        if not 0 < weight <= 1e9:
            raise ValueError("a weight must be above 0")
        if size in weights:
            raise ValueError(f"{_size_text(size)} stands there twice")
        weights[size] = weight
    if not 1 <= len(weights) <= MAX_ENTRIES:
        raise ValueError(f"empirical takes 1 to {MAX_ENTRIES} sizes with their weights")
    sizes = tuple(sorted(weights))
    return Payload(Family.EMPIRICAL, sizes, tuple(weights[size] for size in sizes))


_READERS: dict[str, Callable[[list[str]], Payload]] = {
    "uniform": _read_uniform,
    "lognormal": _read_lognormal,
    "empirical": _read_empirical,
}


def _number(text: str) -> float:
    if not re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?\s*", text):
        raise ValueError(f"`{text.strip()}` is not a number")
    return float(text)


def _plain(number: float) -> str:
    return repr(int(number)) if number.is_integer() else repr(number)


def _size_text(size_bytes: int) -> str:
    """Exact, unlike `format_size`."""
    for unit, bytes_per in (("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes and size_bytes % bytes_per == 0:
            return f"{size_bytes // bytes_per}{unit}"
    return f"{size_bytes}B"


def _lognormal_mean(median: int, bound: int, sigma: float) -> float:
    """Of min(X, bound)."""
    at = math.log(bound / median) / sigma
    inside = median * math.exp(sigma**2 / 2) * _NORMAL.cdf(at - sigma)
    return inside + bound * (1 - _NORMAL.cdf(at))


def largest_bytes(sizes: int | Payload) -> int:
    """Of one size, or of a distribution."""
    return sizes if isinstance(sizes, int) else sizes.largest_bytes
