"""The scalar types of a study file: units, choices, one level or many. Input is text (`study.file.document`).

Error types made here (`unit`, `level`, `reason`) carry what `study.file.read` needs to say them in the
catalogue's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from meshwise.core.errors import MeshwiseError
from meshwise.core.units import (
    DURATION_PATTERN,
    parse_duration_ns,
    parse_multiple,
    parse_rate_rps,
    parse_share,
)
from meshwise.study.file.problems import did_you_mean
from meshwise.study.load.profile import MOST_RPS

T = TypeVar("T")


class Part(BaseModel):
    """A mapping in a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def unit(parse: Callable[[str], Any], at_most: float, most: str) -> Callable[[object], Any]:
    def validate(text: object) -> Any:
        try:
            value = parse(str(text))
        except MeshwiseError as error:
            raise PydanticCustomError(
                "unit", "{what}", {"what": error.what, "remedy": error.remedy}
            ) from None
        if value > at_most:
            context = {"what": f"`{text}` is too much", "remedy": f"the most is {most}"}
            raise PydanticCustomError("unit", "{what}", context)
        return value

    return validate


def _rate(text: str) -> float:
    if re.fullmatch(r"\s*0+(\.0*)?\s*/\s*[smh]\s*", text):
        raise PydanticCustomError(
            "reason",
            "{what}",
            {"what": "a rate of 0 sends nothing", "remedy": "give a rate above 0, like `800/s`"},
        )
    return parse_rate_rps(text)


def quantity(pattern: str, examples: list[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": examples})


def choice(
    kind: str, known: Iterable[str], make: Callable[[str], Any]
) -> tuple[BeforeValidator, WithJsonSchema]:
    names = list(known)

    def validate(text: object) -> Any:
        if text not in names:
            context = {
                "text": str(text), "kind": kind, "known": ", ".join(f"`{name}`" for name in names),
                "meant": did_you_mean(str(text), names),
            }  # fmt: skip
            raise PydanticCustomError("level", "`{text}` is not a {kind}", context)
        return make(str(text))

    return BeforeValidator(validate), WithJsonSchema({"type": "string", "enum": names})


def one_of(kind: str, known: type[StrEnum]) -> Any:
    """The type of a level that is one word of an enumeration."""
    validator, schema = choice(kind, list(known), known)
    return Annotated[known, validator, schema]


class _OneOrMany:
    """A factor is one level or a list of levels; inside it is always a list."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        many = handler(core)
        return {"anyOf": [many["items"], many]}


Levels = Annotated[
    list[T],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    Field(min_length=1, max_length=64),
    _OneOrMany(),
]

Duration = Annotated[
    int,
    BeforeValidator(unit(parse_duration_ns, 3600 * 1e9, "1h")),
    quantity(f"^{DURATION_PATTERN}$", ["3s", "250ms", "1m30s"]),
]
Rate = Annotated[
    float,
    BeforeValidator(unit(_rate, MOST_RPS, f"{MOST_RPS:g}/s")),
    quantity(r"^[0-9.]+(e[+-]?[0-9]+)? */ *(s|m|h)$", ["800/s"]),
]
Share = Annotated[
    float,
    BeforeValidator(unit(parse_share, 1, "100%")),
    WithJsonSchema({"type": ["string", "number"], "examples": ["10%", 0.1]}),
]
Multiple = Annotated[
    float,
    BeforeValidator(unit(parse_multiple, 1000, "1000x")),
    quantity(r"^[0-9.]+ *x$", ["2x", "0.5x"]),
]
"""Of the cell's rate."""
