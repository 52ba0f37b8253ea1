"""The archives that earlier versions made, kept in `tests/fixtures/archives`, and what may differ."""

from __future__ import annotations

import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[1] / "fixtures/archives"
NAMES = tuple(sorted(path.name.removesuffix(".tar.xz") for path in FIXTURES.glob("*.tar.xz")))
WORDS = frozenset({"sentence", "sentences", "warnings", "measured", "noise", "fairness", "page"})
"""Keys of texts for people: their wording may change, what they are made of stands beside them."""


def unpacked(name: str, directory: Path) -> Path:
    """The archive `directory/NAME`, with what was reported then beside it: `report.txt`, `report.json`."""
    with tarfile.open(FIXTURES / f"{name}.tar.xz") as tar:
        tar.extractall(directory, filter="data")
    return directory / name


def differences(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Where `new` is not `old`: numbers to 1e-12 of themselves, flags by code, texts for people not at all.
    Keys that are new are no difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key not in new:
                yield f"{place}.{key} is gone"
            elif key not in WORDS:
                yield from differences(value, new[key], f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{place} has {len(new)} entries, not {len(old)}"
        for index, (one, other) in enumerate(zip(old, new, strict=False)):
            called = one.get("id", index) if isinstance(one, dict) else index
            yield from differences(one, other, f"{place}[{called}]")
    elif isinstance(old, float) and isinstance(new, float):
        if not math.isclose(old, new, rel_tol=1e-12, abs_tol=1e-12):
            yield f"{place} is {new!r}, not {old!r}"
    elif ".flags[" in place and isinstance(old, str) and isinstance(new, str):
        if old.partition(":")[0] != new.partition(":")[0]:
            yield f"{place} is {new!r}, not {old!r}"
    elif old != new:
        yield f"{place} is {new!r}, not {old!r}"
