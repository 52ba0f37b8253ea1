"""`meshwise plan STUDY.yaml`: what a study will do, how long it takes, what it can show. Writes nothing."""

from __future__ import annotations

import json
import shlex
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from meshwise.archive.rows import cell_row
from meshwise.cli.plan_events import events_document, events_lines, late_events
from meshwise.cli.plan_graph import graph_document, show_graph, write_graph
from meshwise.cli.plan_needs import lacks, needs_document, needs_line, no_counter
from meshwise.cli.plan_search import search_document, show_search
from meshwise.cli.plan_shape import load_document, load_lines
from meshwise.cli.wiring import LevelOption, StudyArgument, not_applicable
from meshwise.core.units import format_duration, format_size, plural
from meshwise.report import edge
from meshwise.report.glossary import legend
from meshwise.study.design.alone import alone_in, cells_alone
from meshwise.study.design.blocks import design_block
from meshwise.study.design.counting import counted_cells
from meshwise.study.design.estimate import (
    Estimate,
    Resolution,
    counting_estimate,
    doubts,
    estimate,
    ladder_steps,
    resolution,
)
from meshwise.study.design.profiling import profiling_design
from meshwise.study.design.rounds import (
    MOST_SIDECARS,
    block_rounds,
    traffic_of,
    why_apart,
    why_no_arm,
)
from meshwise.study.factors import FACTORS
from meshwise.study.file.read import load_study
from meshwise.study.model import Arrangement, Cell, ControlPlane, Role, Study, Trial

SHOWN = {factor.field: factor for factor in FACTORS if factor.heading}
"""Factors that have a column."""


def plan(
    study: StudyArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Draw the call graph into this file.", metavar="FILE")
    ] = None,
    level: LevelOption = None,
) -> None:
    """Show a study's cells, trials, order, time, disk use and resolution. Writes nothing but what
    `--svg` asks for.

    Example: meshwise plan studies/quickstart.yaml
    """
    question = load_study(study, not_applicable, level)
    if as_json:
        typer.echo(json.dumps(plan_document(question), indent=2))
    else:
        show_plan(question, study, edge.console())
    if svg is not None:
        write_graph(question, svg)


def plan_document(study: Study) -> dict[str, Any]:
    """The plan as plain values; units in the keys."""
    expected = estimate(study)
    return {
        "study": study.name,
        "seed": study.seed,
        "environments": [str(mesh) for mesh in study.environments],
        "control_plane": str(study.control_plane),
        "blocks": study.blocks,
        "executions": study.executions,
        "trials": expected.trials,
        "wall_s": round(expected.wall_s, 1),
        "measured_s": round(expected.measured_s, 1),
        "disk_bytes": expected.disk_bytes,
        "cells": [cell_row(cell) | {"control": controls_of(study, cell)} for cell in study.cells],
        "not_applicable": [cell_row(no.cell) | {"reason": no.reason} for no in study.not_applicable],
        "arrangement": str(study.arrangement),
        "rounds": [len(arms) for arms in block_rounds(study)],
        "alone": {
            "per_block": len(alone_in(study, 0)),
            "cells": {cell.name: blocks for cell, blocks in _turns(study).items()},
        },
        "first_block": [
            {
                "trial_id": trial.trial_id,
                "cell": trial.cell.name,
                "role": str(trial.role),
                "round": trial.round,
                "arm": trial.arm,
            }
            for trial in design_block(study, 0)
        ],
        "resolution_in_sd": asdict(_resolution(study)),
        "doubts": [*lacks(study), *doubts(study), *late_events(study)],
        "needs": needs_document(study),
        "search": search_document(study),
        "count": _counting_document(study),
        "profile": [trial.cell.name for trial in profiling_design(study)],
        "topology": graph_document(study),
        "load": load_document(study),
        "events": events_document(study),
    }


def _counting_document(study: Study) -> dict[str, Any] | None:
    """What is counted, and how long that takes; None for a study that counts nothing."""
    if study.counting is None:
        return None
    found = counted_cells(study.cells, study.counting)
    return {
        **asdict(study.counting),
        **{name: value for name, value in asdict(counting_estimate(study)).items() if name != "executions"},
        "counted": [cell.name for cell in found.cells],
        "left_out": [{"cell": cell.name, "reason": why} for cell, why in found.left_out.items()],
        "merged": found.merged,
    }


def _turns(study: Study) -> dict[Cell, int]:
    """Cells that also run alone, and in how many blocks."""
    counts = Counter(task.cell for block in range(study.blocks) for task in alone_in(study, block))
    return {task.cell: counts[task.cell] for task in cells_alone(study)}


def controls_of(study: Study, cell: Cell) -> list[str]:
    """The roles that the cell has beside its own: in every block, alone in some."""
    found = []
    if cell in study.control.same:
        found.append(str(Role.AA))
    if cell in study.control.twin:
        found.append(str(Role.TWIN))
    if cell in study.control.halves:
        found.append("halves")
    if any(task.cell == cell for task in cells_alone(study)):
        found.append(str(Role.ALONE))
    return found


def _resolution(study: Study) -> Resolution:
    return resolution(max(study.executions, 2), ladder_steps(study), study.confidence)


def show_plan(study: Study, path: Path, console: Console) -> None:
    with console.capture() as captured:
        _show_study(study, console)
    console.file.write(said := captured.get())
    console.print(Text(f"\n{legend(said)}", style="dim"))
    cut = f" --level {study.layer}" if study.layer else ""
    out = shlex.quote(f"{study.name}-study")
    for line in (
        f"\nnext: meshwise run {shlex.quote(str(path))} --out {out}{cut}",
        f"then: meshwise analyze {out} && meshwise report {out}",
    ):
        console.print(Text(line), soft_wrap=True)


def _show_study(study: Study, console: Console) -> None:
    expected = estimate(study)
    console.print(
        Text.assemble((study.name, "bold"), f"  {' vs '.join(study.environments)} · seed {study.seed}")
    )
    if study.control_plane is ControlPlane.ISTIOD:
        console.print(Text("Istio's configuration is generated by the real istiod"))
    _show_size(study, expected, console)
    for line in [*_counting_lines(study), *_profiling_lines(study)]:
        console.print(Text(line))
    console.print(Text(needs_line(study)))
    for line in load_lines(study):
        console.print(Text(line))
    for line in events_lines(study):
        console.print(Text(line))
    varying, constant = split_factors(study.cells)
    if constant:
        console.print(Text("everywhere: " + ", ".join(constant)))
    console.print(Padding(_cell_table(study, varying), (1, 0, 0, 0)))
    show_graph(study, console)
    if study.not_applicable:
        _show_not_applicable(study, console)
    console.print(
        Text("\nOrder of the first block", style="bold"),
        Text("(shuffled anew in each; one number: at the same time)"),
    )
    first = design_block(study, 0)
    short = telling_factors(study.cells, varying)
    console.print(Columns([_task_text(trial, short) for trial in first], padding=(0, 3), column_first=True))
    _show_resolution(study, console)
    for mark, doubt in enumerate([*lacks(study), *doubts(study), *late_events(study)], start=1):
        console.print(Text(f"note {mark}: {doubt}"))


def _show_size(study: Study, expected: Estimate, console: Console) -> None:
    trial = study.trial
    if study.search:
        show_search(study, study.search, expected, console)
        return
    per_block, alone = expected.trials // study.blocks, len(alone_in(study, 0))
    extra = per_block - len(study.cells) - alone
    also = f" + {alone} alone" if alone else ""
    console.print(
        Text(
            f"{len(study.cells)} cells + {extra} controls{also} = {per_block} trials a block,"
            f" {study.blocks} blocks"
            f" in {study.executions} executions = {expected.trials} trials"
            f" of {format_duration(trial.warmup_ns)} warm-up and {format_duration(trial.duration_ns)}"
        )
    )
    console.print(Text(_rounds_words(study)))
    if said := _alone_words(study):
        console.print(Text(said))
    console.print(
        Text.assemble(
            "about ",
            (format_duration(expected.wall_s * 1e9), "bold"),
            f" ({expected.measured_s / expected.wall_s:.0%} of it in warm-up or measurement),"
            f" about {format_size(expected.disk_bytes)} on disk",
        )
    )


def _profiling_lines(study: Study) -> list[str]:
    """Which trials are profiled, behind all that is timed."""
    profiled = len(profiling_design(study))
    each_ns = study.trial.warmup_ns + study.trial.duration_ns
    took = format_duration(profiled * each_ns)
    return [f"profiled: {plural(profiled, 'trial')} more, one of each cell; {took} and starting"] * bool(
        profiled
    )


def _counting_lines(study: Study) -> list[str]:
    """What is counted beside what is timed, how long it takes, and what is not counted."""
    if study.counting is None:
        return []
    counting, expected = study.counting, counting_estimate(study)
    found = counted_cells(study.cells, counting)
    said = [
        f"counted: {expected.cells} cells in {expected.executions} executions = {expected.trials} trials of"
        f" {counting.windows} windows of {counting.requests} requests, and {counting.handshakes} handshakes;"
        f" about {format_duration(expected.wall_s * 1e9)} more"
    ]
    if found.merged:
        cells = "1 cell differs" if found.merged == 1 else f"{found.merged} cells differ"
        said.append(f"  {cells} from others only by rate, or by how long connections are kept: counted once")
    reasons = Counter(found.left_out.values())
    said += [f"  not counted: {plural(count, 'cell')}, because {why}" for why, count in reasons.items()]
    if why := no_counter(study):
        said.append(f"  not on this machine: {why}")
    return said


def _rounds_words(study: Study) -> str:
    """What runs at the same time in a block, and what does not, and why."""
    if study.arrangement is Arrangement.APART:
        why = why_apart(study.search, study.trial, study.cells)
        if why is None and study.trial.timeline:
            why = "events happen in every trial; `together` sets an undisturbed twin beside each cell"
        if why is None and study.control.same:
            why = "`control: same` needs trials one after another"
        return f"apart: one trial at a time ({why or 'the study says so'})"
    rounds = block_rounds(study)
    several = [len(arms) for arms in rounds if len(arms) > 1]
    if not several:
        return "apart: no two trials have the same traffic"
    most_rps = max(sum(task.cell.rate_rps for task in arms) for arms in rounds)
    no_arms = Counter(why for cell in study.cells if (why := why_no_arm(cell)))
    said = [
        f"together: {plural(len(several), 'round')} a block,"
        f" of {', '.join(map(str, several))} arms at the same time,"
        f" at most {most_rps:g} requests/s over all arms"
    ]
    said += [f"{count} apart: {why}" for why, count in no_arms.items()]
    if references := [task.cell.name for arms in rounds for task in arms if task.role is Role.REFERENCE]:
        said.append(
            f"rounds of more than {MOST_SIDECARS} sidecars are divided: {len(references)} have an arm"
            f" of their first part again ({', '.join(dict.fromkeys(references))})"
        )
    return "; ".join(said)


def _alone_words(study: Study) -> str:
    """Which cells also run alone, how often and why; empty where nothing has company."""
    several = [arms for arms in block_rounds(study) if len(arms) > 1]
    if not several:
        return ""
    turns, count = _turns(study), len(alone_in(study, 0))
    if not turns:
        return "alone: none, so levels are those of a busy machine (`alone`)"
    short = telling_factors(study.cells, split_factors(study.cells)[0])
    told = ", ".join(f"{_levels_text(cell, short)} in {blocks} blocks" for cell, blocks in turns.items())
    traffics = {traffic_of(arms[0].cell) for arms in several}
    without = len(traffics - {traffic_of(cell) for cell in turns})
    more = f"; none of {without} of {len(traffics)} kinds of traffic (a higher `alone` has them)"
    return f"alone: {count} a block besides, for levels without company: {told}{more * bool(without)}"


def level(cell: Cell, field: str) -> str:
    """One level as people write it; empty where it means nothing and does not say so itself."""
    factor = SHOWN[field]
    shown = factor.says_none or factor.default_of or factor.means_to(cell)
    return factor.text(factor.level(cell)) if shown else ""


def split_factors(cells: tuple[Cell, ...]) -> tuple[list[str], list[str]]:
    """Factors that vary (environment and posture always shown), and `name level` of those that do not."""
    levels = {field: {level(cell, field) for cell in cells} - {""} for field in SHOWN}
    varying = [field for field in SHOWN if len(levels[field]) > 1 or field in ("mesh", "posture")]
    constant = [
        f"{factor.heading} {next(iter(levels[field]))}"
        for field, factor in SHOWN.items()
        if levels[field]
        and field not in varying
        and not all(factor.level(cell) in factor.ordinary for cell in cells)
    ]
    return varying, constant


def telling_factors(cells: tuple[Cell, ...], varying: list[str]) -> list[str]:
    """The fewest of the varying factors, dropped from the right, that still tell all cells apart."""
    kept = list(varying)
    for factor in reversed(varying):
        fewer = [name for name in kept if name != factor]
        if len({tuple(level(cell, name) for name in fewer) for cell in cells}) == len(set(cells)):
            kept = fewer
    return kept


def _cell_table(study: Study, varying: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for factor in varying:
        shown = SHOWN[factor]
        table.add_column(shown.heading, justify="right" if shown.numeric else "left")
    table.add_column("control")
    before: Cell | None = None
    words = {str(Role.AA): "A/A", str(Role.TWIN): "twin", str(Role.ALONE): "alone", "halves": "halves"}
    for cell in study.cells:
        row = [level(cell, factor) for factor in varying]
        if before is not None and before.mesh is cell.mesh:
            row[0] = ""
        table.add_row(*row, ", ".join(words[role] for role in controls_of(study, cell)))
        before = cell
    return table


def _show_not_applicable(study: Study, console: Console) -> None:
    by_reason: dict[str, list[Cell]] = defaultdict(list)
    for no in study.not_applicable:
        by_reason[no.reason].append(no.cell)
    console.print(Text(f"\nNot applicable: {len(study.not_applicable)} cells, left out", style="bold"))
    for reason, cells in by_reason.items():
        postures = ", ".join(
            dict.fromkeys(f"{cell.mesh} {cell.posture.name} {cell.protocol}" for cell in cells)
        )
        console.print(Text(f"{postures}\n  {reason}"))


def _task_text(trial: Trial, varying: list[str]) -> Text:
    mark = "" if trial.role is Role.CELL else " (A/A)" if trial.role is Role.AA else f" ({trial.role})"
    return Text(f"{trial.round + 1:>2} {_levels_text(trial.cell, varying)}{mark}")


def _levels_text(cell: Cell, varying: list[str]) -> str:
    return " ".join(dict.fromkeys(level(cell, factor) for factor in varying)) or cell.posture.name


def _show_resolution(study: Study, console: Console) -> None:
    able = _resolution(study)
    unit = "execution" if study.blocks_per_execution > 1 else "block"
    console.print(Text("\nWhat it can show", style="bold"), Text(f"(paired t over {able.n} {unit}s)"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("if s.d. of a paired difference is")
    for percent in (1, 2, 5):
        table.add_column(f"{percent} %", justify="right")
    rows = {
        f"{study.confidence:.0%} interval of one step, half-width": able.half_width,
        f"of {able.family} steps that hold together": able.simultaneous_half_width,
        "smallest step, looked at alone, that 80 % of studies find": able.detectable,
    }
    for name, in_sd in rows.items():
        table.add_row(name, *(f"{in_sd * percent:.1f} %" for percent in (1, 2, 5)))
    console.print(table)
    console.print(Text("the A/A control tells which s.d. this machine has"))
