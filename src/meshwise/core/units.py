"""Durations, sizes and rates as people write them (`3s`, `1KiB`, `800/s`), and back.

The only place where a unit is parsed or a number is scaled. Inside meshwise a duration is integer
nanoseconds or float seconds (the name says which), a size is bytes, a rate is requests per second.
"""

from __future__ import annotations

import re

from meshwise.core import messages

_NUMBER = r"\s*([0-9]+(?:\.[0-9]+)?)\s*"
_DURATION_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SIZE_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_RATE_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_duration_ns(text: str) -> int:
    """`3s`, `250ms`, `1.5m` -> nanoseconds. Raises MW101."""
    match = re.fullmatch(_NUMBER + r"(ns|us|µs|ms|s|m|h)\s*", text)
    if not match:
        raise messages.BAD_UNIT.error(text=text, kind="duration", example="`3s`, `250ms` or `2m`")
    return round(float(match[1]) * _DURATION_NS[match[2]])


def parse_size_bytes(text: str) -> int:
    """`0B`, `512B`, `1KiB`, `10MB` -> bytes. Raises MW101."""
    match = re.fullmatch(_NUMBER + r"(B|KB|MB|KiB|MiB|GiB)\s*", text)
    if not match:
        raise messages.BAD_UNIT.error(text=text, kind="size", example="`512B`, `1KiB` or `10MiB`")
    return round(float(match[1]) * _SIZE_BYTES[match[2]])


def parse_rate_rps(text: str) -> float:
    """`800/s`, `90/m` -> requests per second. Raises MW101."""
    match = re.fullmatch(_NUMBER + r"/\s*(s|m|h)\s*", text)
    if not match or float(match[1]) <= 0:
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
    """The shortest exact reading: `3s`, `250ms`, `1h 5m`."""
    if duration_ns >= 60 * 10**9:
        minutes, seconds = divmod(round(duration_ns / 10**9), 60)
        hours, minutes = divmod(minutes, 60)
        parts = [(hours, "h"), (minutes, "m"), (seconds, "s")]
        return " ".join(f"{number}{unit}" for number, unit in parts if number) or "0s"
    for unit in ("s", "ms", "us"):
        if duration_ns >= _DURATION_NS[unit]:
            return f"{duration_ns / _DURATION_NS[unit]:.3g}{unit}"
    return f"{duration_ns:.0f}ns"


def format_size(size_bytes: float) -> str:
    """`512B`, `1KiB`, `3.4MiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes >= _SIZE_BYTES[unit]:
            return f"{size_bytes / _SIZE_BYTES[unit]:.3g}{unit}"
    return f"{size_bytes:.0f}B"
