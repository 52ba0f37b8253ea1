"""Where our configuration differs from istiod's: as text for a terminal, and as plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from meshwise.core.units import plural
from meshwise.mesh.istio import fidelity
from meshwise.mesh.istio.istiod.ads import PROXY_VERSION
from meshwise.mesh.istio.istiod.compare import ComparedSidecars, SidecarDifference

_SHOWN = 40
"""Unknown differences that a terminal gets; data have them all."""
_VALUE_CHARACTERS = 200


@dataclass(frozen=True)
class ComparedConfiguration:
    """What several cells of a study have in common, compared."""

    cells: tuple[str, ...]
    found: ComparedSidecars


@dataclass(frozen=True)
class _UnknownPair:
    """The same difference wherever it is."""

    path: str
    istiod: Any
    ours: Any
    places: tuple[tuple[str, str], ...]
    """Cell and workload."""


def document(
    study: str, istiod: Mapping[str, str], compared: Sequence[ComparedConfiguration]
) -> dict[str, Any]:
    """What `--json` prints."""
    reasons = {each.code: each for each in fidelity.ALL}
    unknown = _unknown(compared)
    return {
        "study": study,
        "istiod": dict(istiod),
        "proxy_version": PROXY_VERSION,
        "equal_but_for_known": not unknown,
        "configurations": [
            {
                "cells": list(each.cells),
                "sidecars": each.found.sidecars,
                "parts": {
                    word: {"compared": n, "unequal": each.found.unequal.get(word, 0)}
                    for word, n in each.found.parts.items()
                },
            }
            for each in compared
        ],
        "known": [
            {
                "code": field.code,
                "what": reasons[field.code].what,
                "effect": reasons[field.code].effect,
                "paths": field.path,
                "places": len(found),
                "example": _pair(found[0]),
            }
            for field, found in _known(compared)
        ],
        "unknown": [
            {
                "path": each.path,
                "istiod": each.istiod,
                "ours": each.ours,
                "places": [{"cell": cell, "workload": workload} for cell, workload in each.places],
            }
            for each in unknown
        ],
    }


def text(istiod: Mapping[str, str], compared: Sequence[ComparedConfiguration]) -> str:
    """What is equal in one line, then every difference with the path of its field."""
    version = "of unknown version" if istiod["version"] == "unknown" else istiod["version"]
    lines = [
        f"istiod {version} ({istiod['digest'][:19]}, {istiod['path']}), asked as a proxy of Istio "
        f"{PROXY_VERSION} with all of Istio's own filters",
        _equal_line(compared),
    ]
    known, unknown = list(_known(compared)), _unknown(compared)
    lines.append(f"\nknown differences: {len(known) or 'none'}")
    reasons = {each.code: each for each in fidelity.ALL}
    for code, rows in groupby(known, key=lambda each: each[0].code):
        lines.append(f"  {code}: {reasons[code].what}")
        lines.append(f"    effect: {reasons[code].effect}")
        for _, found in rows:
            first = found[0].pair
            lines.append(f"    {_general(first.path)} ({plural(len(found), 'place')})")
            lines.append(f"      istiod {_short(first.istiod)}; meshwise {_short(first.ours)}")
    lines.append(f"\nunknown differences: {len(unknown) or 'none'}")
    for each in unknown[:_SHOWN]:
        cell, workload = each.places[0]
        lines.append(f"  {each.path}")
        lines.append(f"    istiod {_short(each.istiod)}; meshwise {_short(each.ours)}")
        lines.append(f"    in {plural(len(each.places), 'sidecar')}, first: {workload} of {cell}")
    if len(unknown) > _SHOWN:
        lines.append(f"  and {len(unknown) - _SHOWN} more; --json has them all")
    return "\n".join(lines)


def is_equal(compared: Sequence[ComparedConfiguration]) -> bool:
    """Whether nothing differs but what is known."""
    return not any(each.found.unknown for each in compared)


def _equal_line(compared: Sequence[ComparedConfiguration]) -> str:
    counted: dict[str, int] = {}
    unequal: dict[str, int] = {}
    for each in compared:
        for word, n in each.found.parts.items():
            counted[word] = counted.get(word, 0) + n
            unequal[word] = unequal.get(word, 0) + each.found.unequal.get(word, 0)
    parts = [
        f"{n} {word}" if not unequal[word] else f"{n - unequal[word]} of {n} {word}"
        for word, n in counted.items()
    ]
    sidecars = sum(each.found.sidecars for each in compared)
    return (
        f"equal but for known differences, in {plural(len(compared), 'configuration')} with "
        f"{plural(sidecars, 'sidecar')}: {', '.join(parts)}"
    )


def _known(
    compared: Sequence[ComparedConfiguration],
) -> Iterator[tuple[fidelity.FieldDifference, Sequence[SidecarDifference]]]:
    """By the rows of the table, in its order; only those that were seen."""
    for field in fidelity.FIELDS:
        found = [each for one in compared for each in one.found.differences if each.known is field]
        if found:
            yield field, found


def _unknown(compared: Sequence[ComparedConfiguration]) -> list[_UnknownPair]:
    places: dict[str, list[tuple[str, str]]] = {}
    first: dict[str, SidecarDifference] = {}
    for one in compared:
        for each in one.found.unknown:
            key = json.dumps([each.pair.path, each.pair.istiod, each.pair.ours], sort_keys=True)
            first.setdefault(key, each)
            places.setdefault(key, []).append((one.cells[0], each.workload))
    return [
        _UnknownPair(each.pair.path, each.pair.istiod, each.pair.ours, tuple(places[key]))
        for key, each in first.items()
    ]


def _pair(found: SidecarDifference) -> dict[str, Any]:
    return {
        "workload": found.workload,
        "path": found.pair.path,
        "istiod": found.pair.istiod,
        "ours": found.pair.ours,
    }


def _general(path: str) -> str:
    """A path without the names of one resource and of what is in it."""
    path = re.sub(r"^(/\w+)/[^/]+", r"\1/*", path)
    return re.sub(r"/(filterChains|virtualHosts|policies|providers)/.*?(?=/[a-z@]\w+(/|$))", r"/\1/*", path)


def _short(value: Any) -> str:
    if value is None:
        return "has none"
    said = json.dumps(value, sort_keys=True)
    return said if len(said) <= _VALUE_CHARACTERS else f"{said[:_VALUE_CHARACTERS]}..."
