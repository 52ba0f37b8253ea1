"""How findings are written as JSON and read back; docs/findings.md explains the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, TypeVar

from meshwise.findings.event import EventFacts
from meshwise.findings.finding import (
    OF_SOME,
    Adjustment,
    Companion,
    Finding,
    Findings,
    WithoutOutliers,
    finite,
)
from meshwise.findings.flag import Flag
from meshwise.findings.metric import MetricKey, PartOf
from meshwise.findings.protection import AttemptCounts, AttemptTries
from meshwise.findings.subject import Kind, read_subject
from meshwise.stats.verdict import Direction, Verdict


def to_json(document: Findings) -> dict[str, Any]:
    return {
        "schema_version": document.schema_version,
        "study": plain(document.study),
        "environment": plain(document.environment),
        "fairness": plain(document.fairness),
        "findings": [row(finding) for finding in document.findings],
        "pictures": document.pictures.as_json(),
        "tradeoff": [point.as_json() for point in document.tradeoff],
    }


def row(finding: Finding) -> dict[str, Any]:
    """One of `findings`: the subject is its kind and scope, the key its metric and the part in its scope."""
    first = {
        "id": finding.id,
        "kind": str(finding.kind),
        "metric": finding.metric,
        "scope": plain(finding.scope),
    }
    own = {name: plain(found) for name in OF_SOME if (found := getattr(finding, name)) is not None}
    return first | {name: plain(getattr(finding, name)) for name in _AS_NAMED} | own


_AS_NAMED = tuple(
    each.name for each in fields(Finding) if each.name not in ("id", "subject", "key", *OF_SOME)
)


def read_finding(entry: Mapping[str, Any]) -> Finding:
    """The inverse of `row`. Fields that this version does not know are left out.

    Raises KeyError, TypeError, ValueError for what is none.
    """
    known = {item.name: entry[item.name] for item in fields(Finding) if item.name in entry}
    for name in _NUMBERS:
        if known.get(name) is not None:
            known[name] = float(known[name])
    scope, adjustment = dict(entry["scope"]), entry.get("adjustment")
    parts = [scope.pop(str(part), "") for part in PartOf]
    known |= {
        "subject": read_subject(Kind(entry["kind"]), scope),
        "key": MetricKey(str(entry["metric"]), str(parts[0])),
        "verdict": Verdict(entry["verdict"]) if entry.get("verdict") else None,
        "direction": Direction(entry["direction"]) if entry.get("direction") else None,
        "flags": tuple(Flag.read(str(flag)) for flag in entry.get("flags") or ()),
        "adjustment": Adjustment.read(adjustment) if adjustment else None,
        "companion": None,  # shown nowhere
        "without_outliers": None,
        "tried": _read(AttemptTries, entry.get("tried")),
        "attempts": _read(AttemptCounts, entry.get("attempts")),
        "event": _read(EventFacts, entry.get("event")),
    }
    return Finding(**known)


Facts = TypeVar("Facts", AttemptTries, AttemptCounts, EventFacts)


def _read(cls: type[Facts], entry: Mapping[str, Any] | None) -> Facts | None:
    return cls(**{each.name: entry[each.name] for each in fields(cls)}) if entry else None


_NUMBERS = tuple(each.name for each in fields(Finding) if "float" in str(each.type))
"""JSON may have a whole number there."""


def plain(value: Any) -> Any:
    """As JSON can hold it."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is float:
        return finite(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Companion | WithoutOutliers | AttemptTries | AttemptCounts | EventFacts):
        return {entry.name: plain(getattr(value, entry.name)) for entry in fields(value)}
    return str(value) if isinstance(value, StrEnum | Flag | Adjustment) else value


_AS_THEY_ARE = frozenset({str, int, bool, type(None)})
