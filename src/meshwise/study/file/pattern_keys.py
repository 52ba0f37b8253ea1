"""Types of a study file's keys for payloads, connections and streams."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.units import parse_rate_rps, parse_size_bytes
from meshwise.study.file.scalars import quantity, unit
from meshwise.study.load.payload import Payload, is_distribution, parse_payload

MAX_CHURN_PER_S = 10_000
MAX_SIZE_BYTES = 16 * 2**20

_SIZE = r"[0-9.]+ *(B|KB|MB|KiB|MiB|GiB)"


def _sizes(text: object) -> int | Payload:
    try:
        if is_distribution(str(text)):
            return parse_payload(str(text))
        size = parse_size_bytes(str(text))
        if size > MAX_SIZE_BYTES:
            raise messages.BAD_VALUE.error(reason=f"`{text}` is too much", remedy="the most is 16MiB")
    except MeshwiseError as error:
        context = {"what": error.what, "remedy": error.remedy}
        raise PydanticCustomError("unit", "{what}", context) from None
    return size


def _churn(text: str) -> float:
    return 0.0 if re.fullmatch(r"\s*0+(\.0*)?\s*/\s*[smh]\s*", text) else parse_rate_rps(text)


Sizes = Annotated[
    Any,
    BeforeValidator(_sizes),
    quantity(
        rf"^({_SIZE}|(uniform|lognormal|empirical) *\(.*\))$",
        ["512B", "1KiB", "uniform(1KiB, 64KiB)", "lognormal(1KiB, 1.5)", "empirical(200B: 9, 1MiB: 1)"],
    ),
]
"""A size in bytes, or a `Payload`."""
Churn = Annotated[
    float,
    BeforeValidator(unit(_churn, MAX_CHURN_PER_S, f"{MAX_CHURN_PER_S}/s")),
    quantity(r"^[0-9.]+ */ *(s|m|h)$", ["0/s", "10/s"]),
]
