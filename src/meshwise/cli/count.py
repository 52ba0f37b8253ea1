"""`meshwise count STUDY.yaml --out DIR`: count instructions and system calls, and measure no time."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from meshwise.archive.read import stored_graph
from meshwise.cli.against import CountOutputs, conclude, refuse_other
from meshwise.cli.parts import run_parts
from meshwise.cli.run import closing_line, proxy_overrides, stopped_line
from meshwise.cli.wiring import LevelOption, OutOption, ResumeOption, StudyArgument, not_applicable
from meshwise.core import messages
from meshwise.study.counting import Counting
from meshwise.study.design.blocks import design
from meshwise.study.design.counting import counted_cells
from meshwise.study.file.read import load_study
from meshwise.study.model import Study
from meshwise.testbed.local.checks import preflight
from meshwise.testbed.local.world import enter_world


def count(
    study: StudyArgument,
    out: OutOption,
    resume: ResumeOption = False,
    level: LevelOption = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            help="Compare with an earlier count: its baseline.json or findings.json.",
            metavar="FILE",
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", help="Write the comparison as Markdown.", metavar="FILE"),
    ] = None,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", help="Write the comparison as JUnit XML.", metavar="FILE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Count instructions and system calls per request of the study's cells, and say what each step adds.

    Instructions repeat to a few tenths of a per cent on any machine, also on one that is busy; an Envoy's
    system calls, which its timers add to, to some per cent. They are not time.
    The study's key `count` says how often; without it the defaults hold. Needs valgrind. Ctrl-C ends it after
    clean-up and keeps what is complete (exit status 130); `--resume` continues there.

    Writes findings.json, and baseline.json for a later `--against`: exit status 1 if instructions changed by
    more than the noise rule, or a cell of the study that was counted then could not be counted now; 2 if the
    two may not be compared: other proxies or another counter, said before anything is counted, or other TLS.
    Exit status 1 too if no trial could be counted.

    Example: meshwise count studies/count.yaml --out my-counts --against baseline.json
    """
    outputs = CountOutputs(against, markdown, junit, as_json)
    earlier = outputs.earlier()
    question = counting_only(
        load_study(study, not_applicable, level, stored_graph(out) if resume else None), study
    )
    trials = design(question)
    preflight(question)

    def inside() -> int:
        return run_parts(
            question,
            trials,
            out,
            resume,
            lambda stored: stopped_line(stored, study, out, question.layer, "count"),
            lambda summary, statuses: closing_line(summary, statuses, out, shown=True),
            lambda environment: refuse_other(outputs, earlier, environment),
        )

    status = enter_world(inside, keep=[out, *proxy_overrides(os.environ)])
    raise typer.Exit(status or conclude(out, outputs, earlier))


def counting_only(question: Study, path: Path) -> Study:
    """The study without what is timed. Raises MW107 where no cell can be counted."""
    counting = question.counting or Counting()
    found = counted_cells(question.cells, counting)
    if not found.cells:
        reason, remedy = found.why_none
        raise messages.IMPOSSIBLE.error(str(path), reason=reason, remedy=remedy)
    return replace(question, counting=counting, timed=False)
