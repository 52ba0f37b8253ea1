"""Asks many proxies at once: what a proof waits for is mostly the proxies, not itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 8
"""More would only queue at the proxies, which share the machine's CPUs with us."""


def together(action: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`action` of each, in their order; a few in a row, many in threads. Raises the error of the first that
    failed, when all have ended."""
    if len(items) <= 2:
        return [action(item) for item in items]
    with ThreadPoolExecutor(min(AT_ONCE, len(items)), "together") as pool:
        return list(pool.map(action, items))
