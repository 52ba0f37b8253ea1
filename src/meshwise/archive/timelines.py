"""A study's timeline as values of `study.json`, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from meshwise.study.timeline import (
    Act,
    ChangePosture,
    Declared,
    Fail,
    PushPolicies,
    Restart,
    Rotate,
    Skew,
    Timeline,
)

_ACTS: Mapping[str, type[Act]] = {
    "rotate": Rotate, "push": PushPolicies, "posture": ChangePosture, "restart": Restart, "fail": Fail,
    "skew": Skew,
}  # fmt: skip
"""By the word that says which it is: two of them can have the same fields."""
_TIMES = TypeAdapter(tuple[Annotated[int, Field(ge=0, strict=True)], ...])
_PERIOD = TypeAdapter(Annotated[int, Field(ge=0, strict=True)])


@cache
def _of(word: str) -> TypeAdapter[Act]:
    return TypeAdapter(_ACTS[word])


def timeline_values(timeline: Timeline) -> list[dict[str, Any]]:
    words = {kind: word for word, kind in _ACTS.items()}
    return [
        {
            "act": words[type(each.act)],
            **_of(words[type(each.act)]).dump_python(each.act, mode="json"),
            "at_ns": list(each.at_ns),
            "every_ns": each.every_ns,
        }
        for each in timeline.declared
    ]


def timeline_of_values(values: Iterable[Mapping[str, Any]]) -> Timeline:
    """Raises KeyError, TypeError, ValueError for what is none."""
    return Timeline(tuple(map(_declared, values)))


def _declared(values: Mapping[str, Any]) -> Declared:
    rest = dict(values)
    word, at_ns, every_ns = (rest.pop(name) for name in ("act", "at_ns", "every_ns"))
    return Declared(
        _of(word).validate_python(rest), _TIMES.validate_python(at_ns), _PERIOD.validate_python(every_ns)
    )
