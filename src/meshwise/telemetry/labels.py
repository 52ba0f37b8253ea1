"""The `labels` column: `key=value` pairs joined by commas, sorted by key; `,`, `=` and `%` are %-escaped."""

from __future__ import annotations

_ESCAPES = (("%", "%25"), (",", "%2C"), ("=", "%3D"))


def write_labels(pairs: dict[str, str]) -> str:
    return ",".join(f"{key}={_escape(value)}" for key, value in sorted(pairs.items()))


def read_labels(text: str) -> dict[str, str]:
    """Inverse of `write_labels`."""
    parts = [pair.partition("=") for pair in text.split(",")] if text else []
    return {key: _unescape(value) for key, _, value in parts}


def _escape(value: str) -> str:
    for char, escaped in _ESCAPES:
        value = value.replace(char, escaped)
    return value


def _unescape(value: str) -> str:
    for char, escaped in reversed(_ESCAPES):
        value = value.replace(escaped, char)
    return value
