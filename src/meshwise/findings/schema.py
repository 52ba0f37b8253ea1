"""findings.json as JSON Schema (draft 2020-12), made from the dataclasses so that both always agree.

`python scripts/findings_schema.py > docs/findings.schema.json` renews the committed copy; a test compares.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from meshwise.findings.event import EventFacts
from meshwise.findings.finding import (
    CONFIGURED,
    OBSERVED,
    OF_SOME,
    SCHEMA_VERSION,
    Adjustment,
    Companion,
    Finding,
    WithoutOutliers,
)
from meshwise.findings.flag import Flag
from meshwise.findings.protection import AttemptCounts, AttemptTries, TradePoint
from meshwise.findings.subject import Kind, ScopeValue


def schema(traits: Sequence[str]) -> dict[str, Any]:
    """The schema of a document whose fairness card speaks of `traits`. Unknown keys are allowed: within one
    version fields are only added."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "meshwise findings",
        "description": "What a study says, with how sure it is. docs/findings.md explains every field.",
        "type": "object",
        "required": ["schema_version", "study", "environment", "findings"],
        "properties": {
            "schema_version": {"const": SCHEMA_VERSION},
            "study": {
                "type": "object",
                "description": "What was declared before the first trial, and how many trials there are.",
                "required": ["name", "confidence", "primary_metrics", "blocks", "executions"],
            },
            "environment": {"type": "object", "description": "environment.json as it was recorded."},
            "made_from": {
                "type": "object",
                "description": "SHA-256 of the archive's files that decide the findings.",
                "additionalProperties": {"type": "string"},
            },
            "sha256": {
                "type": "string",
                "description": "Of all the rest as JSON with sorted keys and without blanks.",
            },
            "fairness": {
                "type": "array",
                "description": "What is equal between the compared meshes; a value under each mesh's name.",
                "items": {
                    "type": "object",
                    "required": ["what", "trait", "equal", "basis", "effect", "removable", "why_not"],
                    "properties": {
                        "trait": {"enum": list(traits)},
                        "equal": {"type": "boolean"},
                        "basis": {"enum": [OBSERVED, CONFIGURED]},
                    },
                    "additionalProperties": {"type": "string"},
                },
            },
            "findings": {"type": "array", "items": {"$ref": "#/$defs/Finding"}},
            "pictures": {
                "type": "object",
                "description": "Numbers for drawings, by cell: `curves`, `courses`, `drift`, "
                "`step_courses`, `flames`.",
            },
            "tradeoff": {
                "type": "array",
                "description": "Cost against protection; `dominated_by` are places in this list.",
                "items": {"$ref": "#/$defs/TradePoint"},
            },
        },
        "$defs": {each.__name__: _object(each) for each in _OBJECTS},
    }


_OBJECTS = (Finding, Companion, WithoutOutliers, AttemptTries, AttemptCounts, EventFacts, TradePoint)


def _object(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    properties: dict[str, Any] = {}
    for entry in fields(cls):
        properties |= _WRITTEN.get(entry.name) or {entry.name: _typed(hints[entry.name], entry)}
    required = [name for name in properties if name not in OF_SOME]
    return {"type": "object", "required": required, "properties": properties}


def _typed(hint: Any, entry: Field[Any] | None = None) -> dict[str, Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return {"anyOf": [_typed(each) for each in get_args(hint)]}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _typed(get_args(hint)[0])}
    if hint in (Flag, Adjustment):
        return {"type": "string"}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [str(each) for each in hint]}
    if is_dataclass(hint) and isinstance(hint, type):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if get_origin(hint) is not None and issubclass(get_origin(hint), Mapping):
        return {"type": "object", "additionalProperties": _typed(get_args(hint)[1])}
    plain = {str: "string", float: "number", int: "integer", bool: "boolean", type(None): "null"}[hint]
    return {"type": plain} | ({"minLength": 1} if entry and entry.default is MISSING and hint is str else {})


_WRITTEN: dict[str, dict[str, Any]] = {
    "subject": {"kind": _typed(Kind), "metric": {"type": "string", "minLength": 1}},
    "key": {"scope": _typed(Mapping[str, ScopeValue])},
    "at": {"scope": _typed(Mapping[str, ScopeValue])},
}
"""Fields of a finding that are written as others."""
