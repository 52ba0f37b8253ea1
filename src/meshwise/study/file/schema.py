"""The JSON Schema of a study file, for completion and checking in an editor."""

from __future__ import annotations

import json
from typing import Any

from meshwise.study.file.keys import StudyFile


def study_schema() -> dict[str, Any]:
    """JSON Schema (2020-12). It knows shape, levels and units; what keys mean together only `plan` knows."""
    schema = _tidy(StudyFile.model_json_schema())
    assert isinstance(schema, dict)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "meshwise study",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def study_schema_text() -> str:
    return json.dumps(study_schema(), indent=2, ensure_ascii=False) + "\n"


def _tidy(node: Any) -> Any:
    """Without what only pydantic needs: titles made of names, null as the way to leave a key out."""
    if isinstance(node, list):
        return [_tidy(each) for each in node]
    if not isinstance(node, dict):
        return node
    tidied = {
        key: {name: _tidy(each) for name, each in value.items()}
        if key in ("properties", "$defs")
        else _tidy(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and (value is None or isinstance(value, dict)))
    }
    options = tidied.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        options = [option for option in options if option != {"type": "null"}]
        tidied.pop("anyOf")
        tidied = {**options[0], **tidied} if len(options) == 1 else {"anyOf": options, **tidied}
    return tidied
