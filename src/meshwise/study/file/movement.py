"""From `load:` of a study file to its shape. Pure but for the trace's file; problems are gathered.

A trace says its own rate: it takes the place of the factor `rate`, so that cells, tables and estimates know
it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath

from meshwise.core.errors import MeshwiseError
from meshwise.core.units import format_duration
from meshwise.study.file.document import Path
from meshwise.study.file.keys import Factors, StudyFile, levels_said
from meshwise.study.file.load_keys import MovingLoad, TracePart
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.load.profile import (
    MOST_RPS,
    IdleBurst,
    LoadProfile,
    Markov,
    OnOff,
    Ramp,
    Sinusoid,
    Spike,
    Steps,
    TraceFile,
    TraceForm,
)
from meshwise.study.load.rate import rate_over_time
from meshwise.study.load.trace import read_trace
from meshwise.study.model import Arrivals, Cell

SHORTEST_NS = 1_000_000
"""Of what alternates; below it a shape is no longer a rate but a pattern of single requests."""
SHORTEST_STAY_NS = 10_000_000
_AT = ("load", "shape")
_ALONE = ("idle_burst", "trace")
_CURVES = ("ramp", "sinusoid")

TracePath = Callable[[str], FilePath]
"""From the name in the study to the file."""


def moving_load(
    file: StudyFile, trace_path: TracePath, problems: list[Problem]
) -> tuple[LoadProfile | None, StudyFile]:
    """The shape of the load, None if it is steady; and the file, with the rate of a trace as its rate."""
    _check_think(file, problems)
    given = file.load.shape
    if given is None or file.trial.duration < SHORTEST_NS:  # `expand` reports it
        return None, file
    found = list(_mistakes(file, given))
    problems += found
    if found:
        return None, file
    if given.trace is not None:
        return _replayed(file, given.trace, trace_path(given.trace.file), problems)
    return shape_of(given, file.trial.duration, zlib.crc32(f"{file.seed} markov".encode())), file


def shape_of(given: MovingLoad, duration_ns: int, seed: int) -> LoadProfile:
    """All but a trace."""
    steps, ramp, day, spike = given.steps, given.ramp, given.sinusoid, given.spike
    bursts, states, idle = given.on_off, given.markov.states if given.markov else [], given.idle_burst
    return LoadProfile(
        steps=Steps(tuple(steps.levels)) if steps else None,
        ramp=Ramp(ramp.start, ramp.end) if ramp else None,
        sinusoid=Sinusoid(day.swing, day.period or duration_ns) if day else None,
        on_off=OnOff(bursts.on, bursts.off, bursts.high, bursts.low) if bursts else None,
        spike=Spike(spike.at, spike.lasts, spike.height) if spike else None,
        markov=Markov(tuple(each.level for each in states), tuple(each.stays for each in states), seed)
        if states
        else None,
        idle_burst=IdleBurst(idle.idle, float(idle.burst)) if idle else None,
    )


_TWO_CLIENTS: Mapping[str, Callable[[Cell], float]] = {
    "plaintext_share": lambda cell: cell.plaintext_share,
    "forbidden_by: identity": lambda cell: cell.stranger_share,
}


def check_load(
    file: StudyFile, shape: LoadProfile | None, cells: Sequence[Cell], problems: list[Problem]
) -> None:
    """What only the cells tell: the highest rate, whether anything is sent, who sends a trace."""
    if shape is None:
        return
    for rate in sorted({cell.rate_rps for cell in cells}):
        if found := beyond(shape, rate, file.trial.duration):
            problems += found
            break
    for key, needs in _TWO_CLIENTS.items():
        if shape.times and any(needs(cell) for cell in cells):
            reason = f"a trace of times is sent by one client, and `{key}` needs two"
            problems.append(impossible((*_AT, "trace"), reason, f"use a trace of rates, or no `{key}`"))


def beyond(shape: LoadProfile, rate_rps: float, duration_ns: int) -> list[Problem]:
    """Whether the instrument cannot send it, or sends nothing."""
    found = rate_over_time(shape, rate_rps, duration_ns)
    if (peak := found.peak * rate_rps) > MOST_RPS:
        most = f"the instrument sends at most {MOST_RPS:.0f}/s"
        reason = f"at {rate_rps:g}/s this has a peak of {peak:.0f}/s; {most}"
        return [impossible(_AT, reason, "a lower rate, or lower levels")]
    if found.total_ns * rate_rps < 1e9:
        reason = f"at {rate_rps:g}/s this sends less than one request in a trial"
        return [impossible(_AT, reason, "higher levels, longer trials, or a higher rate")]
    return []


def _check_think(file: StudyFile, problems: list[Problem]) -> None:
    if file.load.think is not None and file.load.arrivals is not Arrivals.CLOSED:
        reason = "only a closed loop waits for its user to think; other arrivals have their times"
        problems.append(impossible(("load", "think"), reason, "add `arrivals: closed`, or remove it"))


def _mistakes(file: StudyFile, given: MovingLoad) -> Iterator[Problem]:
    said = [name for name in MovingLoad.model_fields if getattr(given, name) is not None]
    if not said:
        yield impossible(_AT, "this shape has no part", "for example `shape: {sinusoid: {swing: 80%}}`")
    if file.kind == "saturation":
        yield impossible(
            _AT, "a saturation study searches a rate, which must stand still", "remove the shape"
        )
    if file.load.arrivals is Arrivals.CLOSED:
        reason = "a closed loop has no rate of its own that could move"
        yield impossible(_AT, reason, "use `constant`, `uniform` or `poisson` arrivals")
    for name in _ALONE:
        if name in said and len(said) > 1:
            yield impossible((*_AT, name), f"`{name}` stands alone", "remove the other parts, or this one")
    if all(name in said for name in _CURVES):
        yield impossible((*_AT, "ramp"), "`ramp` and `sinusoid` do not go together", "keep one of them")
    yield from _bad_lengths(file, given)
    if given.ramp and not given.ramp.start and not given.ramp.end:
        yield impossible((*_AT, "ramp"), "this ramp sends nothing", "give it an end above `0x`")
    if given.sinusoid and not given.sinusoid.swing:
        yield impossible((*_AT, "sinusoid", "swing"), "without a swing nothing moves", "for example `80%`")


def _bad_lengths(file: StudyFile, given: MovingLoad) -> Iterator[Problem]:
    lengths: list[tuple[Path, int, int]] = []
    if given.sinusoid and given.sinusoid.period is not None:
        lengths.append((("sinusoid", "period"), given.sinusoid.period, SHORTEST_STAY_NS))
    if given.on_off:
        lengths.append((("on_off", "on"), given.on_off.on, SHORTEST_NS))
        lengths.append((("on_off", "off"), given.on_off.off, SHORTEST_NS))
    if given.spike:
        lengths.append((("spike", "lasts"), given.spike.lasts, SHORTEST_NS))
    if given.idle_burst:
        lengths.append((("idle_burst", "idle"), given.idle_burst.idle, SHORTEST_NS))
    for index, state in enumerate(given.markov.states if given.markov else ()):
        lengths.append((("markov", "states", index, "stays"), state.stays, SHORTEST_STAY_NS))
    for path, length, least in lengths:
        if length < least:
            reason = f"`{path[-1]}` is shorter than {format_duration(least)}"
            yield impossible((*_AT, *path), reason, "make it longer")
    if given.spike and given.spike.at + given.spike.lasts > file.trial.duration:
        reason = f"the spike does not end within the {format_duration(file.trial.duration)} of a trial"
        yield impossible((*_AT, "spike", "at"), reason, "earlier, shorter, or longer trials")


def _replayed(
    file: StudyFile, given: TracePart, path: FilePath, problems: list[Problem]
) -> tuple[LoadProfile | None, StudyFile]:
    at, name = (*_AT, "trace"), given.file
    form = TraceForm(given.time_column, given.unit, given.sort)
    try:
        trace = read_trace(path, file.trial.duration, form=form)
    except MeshwiseError as error:
        problems.append(impossible(at, f"{error.where}: {error.what}", error.remedy))
        return None, file
    if trace.times and file.load.arrivals is not Arrivals.CONSTANT:
        reason = f"{name} says every time, which leaves nothing to draw for `{file.load.arrivals}` arrivals"
        problems.append(impossible(("load", "arrivals"), reason, "remove it, or use a trace of rates"))
    parts: list[tuple[Path, Factors]] = [
        (("factors",), file.factors),
        *((("include", i), part) for i, part in enumerate(file.include or ())),
    ]
    for where, part in parts:
        if levels_said(part, "rate") is not None:
            reason = f"the rate is that of {name} ({trace.rate_rps:g}/s on average)"
            problems.append(impossible((*where, "rate"), reason, "remove it"))
    source = TraceFile(name, str(path), trace.sha256, trace.notes, form)
    shape = LoadProfile(times=trace.times, rates=trace.rates, trace=source)
    factors = file.factors.model_copy(update={"rate": [trace.rate_rps]})
    return shape, file.model_copy(update={"factors": factors})
