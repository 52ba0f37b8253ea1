"""A load shape from a text of its own, as it stands under `load: shape` in a study: `{spike: {at: 3s, ...}}`.

It is read as that part of a study, so that it has the same keys, units, bounds and words for mistakes.
"""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

from meshwise.study.file.document import Document, parse_document
from meshwise.study.file.movement import beyond, moving_load
from meshwise.study.file.problems import Problem, impossible, to_error
from meshwise.study.file.read import read_shape
from meshwise.study.load.profile import LoadProfile
from meshwise.study.model import Arrivals

_AT = ("load", "shape")


def parse_shape(
    text: str, name: str, arrivals: Arrivals, rate_rps: float, duration_ns: int, seed: int
) -> LoadProfile:
    """`name` stands for the text in messages. Raises MW1xx with line and column."""
    typed = parse_document(text, name)
    value: dict[str, Any] = {
        "name": "load",
        "seed": str(seed),
        "environments": "none",
        "load": {"arrivals": str(arrivals), "shape": typed.value},
        "trial": {"duration": f"{duration_ns}ns"},
    }
    document = Document(
        name,
        value,
        {(*_AT, *path): place for path, place in typed.value_places.items()},
        {(*_AT, *path): place for path, place in typed.key_places.items()},
    )
    file = read_shape(document)
    problems: list[Problem] = []
    if file.load.shape and file.load.shape.trace is not None:
        problems.append(impossible((*_AT, "trace"), "a trace is no shape here", "write --trace FILE"))
        raise to_error(document, problems)
    shape, _ = moving_load(file, FilePath, problems)
    if shape is not None:
        problems += beyond(shape, rate_rps, duration_ns)
    if problems:
        raise to_error(document, problems)
    assert shape is not None, "what is no shape has a problem"
    return shape
