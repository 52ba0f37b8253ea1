"""Durations, sizes and rates as people write them (`3s`, `1m30s`, `1KiB`, `800/s`), and back.

What is printed here is read here, as is what `{:g}` makes of a rate (`1e+06/s`).

The only place where a unit is parsed or a number is scaled. Inside meshwise a duration is integer
nanoseconds or float seconds (the name says which), a size is bytes, a rate is requests per second.
"""

from __future__ import annotations

import math
import re

from meshwise.core import messages

_NUMBER = r"\s*([0-9]+(?:\.[0-9]+)?)\s*"
_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ns|us|µs|μs|ms|s|m|h)")
_DURATION_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,  # the Greek letter, where the line above has the micro sign
    "ms": 1_000_000,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SIZE_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_RATE_SECONDS = {"s": 1, "m": 60, "h": 3600}
_MOST = 2**63
"""Durations and sizes are stored as int64."""

DURATION_PATTERN = r"([0-9.]+ *(ns|us|µs|ms|s|m|h) *)+"
"""Of `parse_duration_ns`, for a JSON Schema: looser, without the order of units."""


def parse_duration_ns(text: str) -> int:
    """`3s`, `250ms`, `1.5m`, `1m30s`, `1h 5m` (larger units first) -> nanoseconds. Raises MW101."""
    total, place, unit_before = 0.0, 0, math.inf
    while match := _PART.match(text, place):
        unit = _DURATION_NS[match[2]]
        if unit >= unit_before:
            break
        total, place, unit_before = total + float(match[1]) * unit, match.end(), unit
    if not place or text[place:].strip() or not total < _MOST:
        raise messages.BAD_UNIT.error(text=text, kind="duration", example="`3s`, `250ms` or `1m30s`")
    return round(total)


def parse_size_bytes(text: str) -> int:
    """`0B`, `512B`, `1KiB`, `10MB` -> bytes. Raises MW101."""
    match = re.fullmatch(_NUMBER + r"(B|KB|MB|KiB|MiB|GiB|TiB)\s*", text)
    size_bytes = float(match[1]) * _SIZE_BYTES[match[2]] if match else math.inf
    if not match or not size_bytes < _MOST:
        raise messages.BAD_UNIT.error(text=text, kind="size", example="`512B`, `1KiB` or `10MiB`")
    return round(size_bytes)


def parse_rate_rps(text: str) -> float:
    """`800/s`, `90/m` -> requests per second. Raises MW101."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?)\s*/\s*(s|m|h)\s*", text)
    if not match or not 0 < float(match[1]) < math.inf:
        raise messages.BAD_UNIT.error(text=text, kind="rate", example="`800/s` or `90/m`")
    return float(match[1]) / _RATE_SECONDS[match[2]]


def parse_multiple(text: str) -> float:
    """`2x`, `0.5x` -> 2.0, 0.5. Raises MW101."""
    match = re.fullmatch(_NUMBER + r"x\s*", text)
    if not match:
        raise messages.BAD_UNIT.error(text=text, kind="multiple of the rate", example="`2x` or `0.5x`")
    return float(match[1])


def parse_share(text: str) -> float:
    """`10%` or `0.1` -> 0.1. Raises MW101 outside [0, 1]."""
    match = re.fullmatch(_NUMBER + r"(%?)\s*", text)
    share = float(match[1]) / (100 if match and match[2] else 1) if match else -1.0
    if not 0 <= share <= 1:
        raise messages.BAD_UNIT.error(text=text, kind="share", example="`10%` or `0.1`")
    return share


def format_duration(duration_ns: float) -> str:
    """To a second, or below a minute to three digits: `3s`, `250ms`, `1h 5m`."""
    if duration_ns >= 59.95 * 10**9:
        minutes, seconds = divmod(round(duration_ns / 10**9), 60)
        hours, minutes = divmod(minutes, 60)
        parts = [(hours, "h"), (minutes, "m"), (seconds, "s")]
        return " ".join(f"{number}{unit}" for number, unit in parts if number)
    for unit in ("s", "ms", "us"):
        if duration_ns >= 0.9995 * _DURATION_NS[unit]:  # what rounds to 1000 of the next is 1 of this one
            return f"{duration_ns / _DURATION_NS[unit]:.3g}{unit}"
    return f"{duration_ns:.0f}ns"


def format_size(size_bytes: float) -> str:
    """To three digits: `512B`, `1KiB`, `3.4MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        amount = size_bytes / _SIZE_BYTES[unit]
        if amount >= 0.9995:
            return f"{amount:.3g}{unit}" if amount < 999.5 else f"{amount:.0f}{unit}"
    return f"{size_bytes:.0f}B"


def plural(count: float, noun: str) -> str:
    """`1 node`, `3 nodes`."""
    return f"{count:.15g} {noun}" if count == 1 else f"{count:.15g} {noun}s"
