"""A study file -> `Study`, or one error that names every problem with file:line:column.

Four steps, each stopping at its own problems: read and compose (`document`), shape (`keys`), meaning
(`study.grid.expand`), and what the meshes can express (a function that is passed in).
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from meshwise.core import messages
from meshwise.core.files import reading
from meshwise.study.bank import DEFAULT_WEIGHTS
from meshwise.study.design.alone import usual_alone
from meshwise.study.design.rounds import why_apart
from meshwise.study.file.bank_keys import check_bank
from meshwise.study.file.count_keys import counting_of
from meshwise.study.file.document import MAX_CHARACTERS, Document, Path, parse_document
from meshwise.study.file.event_keys import EVENT_PARTS, tag_of
from meshwise.study.file.events import check_events, timeline_of
from meshwise.study.file.keys import StudyFile
from meshwise.study.file.movement import check_load, moving_load
from meshwise.study.file.objective import primary_of, search_of
from meshwise.study.file.problems import Problem, did_you_mean, impossible, to_error
from meshwise.study.file.telemetry_key import sampling_of
from meshwise.study.file.topology_key import GraphChoice
from meshwise.study.graph.model import ServiceGraph
from meshwise.study.graph.read import GraphFile, graph_of, read_graph
from meshwise.study.grid.control import choose_control
from meshwise.study.grid.expand import (
    NotApplicableReason,
    blocks_per_execution,
    expand_cells,
    of_layer,
    split_applicable,
)
from meshwise.study.grid.lives import check_lives
from meshwise.study.load.trace import TRACES
from meshwise.study.model import Arrangement, Cell, ControlPlane, Layer, MeshName, Study, TrialPlan


def every_cell_applies(cell: Cell) -> str | None:
    """For callers that do not know the meshes."""
    return None


def load_study(
    path: FilePath,
    not_applicable: NotApplicableReason = every_cell_applies,
    layer: Layer | None = None,
    kept_graph: ServiceGraph | None = None,
) -> Study:
    """Read and check a study file; with a layer, keep only its cells. Raises MW1xx.

    `kept_graph`: as an archive holds it, for a study whose graph file is gone.
    """
    try:
        with reading(path, piped=True) as stream:
            raw = stream.read(4 * MAX_CHARACTERS + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise messages.UNREADABLE_STUDY.error(str(path), reason=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise messages.NOT_YAML.error(str(path), reason=f"byte {error.start} is not UTF-8") from error
    return parse_study(text, str(path), not_applicable, layer, kept_graph, path.parent)


def parse_study(
    text: str,
    name: str,
    not_applicable: NotApplicableReason = every_cell_applies,
    layer: Layer | None = None,
    kept_graph: ServiceGraph | None = None,
    directory: FilePath | None = None,
    traces: FilePath | None = None,
    arrangement: Arrangement = Arrangement.TOGETHER,
) -> Study:
    """The same from text; `name` stands for the file in messages. Without a `directory` no graph file is
    read, and `kept_graph` is the study's graph. `traces`: where an archive keeps the trace of its load.
    `arrangement`: where the file says none."""
    document = parse_document(text, name)
    file = read_shape(document)
    problems: list[Problem] = []
    moving, file = moving_load(file, lambda said: _trace_path(said, directory, traces), problems)
    given = _graph(document, file, kept_graph, directory, problems)
    graph = given.graph if given else None
    cells, environments = of_layer(layer, expand_cells(file, problems, graph), file, problems)
    applicable, not_expressed = split_applicable(cells, not_applicable)
    if cells and not applicable:
        reason = f"no cell can be expressed by its mesh: {not_expressed[0].reason}"
        problems.append(impossible(("factors", "posture"), reason, "choose postures that the meshes have"))
    if file.load.timeout == 0:
        problems.append(
            impossible(("load", "timeout"), "a timeout of 0 fails every request", "give it time: `2s`")
        )
    if not 0.5 <= file.confidence < 1:
        problems.append(
            impossible(("confidence",), "confidence is at least 50% and under 100%", "usual: 0.95")
        )
    search, primary = search_of(file, problems), primary_of(file, problems)
    plan = TrialPlan(
        warmup_ns=file.trial.warmup,
        duration_ns=file.trial.duration,
        arrivals=file.load.arrivals,
        timeout_ns=file.load.timeout,
        shape=moving,
        think=file.load.think,
        mix=file.load.mix.weights if file.load.mix else tuple(DEFAULT_WEIGHTS.items()),
        timeline=timeline_of(file.events),
    )
    why = why_apart(search, plan, applicable)
    arrangement = _arrangement(file, why, arrangement, problems)
    control = choose_control(file, applicable, arrangement, problems, layer)
    per_execution = blocks_per_execution(file, problems)
    check_load(file, moving, applicable, problems)
    check_bank(file.shape, file.load.mix, problems)
    check_events(file.events, file.trial.duration, applicable, not_applicable, problems)
    counting = counting_of(file.count, applicable, problems)
    sampling = sampling_of(file.telemetry, problems)
    check_lives(applicable, plan, problems)
    if file.profile and search is not None:
        reason = "a search for saturation has no rate that a trial could be profiled at"
        problems.append(impossible(("profile",), reason, "profile a steady study at a rate of interest"))
    if file.alone and arrangement is Arrangement.APART:
        reason = "every trial of this study is alone already: it is arranged apart"
        problems.append(impossible(("alone",), reason, "leave it out"))
    if file.control_plane is ControlPlane.ISTIOD and MeshName.ISTIO not in file.environments:
        reason = "istiod is the control plane of Istio, which is not in this study"
        problems.append(
            impossible(("control_plane",), reason, "add `istio` to `environments`, or leave it out")
        )
    if problems:
        raise to_error(document, problems)
    study = Study(
        name=file.name,
        seed=file.seed,
        environments=environments,
        cells=applicable,
        not_applicable=not_expressed,
        control=control,
        trial=plan,
        blocks=file.blocks,
        blocks_per_execution=per_execution,
        proxy_workers=file.workers,
        pin_cpus=file.pin,
        outlier_rule=file.outliers,
        primary_metrics=primary,
        confidence=file.confidence,
        margin=file.margin,
        layer=layer,
        arrangement=arrangement,
        search=search,
        counting=counting,
        control_plane=file.control_plane,
        sampling=sampling,
        profile=file.profile,
        notes=(
            *(given.notes if given else ()),
            *(moving.trace.notes if moving and moving.trace else ()),
        ),
        source=text,
    )
    return replace(study, alone=usual_alone(study) if file.alone is None else file.alone)


def _arrangement(
    file: StudyFile, why: str | None, usual: Arrangement, problems: list[Problem]
) -> Arrangement:
    """As the file says; else as usual where that can be. `why`: the reason why trials cannot run together."""
    if file.control.same:
        why = why or "one set of processes cannot run two arms, so `control: same` needs trials apart"
    if file.arrangement is Arrangement.TOGETHER and why:
        reason = f"these trials cannot run together: {why}"
        problems.append(impossible(("arrangement",), reason, "write `apart`, or leave it out"))
    if file.events:  # they take CPU from the arms beside them, so only where the study says so
        usual = Arrangement.APART
    return Arrangement.APART if why else file.arrangement or usual


def _trace_path(said: str, directory: FilePath | None, traces: FilePath | None) -> FilePath:
    """A trace lies beside the study file, or where an archive keeps it."""
    if traces is not None:
        return traces / FilePath(said).name
    path = (directory or FilePath()) / said
    kept = (directory or FilePath()) / TRACES / path.name
    return kept if kept.is_file() and not path.exists() else path


def _graph(
    document: Document,
    file: StudyFile,
    kept: ServiceGraph | None,
    directory: FilePath | None,
    problems: list[Problem],
) -> GraphFile | None:
    """The service graph of the study, if it has one. A graph file's own mistakes are raised at once."""
    if not isinstance(file.topology, GraphChoice):
        return None
    path: Path = ("topology", "graph")
    if file.topology.file is None:
        found = graph_of(document, path, "inline", problems, file.topology.entry)
        if found is None:
            raise to_error(document, problems)
        return found
    if directory is not None:
        try:
            return read_graph(directory / file.topology.file, file.topology.entry)
        except FileNotFoundError:
            if kept is None:
                raise messages.UNREADABLE_GRAPH.error(
                    document.where(path), reason=f"there is no file `{directory / file.topology.file}`"
                ) from None
    if kept is None:
        raise messages.UNREADABLE_GRAPH.error(
            document.where(path), reason="a study from text alone has no files beside it"
        )
    return GraphFile(kept)


def read_shape(document: Document) -> StudyFile:
    """What pydantic makes of it. Raises MW1xx with every mistake."""
    if not isinstance(document.value, dict):
        raise messages.BAD_VALUE.error(
            document.where(()), reason="a study is a mapping of keys", remedy="begin with `name: my-study`"
        )
    problems = [
        Problem(
            path,
            messages.BAD_VALUE,
            {"reason": f"{_named(path)} has no value", "remedy": "write one, or remove it"},
        )
        for path in _empty(document.value, ())
        if path
    ]
    try:
        file = StudyFile.model_validate(document.value)
    except ValidationError as error:
        found = [_problem(details) for details in error.errors(include_url=False)]
        empty = {problem.path for problem in problems}
        raise to_error(document, problems + [each for each in found if each.path not in empty]) from error
    if problems:
        raise to_error(document, problems)
    return file


def _named(path: Path) -> str:
    """A key, or an entry of a list by its place as people count."""
    last = path[-1]
    return f"`{last}`" if isinstance(last, str) else f"entry {last + 1} of {_named(path[:-1])}"


def _empty(value: Any, path: Path) -> Iterable[Path]:
    if value is None:
        yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _empty(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _empty(inner, (*path, index))


def _problem(details: ErrorDetails) -> Problem:
    """pydantic's finding in the catalogue's words."""
    loc: Path = tuple(details["loc"])
    path = tuple(part for part in loc if part not in _TAGS)
    context = details.get("ctx", {})
    name = str(next((part for part in reversed(path) if isinstance(part, str)), "study"))
    match details["type"]:
        case "extra_forbidden":
            known = _keys_at(loc[:-1])
            facts = {"key": path[-1], "meant": did_you_mean(str(path[-1]), known)}
            return Problem(
                path,
                messages.UNKNOWN_KEY,
                facts | {"known": ", ".join(f"`{key}`" for key in known)},
                at_key=True,
            )
        case "missing":
            example = {
                "name": "for example `name: my-study`",
                "environments": "for example `environments: [none, istio]`",
            }.get(name, "see docs/study-file.md")
            return Problem(path[:-1], messages.MISSING_KEY, {"key": name, "example": example}, at_key=True)
        case "level":
            return Problem(path, messages.UNKNOWN_LEVEL, dict(context))
        case "unit" | "reason":
            return Problem(path, messages.BAD_VALUE, {"reason": context["what"], "remedy": context["remedy"]})
        case "string_pattern_mismatch" if name == "name":
            remedy = "lower-case letters, digits, `-` and `_`, at most 63"
            return Problem(path, messages.BAD_VALUE, {"reason": "not a name", "remedy": remedy})
        case "string_pattern_mismatch":
            remedy = "`none`, `cause`, or `hampel 5` (a number of deviations)"
            return Problem(path, messages.BAD_VALUE, {"reason": f"`{name}` is not a rule", "remedy": remedy})
        case _:
            given = details["input"]
            shown = f"`{given}`" if isinstance(given, (str, int, float)) else f"a {_kind(given)}"
            reason = f"{shown} does not fit `{name}`"
            remedy = details["msg"][:1].lower() + details["msg"][1:]
            return Problem(path, messages.BAD_VALUE, {"reason": reason, "remedy": remedy})


def _kind(value: object) -> str:
    return {"dict": "mapping", "list": "list", "NoneType": "missing value"}.get(type(value).__name__, "value")


_TAGS: Mapping[str, type[BaseModel]] = {tag_of(verb): part for verb, part in EVENT_PARTS.items()}
"""What stands in pydantic's place of a mistake, and in no file."""


def _keys_at(path: Path) -> list[str]:
    """The keys that a study may have at a path."""
    model: type[BaseModel] = StudyFile
    for part in path:
        if part in _TAGS:
            model = _TAGS[str(part)]
        elif isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside `list[...]`, `... | None` and the like."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for inner in typing.get_args(annotation) if (found := _model_in(inner))), None)
