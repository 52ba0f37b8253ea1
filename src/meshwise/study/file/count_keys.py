"""The key `count` of a study file: what is counted, and how often."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

from pydantic import Field

from meshwise.study.counting import Counting
from meshwise.study.design.counting import counted_cells
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.file.scalars import Levels, Part
from meshwise.study.model import Cell, Protocol

_USUAL = Counting()
LEAST_EXECUTIONS = 2


class CountPart(Part):
    """Count instructions and system calls per request, in trials of their own."""

    requests: Annotated[int, Field(ge=1, le=100_000, description="In each window.")] = _USUAL.requests
    windows: Annotated[int, Field(ge=1, le=100, description="Windows of requests that count.")] = (
        _USUAL.windows
    )
    warmup: Annotated[int, Field(ge=0, le=100_000, description="Requests before them, not used.")] = (
        _USUAL.warmup
    )
    handshakes: Annotated[
        int, Field(ge=0, le=1000, description="Connections of a window of handshakes; 0: none.")
    ] = _USUAL.handshakes
    executions: Annotated[int, Field(ge=1, le=100, description="Lives of the proxies.")] = _USUAL.executions
    at_once: Annotated[int, Field(ge=1, le=16, description="Executions that count at the same time.")] = (
        _USUAL.at_once
    )
    connections: Levels[Annotated[int, Field(ge=1, le=1000)]] | None = Field(
        default=None, description="Instead of the cells' own; several show batching."
    )
    streams: Levels[Annotated[int, Field(ge=1, le=1000)]] | None = Field(
        default=None, description="Per connection of http2 and grpc, instead of the cells' own."
    )
    protocol: Levels[Protocol] | None = Field(
        default=None, description="Count only cells of these; by default all."
    )


def counting_of(part: CountPart | None, cells: tuple[Cell, ...], problems: list[Problem]) -> Counting | None:
    """None where nothing is to be counted."""
    if part is None:
        return None
    found = Counting(**{each.name: _levels(getattr(part, each.name)) for each in fields(Counting)})
    if part.executions < LEAST_EXECUTIONS:
        reason = "an interval needs two executions at least"
        problems.append(impossible(("count", "executions"), reason, f"usual: {_USUAL.executions}"))
    if part.connections and max(part.connections) > part.requests:
        reason = "a window has fewer requests than connections, so some would carry none"
        problems.append(impossible(("count", "connections"), reason, "more `requests`, or fewer connections"))
    if cells and not (of_cells := counted_cells(cells, found)).cells:
        reason, remedy = of_cells.why_none
        problems.append(impossible(("count",), reason, f"{remedy}, or remove `count`"))
    return found


def _levels(value: Any) -> Any:
    """Lists as they are kept; None, where nothing was said of levels, is none."""
    return tuple(value or ()) if value is None or isinstance(value, list | tuple) else value
