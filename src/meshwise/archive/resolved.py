"""`study.json`: the study as it was understood when it ran, as values.

The YAML beside it is for people. A later grammar may read it otherwise or refuse it; what was measured stays
what it was. Cells are stored as the rows of `design.parquet` have them, the service graph they share once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pyarrow as pa
from pydantic import Field, TypeAdapter

from meshwise.archive.decode import check_laws
from meshwise.archive.rows import cell_of, cell_row
from meshwise.archive.schema import CELL_COLUMNS, DESIGN
from meshwise.archive.timelines import timeline_of_values, timeline_values
from meshwise.study.graph.model import graph_of
from meshwise.study.model import (
    Arrangement,
    Cell,
    Control,
    ControlPlane,
    Counting,
    Layer,
    MeshName,
    NotApplicable,
    Sampling,
    Search,
    ServiceGraph,
    Study,
    Timeline,
    TrialPlan,
)
from meshwise.study.timeline import Declared, Restart, Restarted

STUDY_VALUES_NAME = "study.json"
_PLAIN = (
    "name", "seed", "blocks", "blocks_per_execution", "proxy_workers", "pin_cpus", "outlier_rule",
    "confidence", "margin", "primary_metrics",
)  # fmt: skip
"""Fields of a study that JSON holds as they are."""
_CONTROLS = ("same", "twin", "halves")
"""Archives from before there were halves do not say them: they have none."""
_WHOLE = TypeAdapter(Annotated[int, Field(ge=0, strict=True)])
_CELL_COLUMNS = pa.schema(
    [(column.name, column.type) for column in DESIGN.columns if column.name in CELL_COLUMNS]
)


@cache
def _plan() -> TypeAdapter[TrialPlan]:
    return TypeAdapter(TrialPlan)


@cache
def _search() -> TypeAdapter[Search | None]:
    return TypeAdapter(Search | None)


@cache
def _counting() -> TypeAdapter[Counting | None]:
    return TypeAdapter(Counting | None)


@cache
def _sampling() -> TypeAdapter[Sampling]:
    """Archives from before there was a choice do not say it: they were read each second."""
    return TypeAdapter(Sampling)


def to_values(study: Study) -> dict[str, Any]:
    """All of it but `source`, which is study.yaml, and `notes`, which were for planning only."""
    graph = next((cell.graph for cell in study.cells if cell.graph), None)

    def rows(cells: Iterable[Cell]) -> list[dict[str, Any]]:
        return [cell_row(cell) | {"graph": cell.graph is not None} for cell in cells]

    return {name: getattr(study, name) for name in _PLAIN} | {
        "graph": graph.to_json() if graph else None,
        "environments": [str(mesh) for mesh in study.environments],
        "cells": rows(study.cells),
        "not_applicable": [
            {"cell": rows([each.cell])[0], "reason": each.reason} for each in study.not_applicable
        ],
        "control": {name: rows(getattr(study.control, name)) for name in _CONTROLS},
        "trial": {
            **_plan().dump_python(study.trial, mode="json", exclude={"timeline"}),
            "timeline": timeline_values(study.trial.timeline),
        },
        "search": _search().dump_python(study.search, mode="json"),
        "layer": None if study.layer is None else str(study.layer),
        "arrangement": str(study.arrangement),
        "counting": _counting().dump_python(study.counting, mode="json"),
        "sampling": _sampling().dump_python(study.sampling, mode="json"),
        "profile": study.profile,
        "timed": study.timed,
        "alone": study.alone,
        "control_plane": str(study.control_plane),
    }


def of_values(values: Mapping[str, Any], source: str, traces: Path) -> Study:
    """The inverse; `traces`: where the archive keeps the trace of its load. Raises KeyError, TypeError,
    ValueError for what is none."""
    graph = graph_of(values["graph"]) if values["graph"] else None
    cell = _cells(graph, str(traces.parent / STUDY_VALUES_NAME))
    return Study(
        **_plain_values(values),
        environments=tuple(MeshName(name) for name in values["environments"]),
        cells=tuple(cell(row) for row in values["cells"]),
        not_applicable=tuple(
            NotApplicable(cell(each["cell"]), str(each["reason"])) for each in values["not_applicable"]
        ),
        control=Control(
            **{name: tuple(cell(row) for row in values["control"].get(name, ())) for name in _CONTROLS}
        ),
        trial=_with_traces(_plan_of(values["trial"]), traces),
        search=_search().validate_python(values["search"]),
        layer=None if values["layer"] is None else Layer(values["layer"]),
        arrangement=Arrangement(values.get("arrangement", Arrangement.APART)),
        counting=_counting().validate_python(values.get("counting")),
        sampling=_sampling().validate_python(values.get("sampling", {})),
        profile=TypeAdapter(bool).validate_python(values.get("profile", False)),
        timed=TypeAdapter(bool).validate_python(values.get("timed", True)),
        alone=_WHOLE.validate_python(values.get("alone", 0)),  # there was none before it was said
        control_plane=ControlPlane(values.get("control_plane", ControlPlane.MESHWISE)),
        source=source,
    )


def _plan_of(values: Mapping[str, Any]) -> TrialPlan:
    """In archives from before there were events of any kind, a plan says how often a proxy is restarted."""
    given = dict(values)  # raises TypeError for what is no mapping
    timeline = given.pop("timeline", None)
    plan = _plan().validate_python(given)
    if timeline is not None:
        return replace(plan, timeline=timeline_of_values(timeline))
    every_ns = _WHOLE.validate_python(given.get("restart_every_ns", 0))
    restarts = Declared(Restart(Restarted.PROXY), every_ns=every_ns)
    return replace(plan, timeline=Timeline((restarts,) if every_ns else ()))


def _plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(Study)
    found = {name: TypeAdapter(hints[name]).validate_python(values[name]) for name in _PLAIN}
    if not (0.5 <= found["confidence"] < 1 and found["blocks"] > 0 and found["blocks_per_execution"] > 0):
        raise ValueError("`confidence` or `blocks` cannot be")
    return found


def _cells(graph: ServiceGraph | None, path: str) -> Callable[[Mapping[str, Any]], Cell]:
    def cell(row: Mapping[str, Any]) -> Cell:
        plain = {**row, "graph": None}
        table = pa.Table.from_pylist([plain], schema=_CELL_COLUMNS)  # refuses other types
        check_laws(table, path, DESIGN, _CELL_COLUMNS.names)
        made = cell_of(plain)
        return replace(made, graph=graph) if row["graph"] else made

    return cell


def _with_traces(plan: TrialPlan, traces: Path) -> TrialPlan:
    if plan.shape is None or plan.shape.trace is None:
        return plan
    trace = replace(plan.shape.trace, path=str(traces / Path(plan.shape.trace.name).name))
    return replace(plan, shape=replace(plan.shape, trace=trace))
