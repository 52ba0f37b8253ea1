"""A line of blocks for a terminal: the shape of a load at a glance."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float]) -> str:
    """One block per value, from 0 to the largest; a blank for 0. Between bars, so that blanks have an end."""
    most = max(values, default=0.0)
    return f"│{''.join(_block(value / most) if value > 0 else ' ' for value in values)}│"


def _block(share: float) -> str:
    return BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]
